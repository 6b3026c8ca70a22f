"""Sums of what was seen of a mechanism: small, and of several rounds together their sum."""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from synclave_shared.canonical import FrozenModel

__all__ = ["CELLS", "SKETCH_BYTES", "Evidence", "Tally"]

CELLS: Final = 256
"""Intervals in which numbers of noise are counted."""

SKETCH_BYTES: Final = 16
"""Of the sketch of one step's noise."""


class Tally(FrozenModel):
    """What is kept of standard normal numbers: how many, their sum and the sum of their squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Self:
        """Of some numbers [n]."""
        return cls(count=values.size, total=float(values.sum()), squares=float(values @ values))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            count=self.count + other.count, total=self.total + other.total, squares=self.squares + other.squares
        )


class Evidence(FrozenModel):
    """Sums of what was seen, of one round or of several together.

    Every :class:`Tally` holds standard normal numbers if the mechanism does what the plan says.

    Attributes:
        noise: (noised sum - clipped sum) / (noise multiplier times clip norm), coordinate by coordinate.
        cells: how many of them fell into each of :data:`CELLS` equally probable intervals.
        echoes: inner product of a step's noise with the direction of the noise of the step before.
        sizes: scores of the batch sizes, Binomial(N, q).
        runs: the same, with the sign of the size before: whether large follows large.
        overlaps: scores of how many of a batch were in the batch before, Binomial(its size, q).
        inclusions: scores of how often each patient was selected in the round, Binomial(steps, q).
        favoured: largest bound of the log-probability with which nobody is selected as often as the most selected one,
            in nats, times minus one; 0: nothing to see.
        selected: patients selected, over all steps.
        expected: N q, over all steps.
        contributions: patients whose contribution was computed by itself.
        largest: largest L2 norm of one of them, in what that patient may contribute.
        longest_sum: largest L2 norm of a step's clipped sum, in clip norms times patients.
        steps: noised releases.
        repeated: how many of them had noise that was there before, in this or any earlier round of the site.
    """

    noise: Tally = Tally()
    cells: tuple[int, ...] = (0,) * CELLS
    echoes: Tally = Tally()
    sizes: Tally = Tally()
    runs: Tally = Tally()
    overlaps: Tally = Tally()
    inclusions: Tally = Tally()
    favoured: float = 0.0
    selected: int = 0
    expected: float = 0.0
    contributions: int = 0
    largest: float = 0.0
    longest_sum: float = 0.0
    steps: int = 0
    repeated: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            noise=self.noise + other.noise,
            cells=tuple(a + b for a, b in zip(self.cells, other.cells, strict=True)),
            echoes=self.echoes + other.echoes,
            sizes=self.sizes + other.sizes,
            runs=self.runs + other.runs,
            overlaps=self.overlaps + other.overlaps,
            inclusions=self.inclusions + other.inclusions,
            favoured=max(self.favoured, other.favoured),
            selected=self.selected + other.selected,
            expected=self.expected + other.expected,
            contributions=self.contributions + other.contributions,
            largest=max(self.largest, other.largest),
            longest_sum=max(self.longest_sum, other.longest_sum),
            steps=self.steps + other.steps,
            repeated=self.repeated + other.repeated,
        )
