"""AUROC and AUPRC with bootstrap intervals, all replicates in one pass over the sorted scores.

Legend: P patients of a class, S steps (score thresholds), R replicates and the patients themselves.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOOTSTRAPS", "areas_by_step", "ranking_quality"]

BOOTSTRAPS: Final = 200
"""Bootstrap replicates: enough for a 95 % percentile interval to two digits."""


def ranking_quality(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], rng: np.random.Generator
) -> tuple[tuple[float, tuple[float, float]], tuple[float, tuple[float, float]]]:
    """AUROC and average precision of ``scores``, each with a 95 % percentile interval over bootstrapped patients.

    Both areas depend only on how many patients of either class lie at each step of the sorted scores; those counts are
    drawn for all replicates at once. Equal scores are one step, and so are neighbouring scores without a positive
    patient between them, which neither area tells apart. Positives and negatives are resampled apart, so that no
    replicate lacks a class.

    Args:
        positive: bool [N], with at least one True and one False.
        scores: float64 [N], higher means more likely positive.
        rng: source of the replicates.

    Returns:
        ``(auroc, interval), (average precision, interval)``.
    """
    order = np.argsort(-scores, kind="stable")
    positive, scores = positive[order], scores[order]
    distinct = np.r_[True, scores[1:] != scores[:-1]]
    with_hit = np.logical_or.reduceat(positive, np.flatnonzero(distinct))
    step_of_score = np.cumsum(np.r_[True, with_hit[1:] | with_hit[:-1]]) - 1
    step = step_of_score[np.cumsum(distinct) - 1]
    hits, misses = (_counts(step[positive == kind], int(step[-1]) + 1, rng) for kind in (True, False))
    auroc, precision = areas_by_step(hits, misses)

    def summary(values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
        low, high = np.percentile(values[1:], (2.5, 97.5))
        return float(values[0]), (float(low), float(high))

    return summary(auroc), summary(precision)


def areas_by_step(
    hits: NDArray[np.float64], misses: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROC and average precision, [R] and [R]; the patients of a step are one threshold.

    Args:
        hits: positive patients at each step, highest scores first, [R, S].
        misses: negative ones, [R, S].
    """
    hits_so_far, misses_so_far = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    all_hits, all_misses = hits_so_far[:, -1], misses_so_far[:, -1]
    # A miss beats every positive scored above it and half of those scored equal (Mann-Whitney).
    auroc = (misses * (hits_so_far - hits / 2)).sum(axis=1) / (all_hits * all_misses)
    precision = (hits * hits_so_far / np.maximum(hits_so_far + misses_so_far, 1)).sum(axis=1) / all_hits
    return auroc, precision


def _counts(steps: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Patients at each of ``count`` steps [R, S], as they are (row 0) and resampled, from the ``steps`` of each [P]."""
    picks = steps[rng.integers(len(steps), size=(BOOTSTRAPS, len(steps)), dtype=np.int32)]
    rows = np.vstack([steps, picks]) + count * np.arange(BOOTSTRAPS + 1)[:, None]
    return np.bincount(rows.ravel(), minlength=(BOOTSTRAPS + 1) * count).reshape(-1, count).astype(np.float64)
