"""The statistics of a one-run audit against what is known in closed form, and by simulation of a tight mechanism."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synclave_shared.audit.one_run import best_lower_bound, guess, ideal_lower_bound, lower_bound, probability_bound


def binomial_tail(trials: int, chance: float, at_least: int) -> float:
    return sum(
        math.comb(trials, count) * chance**count * (1 - chance) ** (trials - count)
        for count in range(at_least, trials + 1)
    )


@pytest.mark.parametrize("canaries", [10, 100, 1_000, 10_000])
def test_all_guesses_right_prove_the_known_bound(canaries: int) -> None:
    """Without delta: p^m = 1 - confidence, p = e^epsilon / (1 + e^epsilon)."""
    chance = 0.05 ** (1 / canaries)
    assert lower_bound(canaries, canaries, canaries, 0.0, 0.95) == pytest.approx(
        math.log(chance / (1 - chance)), abs=2e-4
    )


@pytest.mark.parametrize(("guesses", "correct", "epsilon"), [(20, 15, 0.3), (50, 31, 1.0), (7, 7, 2.0), (9, 0, 0.0)])
def test_without_delta_the_bound_is_the_binomial_tail(guesses: int, correct: int, epsilon: float) -> None:
    expected = binomial_tail(guesses, 1 / (1 + math.exp(-epsilon)), correct)
    assert probability_bound(60, guesses, correct, epsilon, 0.0) == pytest.approx(expected, rel=1e-9)


def test_delta_adds_what_the_theorem_says() -> None:
    guesses, correct, epsilon, delta = 12, 9, 0.5, 1e-3
    chance = 1 / (1 + math.exp(-epsilon))
    here = binomial_tail(guesses, chance, correct)
    worst = max((binomial_tail(guesses, chance, correct - fewer) - here) / fewer for fewer in range(1, correct + 1))
    found = probability_bound(40, guesses, correct, epsilon, delta)
    assert found == pytest.approx(here + 2 * 40 * delta * worst, rel=1e-9)


def test_guesses_at_chance_prove_nothing() -> None:
    assert lower_bound(1_000, 1_000, 520, 1e-5, 0.95) == 0.0
    assert lower_bound(100, 0, 0, 1e-5, 0.95) == 0.0


def test_a_larger_delta_proves_less() -> None:
    bounds = [lower_bound(1_000, 500, 480, delta, 0.95) for delta in (0.0, 1e-6, 1e-4, 1e-2)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1]


def test_a_tight_mechanism_is_refuted_no_more_often_than_stated_and_its_bound_comes_near() -> None:
    """Randomised response at epsilon 1 on each canary: 400 audits at confidence 90 %."""
    rng = np.random.default_rng(0)
    bounds = []
    for _ in range(400):
        included = rng.random(500) < 0.5
        told = included ^ (rng.random(500) < 1 / (1 + math.e))
        # Each half in random order: a share of the guesses is not of those that stand out.
        bounds.append(guess(told + 0.1 * rng.random(500), included, 0.0, 0.9).lower_bound)
    assert np.mean(np.array(bounds) > 1.0) <= 0.1
    assert 0.6 < np.median(bounds) < 1.0


def test_canaries_are_needed_for_a_bound() -> None:
    assert best_lower_bound(20, 1e-5, 0.95) < best_lower_bound(2_000, 1e-5, 0.95) < 10
    assert ideal_lower_bound(300, 0.0, 1e-5, 0.95) < 0.05
    assert ideal_lower_bound(300, 4.0, 1e-5, 0.95) > 2.0


def test_half_the_noise_stays_unseen_under_subsampling_even_by_ten_thousand_canaries() -> None:
    """Why the conformance audit is needed: 30 steps at q = .01 and noise multiplier 1; epsilon .51 is claimed."""
    assert ideal_lower_bound(10_000, 2 * 0.01 * math.sqrt(30) / 1.0, 1e-5, 0.95) < 0.2


@pytest.mark.parametrize(
    "numbers", [(5, 6, 3, 1.0, 0.0), (5, 4, 5, 1.0, 0.0), (5, 5, -1, 1.0, 0.0), (5, 5, 5, -1.0, 0.0), (5, 5, 5, 1, 1.0)]
)
def test_numbers_that_do_not_fit_together_are_refused(numbers: tuple[int, int, int, float, float]) -> None:
    with pytest.raises(ValueError, match="correct <= guesses"):
        probability_bound(*numbers)
    with pytest.raises(ValueError, match="confidence"):
        lower_bound(5, 5, 5, 0.0, 1.0)
