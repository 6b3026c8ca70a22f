"""What one training with canaries proves about epsilon: a lower bound, and how large it could have been at best.

Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", theorem 5.2. Of m canaries each is put
into the training data by a fair coin; an attacker guesses the coins of ``guesses`` of them from what was released and
is right about ``correct``. If the training is (epsilon, delta)-DP for adding or removing one patient, the number of
right guesses is hardly larger than of coins that fall right with probability ``e^epsilon / (1 + e^epsilon)``::

    P[correct >= v] <= f(v) + 2 m delta max_{i >= 1} (f(v - i) - f(v)) / i,   f(v) = P[Binomial(guesses, p) >= v]

An epsilon for which what was seen has a probability of at most 1 - confidence is refuted, and so is every smaller one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["AttackOutcome", "best_lower_bound", "guess", "ideal_lower_bound", "lower_bound", "probability_bound"]

LARGEST_EPSILON: Final = 30.0
"""Beyond it e^-epsilon is no longer seen beside 1, and no number of canaries comes near."""

PRECISION: Final = 1e-4
"""Of a lower bound; it is rounded down."""

GUESSED_SHARES: Final = (1.0, 0.5, 0.2, 0.1)
"""Of the canaries, about how many a guess is made: those that stand out most. Fixed before anything is seen."""

SIMULATIONS: Final = 21
"""Of which the median is told; odd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackOutcome:
    """What an attack proves.

    Attributes:
        canaries: m.
        guesses, correct: of the share of canaries that gives the highest bound.
        lower_bound: epsilon below which the training cannot be, with the stated confidence.
    """

    canaries: int
    guesses: int
    correct: int
    lower_bound: float


@lru_cache(maxsize=16)
def _log_choices(trials: int) -> NDArray[np.float64]:
    """log(trials over v) for v = 0 to trials."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, trials + 1)))])
    return np.asarray(factorials[-1] - factorials - factorials[::-1])


def _tails(trials: int, chance: float) -> NDArray[np.float64]:
    """P[Binomial(trials, chance) >= v] for v = 0 to trials, summed from the far end; ``chance`` is not 0 or 1."""
    counts = np.arange(trials + 1)
    logs = _log_choices(trials) + counts * math.log(chance) + (trials - counts) * math.log1p(-chance)
    return np.asarray(np.minimum(np.cumsum(np.exp(logs)[::-1])[::-1], 1.0))


def probability_bound(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Largest probability with which an (epsilon, delta)-DP training lets that many guesses, or more, be right.

    Raises:
        ValueError: if not 0 <= correct <= guesses <= canaries, epsilon is negative or delta no probability.
    """
    if not 0 <= correct <= guesses <= canaries or epsilon < 0 or not 0 <= delta < 1:
        raise ValueError("needs 0 <= correct <= guesses <= canaries, epsilon >= 0 and 0 <= delta < 1")
    tails = _tails(guesses, 1.0 / (1.0 + math.exp(-epsilon)))
    here = float(tails[correct])
    earlier = tails[:correct][::-1]
    worst = float(((earlier - here) / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, here + 2.0 * canaries * delta * worst)


def lower_bound(canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """The epsilon that is refuted together with every smaller one; 0 if none is.

    Args:
        canaries: m, each there by a fair coin.
        guesses: of how many a guess was made; fixed before, or chosen without regard to who is right.
        correct: how many were right.
        delta: of the claim.
        confidence: probability with which the bound holds, at least.

    Raises:
        ValueError: if the numbers do not fit together.
    """
    if not 0 < confidence < 1:
        raise ValueError("a confidence lies between 0 and 1")
    doubt = 1.0 - confidence
    below, above = 0.0, LARGEST_EPSILON
    if probability_bound(canaries, guesses, correct, below, delta) > doubt:
        return 0.0
    while above - below > PRECISION / 2:
        middle = (below + above) / 2
        if probability_bound(canaries, guesses, correct, middle, delta) <= doubt:
            below = middle
        else:
            above = middle
    return math.floor(below / PRECISION) * PRECISION


def best_lower_bound(canaries: int, delta: float, confidence: float) -> float:
    """What an attack that is right about every canary would prove: no attack with so many canaries proves more."""
    shares = len(GUESSED_SHARES)
    return lower_bound(canaries, canaries, canaries, delta, 1.0 - (1.0 - confidence) / shares)


def guess(scores: NDArray[np.float64], included: NDArray[np.bool_], delta: float, confidence: float) -> AttackOutcome:
    """Guess from scores: of the highest that they were included, of equally many of the lowest that they were not.

    The bound is the best of several shares of the canaries (:data:`GUESSED_SHARES`), each at a confidence by which all
    hold together.

    Args:
        scores: [m], higher for canaries that seem to have been included.
        included: [m], the coins.
        delta: of the claim.
        confidence: of the bound.
    """
    order = np.argsort(scores, kind="stable")
    each = 1.0 - (1.0 - confidence) / len(GUESSED_SHARES)
    outcomes = []
    for share in GUESSED_SHARES:
        half = int(share * scores.size) // 2
        right = int((~included[order[:half]]).sum() + included[order[scores.size - half :]].sum())
        bound = lower_bound(scores.size, 2 * half, right, delta, each)
        outcomes.append(AttackOutcome(canaries=scores.size, guesses=2 * half, correct=right, lower_bound=bound))
    return max(outcomes, key=lambda outcome: outcome.lower_bound)


def ideal_lower_bound(canaries: int, separation: float, delta: float, confidence: float, seed: int = 0) -> float:
    """What an attack without any other disturbance than the noise would typically prove: the median of simulations.

    Args:
        canaries: m.
        separation: by how many standard deviations of its noise a canary's score grows if it is included. At most
            ``q sqrt(T) / noise multiplier`` for T steps at selection rate q, when the attacker sees every step, knows
            the canary's gradient, and no canary's gradient leans on another's.
        delta: of the claim.
        confidence: of the bound.
        seed: of the simulation.
    """
    rng = np.random.default_rng(seed)
    bounds = []
    for _ in range(SIMULATIONS):
        included = rng.random(canaries) < 0.5
        scores = separation * included + rng.standard_normal(canaries)
        bounds.append(guess(scores, included, delta, confidence).lower_bound)
    return float(np.median(bounds))
