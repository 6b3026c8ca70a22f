"""What a schema says about one channel of a time series, and how its values are scaled between public bounds."""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from synclave_shared.data.fields import NumberReader
from synclave_shared.privacy.mechanism import PositiveDecimal

__all__ = ["Channel"]


class Channel(NumberReader):
    """One quantity over time. A row of its table is one observation, if there is a value in its column.

    Attributes:
        combine: what a step of the grid shows of several values in it: their ``mean``, the ``first`` or ``last`` by
            time, the ``min`` or ``max``, or the ``sum``. Of values at one time, that with the lower place in the
            table's order column is the first; without one, or in one place, the lower value.
        outside: a value out of bounds is a ``fault``, moved to the nearest bound (``clip``) or no observation
            (``drop``); both are counted. With ``sum`` the bounds hold for the step's total, otherwise for every value.
        transform: ``none``, or ``log`` for a positive quantity that is skewed to the right: the scale is then even in
            the logarithm.
        resolution: the step by which the quantity is recorded, by convention; synthetic values are whole steps. None:
            any number.
    """

    combine: Literal["mean", "first", "last", "min", "max", "sum"]
    outside: Literal["fault", "clip", "drop"]
    transform: Literal["none", "log"] = "none"
    resolution: PositiveDecimal | None = None

    @model_validator(mode="after")
    def _scalable(self) -> Self:
        if self.minimum >= self.maximum:
            raise ValueError(f"channel {self.name}: minimum < maximum is needed")
        if max(abs(self.minimum), abs(self.maximum)) > 2**53:
            raise ValueError(f"channel {self.name}: bounds beyond 2^53 cannot be told apart exactly")
        if self.transform == "log" and self.minimum <= 0:
            raise ValueError(f"channel {self.name}: a logarithm needs a minimum above 0")
        low, high = self._ends()
        if not low < high:
            raise ValueError(f"channel {self.name}: the bounds cannot be told apart")
        if self.resolution is not None and self.resolution > self.maximum - self.minimum:
            raise ValueError(f"channel {self.name}: the resolution is larger than the distance of the bounds")
        return self

    def scaled(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Values within the bounds, in ``unit`` -> from -1 (minimum) to 1 (maximum); any shape."""
        low, high = self._ends()
        share = ((np.log(values) if self.transform == "log" else values) - low) / (high - low)
        return np.clip(2 * share - 1, -1, 1).astype(np.float32)

    def unscaled(self, scaled: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The inverse of :meth:`scaled`, exact to the rounding of a float32; -1 and 1 are never exceeded."""
        low, high = self._ends()
        inner = low + (np.clip(scaled.astype(np.float64), -1, 1) + 1) / 2 * (high - low)
        return self.bounded(np.exp(inner) if self.transform == "log" else inner)

    def recorded(self, scaled: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scaled values as they would be recorded: taken to the nearest whole step within the bounds; any shape."""
        return scaled if self.resolution is None else self.scaled(self.whole_steps(self.unscaled(scaled)))

    def whole_steps(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Values in ``unit`` taken to the nearest whole step of the resolution, if there is one, within the bounds."""
        if self.resolution is None:
            return self.bounded(values)
        step = float(self.resolution)
        low, high = math.ceil(self.minimum / self.resolution), math.floor(self.maximum / self.resolution)
        return self.bounded(np.clip(np.rint(values / step), low, high) * step)

    def bounded(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Values moved to the nearest bound."""
        return np.clip(values, float(self.minimum), float(self.maximum))

    def _ends(self) -> tuple[float, float]:
        low, high = float(self.minimum), float(self.maximum)
        return (float(np.log(low)), float(np.log(high))) if self.transform == "log" else (low, high)
