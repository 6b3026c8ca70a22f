"""Areas of many resamplings of the tested patients at once, the same ones for every classifier.

Two classifiers tested on the same patients are compared on the same resamplings: what makes both of them better or
worse then cancels out of their difference.

Legend: N tested patients, R resamplings of them and, as the first row, the patients as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.ranking import BOOTSTRAPS, areas_by_step

__all__ = ["areas", "resamplings"]


def resamplings(positive: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each patient is drawn [R, N]: once each, then bootstraps of positives and negatives apart.

    Args:
        positive: bool [N], at least one of each.
        rng: source of the resamplings.
    """
    times = np.ones((BOOTSTRAPS + 1, len(positive)))
    for kind in (True, False):
        rows = np.flatnonzero(positive == kind)
        times[1:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=BOOTSTRAPS)
    return times


def areas(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], times: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROC and average precision of ``scores`` in each resampling [R] and [R]; equal scores are one threshold.

    Args:
        positive: bool [N].
        scores: higher means more likely positive [N].
        times: of :func:`resamplings` [R, N].
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    hits, misses = (
        np.add.reduceat(times[:, order] * (positive[order] == kind), starts, axis=1) for kind in (True, False)
    )
    return areas_by_step(hits, misses)
