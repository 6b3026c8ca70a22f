"""A course in a few numbers per channel, for classifiers that know no time.

Legend: N patients, T steps, C channels, S static columns.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SUMMARIES", "summaries"]

SUMMARIES: Final = ("mean", "minimum", "maximum", "first", "last", "observations", "trend")
"""What is told of each channel: of the values observed, with the number of observations and the slope per step of the
line of least squares."""


def summaries(
    values: NDArray[np.float32],
    observed: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    static: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """:data:`SUMMARIES` of each channel, the length of the stay, and the static columns.

    Args:
        values: 0 where nothing was observed [N, T, C].
        observed: 0/1 [N, T, C].
        lengths: steps of the stay [N].
        static: 0/1 [N, S].

    Returns:
        float32 [N, 7 C + 1 + S]; NaN where a channel was not observed, or once only in the place of its trend.
    """
    seen = observed.astype(bool)
    count = seen.sum(axis=1)
    some = count > 0
    steps = np.arange(values.shape[1], dtype=np.float64)[None, :, None]
    known = np.maximum(count, 1)
    mean = values.sum(axis=1, dtype=np.float64) / known
    middle = (steps * seen).sum(axis=1) / known
    away = (steps - middle[:, None]) * seen
    spread = (away**2).sum(axis=1)
    slope = (away * values).sum(axis=1) / np.where(spread > 0, spread, 1)
    first = np.take_along_axis(values, seen.argmax(axis=1)[:, None], axis=1)[:, 0]
    last = np.take_along_axis(values, values.shape[1] - 1 - seen[:, ::-1].argmax(axis=1)[:, None], axis=1)[:, 0]
    lowest, highest = np.where(seen, values, np.inf).min(axis=1), np.where(seen, values, -np.inf).max(axis=1)
    columns = [np.where(some, part, np.nan) for part in (mean, lowest, highest, first, last)]
    columns += [count, np.where(spread > 0, slope, np.nan), lengths[:, None], static]
    return np.concatenate(columns, axis=1).astype(np.float32)
