"""Do predicted probabilities mean what they say? Brier score and expected calibration error."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.measure import Reading, defined
from synclave_server.evaluation.ranking import BOOTSTRAPS

__all__ = ["CALIBRATION_BINS", "calibration"]

CALIBRATION_BINS: Final = 10
"""Groups of equally many patients, by predicted probability, in the expected calibration error."""


def calibration(
    positive: NDArray[np.bool_], probability: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Reading, Reading]:
    """Brier score (Brier 1950) with its bootstrap interval, and expected calibration error (Naeini et al. 2015).

    The error's groups hold equally many patients, in place of equally long ranges of probability: of a rare outcome
    nearly all patients would otherwise be in the first one. It has no interval: resampling only adds to it.

    Args:
        positive: bool [N], at least one patient.
        probability: of being positive, float64 [N].
        rng: resamples the patients.
    """
    order = np.argsort(probability, kind="stable")
    gap = probability[order] - positive[order]
    count = len(gap)
    starts = np.unique(np.arange(CALIBRATION_BINS) * count // CALIBRATION_BINS)
    error = np.abs(np.add.reduceat(gap, starts)).sum() / count
    picks = rng.multinomial(count, np.full(count, 1 / count), size=BOOTSTRAPS)
    low, high = np.percentile(picks @ gap**2 / count, (2.5, 97.5))
    return defined(float((gap**2).mean()), (float(low), float(high))), defined(float(error))
