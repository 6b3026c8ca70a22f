"""AUROC and AUPRC with bootstrap intervals, all replicates in one pass over the sorted scores."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOOTSTRAPS", "ranking_quality"]

BOOTSTRAPS: Final = 200
"""Bootstrap replicates: enough for a 95 % percentile interval to two digits."""


def ranking_quality(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], rng: np.random.Generator
) -> tuple[tuple[float, tuple[float, float]], tuple[float, tuple[float, float]]]:
    """AUROC and average precision of ``scores``, each with a 95 % percentile interval over bootstrapped patients.

    A replicate gives each patient an integer weight; with scores sorted once, both areas of all replicates are
    cumulative sums. Equal scores are one threshold. Positives and negatives are resampled apart, so that no replicate
    lacks a class.

    Args:
        positive: bool [N], with at least one True and one False.
        scores: float64 [N], higher means more likely positive.
        rng: source of the replicates.

    Returns:
        ``(auroc, interval), (average precision, interval)``.
    """
    order = np.argsort(-scores, kind="stable")
    positive, scores = positive[order], scores[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    weights = np.zeros((BOOTSTRAPS + 1, len(scores)))
    weights[0] = 1.0
    for kind in (True, False):
        rows = np.flatnonzero(positive == kind)
        weights[1:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=BOOTSTRAPS)
    hits = np.add.reduceat(weights * positive, starts, axis=1)
    misses = np.add.reduceat(weights * ~positive, starts, axis=1)
    hits_so_far, misses_so_far = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    all_hits, all_misses = hits_so_far[:, -1], misses_so_far[:, -1]
    # A miss beats every positive scored above it and half of those scored equal (Mann-Whitney).
    auroc = (misses * (hits_so_far - hits / 2)).sum(axis=1) / (all_hits * all_misses)
    named = np.maximum(hits_so_far + misses_so_far, 1)
    precision = (hits * hits_so_far / named).sum(axis=1) / all_hits

    def summary(values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
        low, high = np.percentile(values[1:], (2.5, 97.5))
        return float(values[0]), (float(low), float(high))

    return summary(auroc), summary(precision)
