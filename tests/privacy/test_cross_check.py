"""Three accountants: they agree on what is right, each contradicts what is wrong, and silence is no agreement."""

from __future__ import annotations

import math
import sys
from decimal import Decimal

import pytest

from synclave_shared.privacy import accountant
from synclave_shared.privacy import cross_check as module
from synclave_shared.privacy.accountant import Bounds, bounds, epsilon, epsilon_rdp, epsilon_replace_one
from synclave_shared.privacy.cross_check import cross_check, tolerance
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

DELTA = 1e-5


def steps(noise: str, selection: str, count: int) -> PoissonGaussian:
    return PoissonGaussian(
        noise_multiplier=Decimal(noise), clip_norm=Decimal(1), selection_rate=Decimal(selection), steps=count
    )


def release(noise: str) -> GaussianSum:
    return GaussianSum(noise_multiplier=Decimal(noise), clip_norm=Decimal(5))


SPENDS = [
    [steps("1", "0.01", 1000)],
    [steps("0.8", "0.02", 100), release("8"), steps("1.1", "0.03", 300)],
    [steps("50", "0.001", 20_000)],
    [steps("1", "0.0002", 20_000)],
    [steps("7", "0.01", 20_000)],
    [steps("1", "0.0001", 10)],
    [release("0.4")],
    [release("1000")],
    [steps("2", "1", 8)],
]


@pytest.mark.parametrize("mechanisms", SPENDS)
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
def test_they_agree(mechanisms: list[PoissonGaussian | GaussianSum], delta: float) -> None:
    found = cross_check(mechanisms, delta)
    assert (found.disagreements, found.not_checked) == ((), ())
    assert found.pld == pytest.approx(epsilon(mechanisms, delta), abs=found.tolerance + found.rounding)
    assert found.prv is not None


@pytest.mark.parametrize("wrong", [0.97, 1.03])
def test_a_value_that_is_off_by_three_percent_is_contradicted(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def bounds(mechanisms: list[PoissonGaussian | GaussianSum], delta: float) -> Bounds:
        right = accountant.bounds(mechanisms, delta)
        return Bounds(by_distribution=wrong * right.by_distribution, by_divergence=right.by_divergence)

    monkeypatch.setattr(module, "bounds", bounds)
    found = cross_check(SPENDS[0], DELTA)
    assert len(found.disagreements) == 1
    assert "PRV" in found.disagreements[0]


def test_a_value_above_the_looser_bound_is_contradicted_without_opacus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    accountant._by_opacus.cache_clear()
    monkeypatch.setattr(module, "bounds", lambda mechanisms, delta: Bounds(by_distribution=2.3, by_divergence=2.1))
    found = cross_check(SPENDS[0], DELTA)
    accountant._by_opacus.cache_clear()
    assert ["RDP" in each for each in found.disagreements] == [True]
    assert found.prv is None
    assert "Opacus is not installed" in found.not_checked[0]


@pytest.mark.parametrize(
    ("mechanisms", "why"),
    [
        ([steps("0.05", "0.5", 10)], "so little noise"),
        ([steps("100", "0.01", 1_000_000)], "more than 20000 steps"),
        ([steps("0.5", "0.1", 200)], "above 20"),
        ([release(str(noise)) for noise in range(100, 140)], "more than 8 different mechanisms"),
        ([release("8"), release("9"), steps("1", "0.0002", 10_000)], "different mechanisms of so many steps"),
        ([release(str(noise)) for noise in range(100, 165)], "more than 64 different mechanisms"),
        ([steps("1", "0.0000001", 10)], "selection rate"),
    ],
)
def test_what_is_not_compared_is_named_and_costs_no_time(
    mechanisms: list[PoissonGaussian | GaussianSum], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> float:
        raise AssertionError("Opacus was asked")

    monkeypatch.setattr(module, "epsilon_prv", asked)
    found = cross_check(mechanisms, DELTA)
    assert found.prv is None
    assert (found.disagreements, len(found.not_checked)) == ((), 1)
    assert why in found.not_checked[0]
    # What was computed all the same is what the ledger states.
    by = bounds(mechanisms, DELTA)
    assert found.rdp == by.by_divergence == pytest.approx(epsilon_rdp(mechanisms, DELTA), rel=1e-9)
    assert found.pld == (by.by_distribution if math.isfinite(by.by_distribution) else None)
    assert (found.pld is None) == found.not_checked[0].startswith("PLD: none")


@pytest.mark.parametrize(
    "mechanisms",
    [
        [release(str(noise)) for noise in range(100, 108)],
        [steps("1", "0.000001", 10)],
        [release("8"), steps("1", "0.0002", 5_623)],
    ],
)
def test_what_is_just_within_the_limits_is_compared(
    mechanisms: list[PoissonGaussian | GaussianSum], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def another(given: object, delta: float) -> float:
        asked.append((given, delta))
        return epsilon(mechanisms, DELTA) + 5.0

    monkeypatch.setattr(module, "epsilon_prv", another)
    found = cross_check(mechanisms, DELTA)
    assert asked == [(mechanisms, DELTA)]
    assert found.not_checked == ()
    assert ["PRV" in each for each in found.disagreements] == [True]


def test_nothing_spent_is_nothing_to_compare() -> None:
    found = cross_check([], DELTA)
    assert (found.pld, found.rdp, found.prv, found.disagreements, found.not_checked) == (0.0, 0.0, None, (), ())
    assert tolerance(0.0) == 0.005


def test_the_other_adjacency_costs_more_than_one_removal_and_one_addition() -> None:
    mechanisms = [steps("1", "0.01", 1000)]
    replaced = epsilon_replace_one(mechanisms, DELTA)
    assert epsilon(mechanisms, DELTA) == pytest.approx(1.83, abs=0.005)
    assert replaced == pytest.approx(2.84, abs=0.01)
    # Of a sum it is exactly a contribution twice as long.
    assert epsilon_replace_one([release("8")], DELTA) == pytest.approx(epsilon([release("4")], DELTA), rel=0.002)
    assert epsilon_replace_one([release("8")], DELTA) > 1.3 * epsilon([release("8"), release("8")], DELTA)
    assert epsilon_replace_one([], DELTA) == 0.0
    assert epsilon_replace_one([steps("0.05", "0.5", 10)], DELTA) == float("inf")
