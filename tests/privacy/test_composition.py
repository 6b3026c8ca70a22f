"""A hospital's years: three models, five plans, 400 rounds on one data set, against a composition written here anew."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from numpy.typing import NDArray
from scipy.special import ndtr

from synclave_shared.model_spec import ClassifierSpec, CopulaSpec, ModelSpec
from synclave_shared.plan import Federation, Marginals, Privacy, all_mechanisms
from synclave_shared.privacy.accountant import distinct, epsilon
from synclave_shared.privacy.cross_check import cross_check
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

Mechanisms = list[PoissonGaussian | GaussianSum]

RANGE = 16.0
"""Losses up to this are represented; what lies beyond has less than 1e-12 of probability in these compositions."""


def plan(noise: str, rate: str, rounds: int, steps: int, marginals: str | None = None) -> Mechanisms:
    privacy = Privacy(
        noise_multiplier=Decimal(noise),
        selection_rate=Decimal(rate),
        marginals=None if marginals is None else Marginals(noise_multiplier=Decimal(marginals)),
    )
    return all_mechanisms(privacy, Federation(rounds=rounds, steps_per_round=steps))


def one_sum(noise: str, marginals: str | None = None) -> Mechanisms:
    given = None if marginals is None else Marginals(noise_multiplier=Decimal(marginals))
    return all_mechanisms(Privacy(noise_multiplier=Decimal(noise), marginals=given), Federation())


PLANS: dict[str, tuple[type, Mechanisms]] = {
    "denoiser": (ModelSpec, plan("1.2", "0.01", 150, 5, marginals="9")),
    "denoiser, larger steps": (ModelSpec, plan("3.5", "0.05", 120, 4)),
    "copula": (CopulaSpec, one_sum("12", marginals="15")),
    "classifier": (ClassifierSpec, plan("0.9", "0.004", 80, 8)),
    "classifier again": (ClassifierSpec, plan("2.1", "0.02", 50, 10)),
}
YEARS = [mechanism for _, mechanisms in PLANS.values() for mechanism in mechanisms]


def composed(mechanisms: Mechanisms, delta: float, grid: float) -> float:
    """Epsilon by convolving privacy losses, rounded to the nearest point of a grid, with numpy's FFT alone.

    Of a step on a selection with rate q, P = (1 - q) N(0, s^2) + q N(1, s^2) and Q = N(0, s^2); the loss
    log(dP/dQ) = log(1 - q + q exp((2x - 1) / (2 s^2))) rises with x, so its law is that of x at the borders of cells.
    Removing a patient is this loss under P; adding one is its negative under Q. The larger epsilon counts.
    """
    points = 2 * round(RANGE / grid)
    borders = (np.arange(points + 1) - points // 2 - 0.5) * grid
    worst = 0.0
    for removed in (True, False):
        transform = np.ones(points // 2 + 1, np.complex128)
        for mechanism, times in distinct(mechanisms):
            noise = float(mechanism.noise_multiplier)
            rate = float(mechanism.selection_rate) if isinstance(mechanism, PoissonGaussian) else 1.0
            masses = _masses(borders, noise, rate, removed)
            transform *= np.fft.rfft(np.fft.ifftshift(masses)) ** times
        total = np.fft.fftshift(np.fft.irfft(transform, points))
        worst = max(worst, _epsilon_of(total, (np.arange(points) - points // 2) * grid, delta))
    return worst


def _masses(borders: NDArray[np.float64], noise: float, rate: float, removed: bool) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where the loss is a border's; below the smallest loss there is nothing.
        odds = (np.exp(borders if removed else -borders) - (1.0 - rate)) / rate
        place = noise**2 * np.log(np.maximum(odds, 0.0)) + 0.5
    below = ndtr(-place / noise)
    if removed:
        below = (1.0 - rate) * ndtr(place / noise) + rate * ndtr((place - 1.0) / noise)
    below[0], below[-1] = 0.0, 1.0
    return np.diff(below)


def _epsilon_of(masses: NDArray[np.float64], losses: NDArray[np.float64], delta: float) -> float:
    def excess(value: float) -> float:
        above = losses > value
        return float(masses[above] @ -np.expm1(value - losses[above])) - delta

    low, high = 0.0, RANGE
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def from_below(mechanisms: Mechanisms, delta: float, grid: float) -> float:
    """A lower bound: losses are moved so that epsilon can only fall."""
    total = None
    for mechanism, times in distinct(mechanisms):
        rate = float(mechanism.selection_rate) if isinstance(mechanism, PoissonGaussian) else 1.0
        step = privacy_loss_distribution.from_gaussian_mechanism(
            float(mechanism.noise_multiplier),
            pessimistic_estimate=False,
            value_discretization_interval=grid,
            sampling_prob=rate,
            use_connect_dots=False,
        )
        added = step.self_compose(times)
        total = added if total is None else total.compose(added)
    assert total is not None
    return float(total.get_epsilon_for_delta(delta))


def test_these_are_three_models_five_plans_and_400_rounds() -> None:
    rounds = [mechanism for mechanism in YEARS if isinstance(mechanism, PoissonGaussian)]
    # The copula's two sums are no training rounds, and the first plan's marginals are a round 0.
    assert len({kind for kind, _ in PLANS.values()}) == 3
    assert (len(PLANS), len(YEARS), len(rounds)) == (5, 403, 400)


@pytest.mark.parametrize("delta", [1e-5, 1e-7])
def test_epsilon_is_that_of_a_composition_written_anew(delta: float) -> None:
    assert epsilon(YEARS, delta) == pytest.approx(composed(YEARS, delta, 2e-4), rel=0.01)


def test_epsilon_is_never_below_the_exact_value() -> None:
    stated = epsilon(YEARS, 1e-5)
    # Every loss rounded down, to a grid twenty times finer: at most the exact value, and hardly less.
    below = from_below(YEARS, 1e-5, 5e-5)
    assert 0.95 * stated <= below <= stated


def test_it_is_that_at_every_plans_end() -> None:
    end = 0
    for _, mechanisms in PLANS.values():
        end += len(mechanisms)
        assert epsilon(YEARS[:end], 1e-5) == pytest.approx(composed(YEARS[:end], 1e-5, 5e-4), rel=0.01)


def test_accountants_agree_on_it_and_the_one_that_would_take_long_is_not_said_to() -> None:
    found = cross_check(YEARS, 1e-5)
    assert found.disagreements == ()
    assert found.prv is None
    assert any("PRV" in each for each in found.not_checked)
    assert found.pld is not None
    assert found.pld < found.rdp


def test_the_composition_written_here_meets_the_closed_form() -> None:
    single = [GaussianSum(noise_multiplier=Decimal(2), clip_norm=Decimal(1))]
    value = composed(single, 1e-5, 1e-4)
    # delta of a Gaussian release at an epsilon (Balle and Wang 2018, theorem 8).
    exact = ndtr(0.25 - 2 * value) - math.exp(value) * ndtr(-0.25 - 2 * value)
    assert exact == pytest.approx(1e-5, rel=1e-3)
