"""The Gaussian process of a patient's scores and latent gaps, taken apart into blocks that can be computed with.

Over the steps of a stay it is written in cosines. To each belongs a covariance of the quantities: of the first, which
does not change over the stay, the relations' covariances of stays' means, of the others those within steps; how much of
each quantity is in a cosine says its inertia.

Shapes: ``n`` steps of a stay, ``T`` steps of the grid, ``C`` channels, ``H`` = 2C quantities.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from synclave_shared.models.series.anchor import SeriesAnchor

__all__ = ["cosines", "covariances", "expectations"]

LEAST_POWER: Final = 0.01
"""Of a quantity's variance in a cosine: no combination of steps is held to be known exactly."""

LEAST_SHARE: Final = 1e-4
"""Of steps measured, or not: thresholds of latent gaps end at 3.7 standard deviations."""


def cosines(length: int) -> NDArray[np.float64]:
    """Orthonormal cosines over the steps of a stay, [n, n]: the last axis numbers them by frequency.

    They all but diagonalise the covariance of a process that forgets (Ahmed, Natarajan and Rao 1974), and white noise
    stays white in them.
    """
    steps = np.arange(length)
    found = np.cos(np.pi * (steps[:, None] + 0.5) * steps / length) * math.sqrt(2.0 / length)
    found[:, 0] /= math.sqrt(2.0)
    return np.asarray(found)


def covariances(anchor: SeriesAnchor, length: int) -> NDArray[np.float64]:
    """Of the quantities in each cosine of a stay of ``length`` steps, [n, H, H]."""
    relations = anchor.relations
    inertia = np.concatenate([anchor.inertia, relations.inertia]).astype(np.float64)
    lag, waves = np.abs(np.subtract.outer(np.arange(length), np.arange(length))), cosines(length)
    power = np.maximum(np.einsum("tk,ctu,uk->kc", waves, inertia[:, lag], waves, optimize=True), LEAST_POWER)
    spread = np.sqrt(length * power / power.sum(axis=0))
    blocks = np.repeat(relations.step[None].astype(np.float64), length, axis=0)
    blocks[0] = relations.stay
    return np.asarray(blocks * spread[:, :, None] * spread[:, None])


def expectations(anchor: SeriesAnchor) -> NDArray[np.float64]:
    """Means of scores, then of latent gaps, under each label value and usual context; [L, T, H]."""
    measured = np.clip(anchor.measured(), LEAST_SHARE, 1.0 - LEAST_SHARE)
    shift = np.broadcast_to(anchor.shift[:, None], measured.shape)
    return np.concatenate([shift, ndtri(measured)], axis=2)
