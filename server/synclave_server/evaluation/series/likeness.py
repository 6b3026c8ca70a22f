"""What a cohort of courses looks like, in arrays: distributions, gaps, and how values hang together.

Legend: N patients, T steps, C channels, L lags. Definitions with formulas stand in ``docs/evaluation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from synclave_server.evaluation.series.courses import present
from synclave_shared.data.series.filling import filled

__all__ = [
    "LAGS",
    "MINIMUM_PAIRS",
    "MINIMUM_PATIENTS",
    "autocorrelations",
    "channel_correlations",
    "lags_of",
    "observed_shares",
    "observed_values",
    "value_distances",
]

LAGS: Final = (1, 2, 3, 6, 12, 24, 48)
"""Steps between two values whose correlation is compared, as far as the grid goes."""
MINIMUM_PATIENTS: Final = 20
"""A channel, or a step, is compared if so many reference patients have it: below, most is chance."""
MINIMUM_PAIRS: Final = 100
"""Fewest pairs of observations for a coefficient of autocorrelation."""


def lags_of(steps: int) -> list[int]:
    """The lags that fit a grid of ``steps``."""
    return [lag for lag in LAGS if lag < steps]


def observed_values(features: NDArray[Any], channel: int) -> NDArray[np.float32]:
    """All observed values of a channel, from -1 to 1, in one row."""
    values: NDArray[np.float32] = features["values"][:, :, channel][features["observed"][:, :, channel] == 1]
    return values


def value_distances(
    reference: NDArray[Any], contender: NDArray[Any], channels: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each channel: Wasserstein distance, difference of means, and quotient of standard deviations minus 1, in size.

    The first two in standard deviations of the reference. A channel that nobody of the contender has counts as if all
    its values were the reference's mean.

    Args:
        reference: records whose observed values of every channel vary.
        contender: records.
        channels: positions of the channels [K].

    Returns:
        Three arrays [K].
    """
    results = np.zeros((3, len(channels)))
    for place, channel in enumerate(channels):
        truth = observed_values(reference, channel).astype(np.float64)
        found = observed_values(contender, channel).astype(np.float64)
        found = found if len(found) else np.array([truth.mean()])
        scale = truth.std()
        results[:, place] = (
            wasserstein_distance(truth, found) / scale,
            abs(found.mean() - truth.mean()) / scale,
            abs(found.std() / scale - 1),
        )
    return results[0], results[1], results[2]


def observed_shares(features: NDArray[Any]) -> NDArray[np.float64]:
    """Share of the patients still there at a step who have an observation [T, C]; 0 where nobody is."""
    there = np.maximum(present(features).sum(axis=0), 1)
    shares: NDArray[np.float64] = features["observed"].sum(axis=0, dtype=np.float64) / there[:, None]
    return shares


def autocorrelations(features: NDArray[Any], lags: Sequence[int]) -> NDArray[np.float64]:
    """Pearson correlation of a channel's values ``lag`` steps apart, over all pairs observed in one patient [L, C].

    NaN with fewer than :data:`MINIMUM_PAIRS` pairs, or without variation.
    """
    seen = features["observed"].astype(np.float64)
    values = _centred(features["values"], seen)
    result = np.full((len(lags), values.shape[2]), np.nan)
    for place, lag in enumerate(lags):
        both = seen[:, :-lag] * seen[:, lag:]
        one, other = values[:, :-lag] * both, values[:, lag:] * both
        count = both.sum(axis=(0, 1))
        sums = [part.sum(axis=(0, 1)) for part in (one, other, one * other, one**2, other**2)]
        result[place] = _pearson(np.where(count >= MINIMUM_PAIRS, count, np.nan), *sums)
    return result


def channel_correlations(features: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pearson correlations of the channels at the same step, values carried forward within the stay.

    Each pair of channels is taken over the patients in whom both were observed at some time.

    Returns:
        Coefficients [C, C], NaN without variation; and the number of patients behind each [C, C].
    """
    ever = features["observed"].max(axis=1) == 1
    seen = (present(features)[:, :, None] & ever[:, None]).astype(np.float64)
    values = _centred(filled(features["values"], features["observed"]), seen) * seen
    rows, weight = values.reshape(-1, values.shape[2]), seen.reshape(-1, values.shape[2])
    count = weight.T @ weight
    first, square = rows.T @ weight, (rows**2).T @ weight
    has = ever.astype(np.int64)
    patients = has.T @ has
    count = np.where(count > 0, count, np.nan)
    return _pearson(count, first, first.T, rows.T @ rows, square, square.T), patients


def _centred(values: NDArray[np.float32], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values minus their channel's mean, so that sums of squares keep their digits."""
    mean = (values * weight).sum(axis=(0, 1)) / np.maximum(weight.sum(axis=(0, 1)), 1)
    centred: NDArray[np.float64] = values - mean
    return centred


def _pearson(
    count: NDArray[np.float64],
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    product: NDArray[np.float64],
    one_square: NDArray[np.float64],
    other_square: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Correlation from sums; NaN where there is no variation."""
    covariance = product / count - one * other / count**2
    variances = (one_square / count - (one / count) ** 2) * (other_square / count - (other / count) ** 2)
    result: NDArray[np.float64] = covariance / np.sqrt(np.where(variances > 1e-16, variances, np.nan))
    return result
