"""How long a channel remembers: the autocorrelation of a process, fitted to noisy ones at a few lags."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["fitted_inertia", "lags", "usual_inertia"]

DECAYS: Final = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98)
"""What is left of a deviation after a step: candidates."""

INERTIA_DOUBT: Final = 0.01
"""Variance of an autocorrelation about the law that is fitted to it, without any noise."""

USUAL_LEVEL, USUAL_DECAY = 0.5, 0.85
"""A channel of which nothing is known: half of its variance is between patients, the rest fades within hours."""


def usual_inertia(steps: int) -> NDArray[np.float64]:
    """Autocorrelation of a channel of which nothing is known at lags 0 to T - 1, [T]."""
    return np.asarray(USUAL_LEVEL + (1.0 - USUAL_LEVEL) * USUAL_DECAY ** np.arange(steps), np.float64)


def lags(steps: int) -> tuple[int, ...]:
    """The lags at which values are compared: 0, and powers of two below T."""
    return (0, *(2**power for power in range(steps.bit_length()) if 2**power < steps))


def fitted_inertia(
    found: NDArray[np.float64], noise: NDArray[np.float64], usual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Autocorrelations [C, T] nearest to those found.

    Args:
        found: at the lags above 0, [G - 1, C].
        noise: of so much in each, [G - 1, C].
        usual: what is held where noise is all there is, [T].
    """
    steps = len(usual)
    at, every = np.array(lags(steps)[1:], np.int64), np.arange(steps)
    if not len(at):
        return np.ones((found.shape[1], steps))
    levels = np.linspace(0.0, 0.99, 34)
    candidates = np.stack([level + (1.0 - level) * decay**every for decay in DECAYS for level in levels])
    # Some of a channel's variance is gone within a step: a share that no lag above 0 shows.
    candidates = np.concatenate([share * candidates for share in (1.0, 0.9, 0.8, 0.65, 0.5)])
    candidates[:, 0] = 1.0
    weight = 1.0 / (np.square(noise) + INERTIA_DOUBT)
    distance = (weight * np.square(candidates[:, at, None] - found)).sum(axis=1)
    nearest = candidates[distance.argmin(axis=0)]
    trust = 1.0 / (1.0 + np.square(noise).min(axis=0) / 0.05)
    mixed: NDArray[np.float64] = trust[:, None] * nearest + (1.0 - trust[:, None]) * usual
    return mixed
