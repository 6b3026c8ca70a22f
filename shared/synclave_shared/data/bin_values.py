"""The number that is written for a bin: a model knows a number by its bin only, reading must find that bin again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synclave_shared.data.fields import NumberField

__all__ = ["bin_values", "bin_values_float32"]


def bin_values(
    field: NumberField, position: npt.NDArray[np.int64], within: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """A number in each bin.

    Args:
        field: its bins.
        position: which bin, [n]; beyond the last one: not recorded.
        within: how far into the bin, strictly between 0 and 1, [n]; None: its middle.

    Returns:
        float64 [n], NaN where nothing is recorded; whole numbers for a field of integers.
    """
    low, high, middle = (
        np.array([float(getattr(entry, end)) for entry in field.bins] + [np.nan]) for end in ("low", "high", "middle")
    )
    position = np.minimum(position, len(field.bins))
    values: npt.NDArray[np.float64] = middle[position]
    if within is None:
        return values
    low, high = low[position], high[position]
    if field.integer:
        values = np.minimum(low + np.floor(within * (high - low + 1.0)), high)
    else:
        # The upper end is the next bin's, but a sum may be rounded up to it.
        values = np.minimum(low + within * (high - low), np.nextafter(high, low))
    return values


def bin_values_float32(
    field: NumberField, position: npt.NDArray[np.int64], within: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float32]:
    """:func:`bin_values` in the numbers of MEDS, whose shortest decimal form readers take for what was meant.

    Where rounding would leave the bin, its middle stands, which the writer has found to be safe.
    """
    stored = bin_values(field, position, within).astype(np.float32)
    read = stored.astype(str).astype(np.float64)
    edges = np.array([float(edge) for edge in field.edges])
    known = position < len(field.bins)
    found = np.searchsorted(edges, read, side="right")
    inside = (found == position) & (read >= float(field.minimum)) & (read <= float(field.maximum))
    middle = bin_values(field, position, None).astype(np.float32)
    return np.where(known & ~inside, middle, stored)
