"""Histograms of a clinical model's predictions, by whether the patient has the outcome: all that a site tells of them.

The bins are public and even in the log-odds of the predicted probability, so that those of a rare outcome do not all
fall into one. Whatever the model and the patient, a patient adds a vector of length 1: the histograms of several
outcomes share it. Areas under curves and calibration need no more than these counts.

Shapes: ``N`` patients, ``L`` label values, ``V`` outcomes, ``B`` bins.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.shares import limits

__all__ = ["BINS", "BORDERS", "MIDDLES", "histogram_size", "outcomes", "patient_weight", "score_histogram"]

BINS: Final = 48
"""A third of a logit each. More would cost noise, which every bin has; with fewer, patients look alike that are not."""

LARGEST_LOGIT: Final = 8.0
"""Probabilities beyond 0.03 % and 99.97 % are counted in the outermost bins."""

BORDERS: Final = np.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, BINS + 1)
"""Of the bins, in log-odds."""

MIDDLES: Final = 1.0 / (1.0 + np.exp(-(BORDERS[1:] + BORDERS[:-1]) / 2))
"""The probability for which each bin stands."""


def outcomes(label_values: int) -> tuple[int, ...]:
    """Positions of the label values that are predicted against the rest: of two the second, of more each."""
    return (1,) if label_values == 2 else tuple(range(label_values))


def histogram_size(label_values: int) -> int:
    """Numbers of a release: two classes and :data:`BINS` for each outcome."""
    return len(outcomes(label_values)) * 2 * BINS


def patient_weight(label_values: int) -> float:
    """What a patient adds to its one cell of each outcome: all together, a vector of length 1."""
    return 1.0 / math.sqrt(len(outcomes(label_values)))


def score_histogram(
    logits: NDArray[np.float64], labels: NDArray[np.int64], shares: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Sum of the patients' contributions.

    Args:
        logits: of the label values, [N, L]; what is no number counts as the smallest, for a patient must not be told by
            an error.
        labels: [N].
        shares: [N], how long each patient's vector is; None: 1.

    Returns:
        [V, 2, B]: of each outcome the patients without it, then those with it, by predicted log-odds.
    """
    values = logits.shape[1]
    known = np.nan_to_num(logits.astype(np.float64), nan=-1e30, posinf=1e30, neginf=-1e30)
    weights = limits(shares, len(labels), patient_weight(values))
    found: NDArray[np.float64] = np.zeros((len(outcomes(values)), 2, BINS))
    for histogram, value in zip(found, outcomes(values), strict=True):
        rest = np.logaddexp.reduce(np.delete(known, value, axis=1), axis=1)
        odds = np.clip(known[:, value] - rest, BORDERS[0], BORDERS[-1])
        bins = np.minimum(np.searchsorted(BORDERS, odds, side="right") - 1, BINS - 1)
        np.add.at(histogram, ((labels == value).astype(np.int64), bins), weights)
    return found
