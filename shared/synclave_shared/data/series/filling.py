"""Values for the steps at which nothing was measured, from the patient's own record alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["filled"]


def filled(values: NDArray[np.float32], observed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Carry the last observation forward, and the first one back to the beginning.

    Args:
        values: [N, T, C], 0 where nothing was observed.
        observed: [N, T, C], 0/1.

    Returns:
        float32 [N, T, C]; 0 throughout where a channel was never observed.
    """
    steps = np.arange(values.shape[1])[None, :, None]
    latest = np.maximum.accumulate(np.where(observed, steps, -1), axis=1)
    first = np.where(observed.any(axis=1), observed.argmax(axis=1), 0)[:, None]
    taken: NDArray[np.float32] = np.take_along_axis(values, np.where(latest < 0, first, latest), axis=1)
    return taken
