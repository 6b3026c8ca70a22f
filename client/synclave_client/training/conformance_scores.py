"""Counts and noise as standard normal scores: what a mechanism did becomes numbers whose law is known exactly.

A count of coins is turned into a normal number by its randomised distribution function (Brockwell 2007, "Universal
residuals"): with V uniform, ``F(k - 1) + V (F(k) - F(k - 1))`` is uniform if k has the distribution function F, however
coarse the counts are. So no check needs many patients, or many steps, to be exact.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["FURTHEST", "cell_counts", "normal_scores"]

FURTHEST: Final = 12.0
"""Largest score, in standard deviations: a count that is further out has a probability below 2e-33."""

FEWEST_COUNTS: Final = 60
"""Counts on either side of the mean whose probability is computed, however small the standard deviation."""


@lru_cache(maxsize=256)
def _binomial(trials: int, rate: float) -> tuple[int, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """First count, then the probabilities of fewer, of just as many, and of more, for each count from there on.

    The sums run from the far ends, so that tails keep their relative precision.
    """
    mean = trials * rate
    reach = math.ceil(FURTHEST * math.sqrt(mean * (1.0 - rate))) + FEWEST_COUNTS
    first, last = max(0, math.floor(mean) - reach), min(trials, math.ceil(mean) + reach)
    counts = torch.arange(first, last + 1, dtype=torch.float64)
    logs = math.lgamma(trials + 1) - torch.lgamma(counts + 1) - torch.lgamma(trials - counts + 1)
    logs += torch.xlogy(counts, torch.tensor(rate, dtype=torch.float64))
    logs += torch.xlogy(trials - counts, torch.tensor(1.0 - rate, dtype=torch.float64))
    chances = torch.softmax(logs, dim=0).numpy()
    fewer = np.concatenate([[0.0], np.cumsum(chances)[:-1]])
    more = np.concatenate([np.cumsum(chances[::-1])[:-1][::-1], [0.0]])
    return first, fewer, chances, more


def normal_scores(
    counts: NDArray[np.int64], trials: int, rate: float, coins: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores that are independent standard normal numbers if the counts are independent Binomial(trials, rate).

    Args:
        counts: [n].
        trials: coins behind each count.
        rate: probability of each.
        coins: [n], uniform numbers of any kind; they need not be secret.

    Returns:
        [n], within :data:`FURTHEST` of 0.
    """
    first, fewer, chances, more = _binomial(trials, rate)
    places = np.clip(counts - first, 0, fewer.size - 1)
    below = fewer[places] + coins * chances[places]
    above = more[places] + (1.0 - coins) * chances[places]
    smaller = torch.from_numpy(np.minimum(below, above))
    distance = torch.special.ndtri(smaller).clamp(-FURTHEST, 0.0).numpy()
    scores = np.where(below < above, distance, -distance)
    scores = np.where(counts < first, -FURTHEST, scores)
    return np.where(counts >= first + fewer.size, FURTHEST, scores)


def cell_counts(values: NDArray[np.float64], cells: int) -> NDArray[np.int64]:
    """How many numbers [n] fall into each of ``cells`` intervals that are equally probable under a standard normal."""
    shares = np.nan_to_num(torch.special.ndtr(torch.from_numpy(values)).numpy())
    return np.bincount(np.minimum((shares * cells).astype(np.int64), cells - 1), minlength=cells)
