from __future__ import annotations

import math
from decimal import Decimal

import pytest
from pydantic import ValidationError

from synclave_shared.privacy import budget as budget_module
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.budget import Budget, Excess, check_budget, first_excess, within
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

DELTA = Decimal("0.00001")
ROUND = PoissonGaussian(noise_multiplier=Decimal(1), clip_norm=Decimal(1), selection_rate=Decimal("0.02"), steps=20)
MARGINALS = GaussianSum(noise_multiplier=Decimal(10), clip_norm=Decimal(5))


def allowing(value: float, margin: float = 0.001) -> Budget:
    return Budget(epsilon=Decimal(f"{value + margin:.4f}"), delta=DELTA)


def test_before_and_after_are_composed_and_not_added() -> None:
    spent, planned = [MARGINALS, *[ROUND] * 10], [ROUND] * 10
    verdict = check_budget(allowing(100), spent, planned)
    assert verdict.allowed
    assert verdict.spent_epsilon == epsilon(spent, 1e-5)
    assert verdict.after_epsilon == epsilon([*spent, *planned], 1e-5)
    assert verdict.after_epsilon < verdict.spent_epsilon + epsilon(planned, 1e-5)


def test_the_second_plan_is_refused_though_each_alone_would_fit() -> None:
    plan = [MARGINALS, *[ROUND] * 10]
    budget = allowing(epsilon(plan, 1e-5))
    assert check_budget(budget, [], plan).allowed
    assert not check_budget(budget, plan, plan).allowed
    # Nor in small pieces: what counts is the sum of everything before.
    assert not check_budget(budget, plan, [ROUND]).allowed
    assert check_budget(budget, plan[:-1], [ROUND]).allowed


def test_the_budget_is_the_last_value_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(epsilon=Decimal("0.1"), delta=DELTA)
    for value, allowed in ((0.1, False), (math.nextafter(0.1, 0), True), (math.inf, False), (math.nan, False)):
        # The double nearest to 0.1 is above 0.1: the comparison is exact.
        monkeypatch.setattr(budget_module, "epsilon", lambda mechanisms, delta, value=value: value)
        assert within(value, budget) is allowed
        assert check_budget(budget, [], [ROUND]).allowed is allowed


def test_a_budget_that_is_exceeded_already_allows_nothing_more() -> None:
    spent = [ROUND] * 10
    budget = allowing(epsilon(spent, 1e-5), margin=-0.1)
    verdict = check_budget(budget, spent, [])
    assert not verdict.allowed
    assert verdict.spent_epsilon == verdict.after_epsilon


def one_by_one(history: list[PoissonGaussian | GaussianSum], budgets: list[tuple[int, Budget]]) -> Excess | None:
    """The slow truth: compose after each mechanism, and ask the budget of that moment."""
    for place in range(len(history)):
        holds = [budget for before, budget in budgets if before <= place] or [budget for _, budget in budgets[:1]]
        if holds:
            total = epsilon(history[: place + 1], float(holds[-1].delta))
            if not within(total, holds[-1]):
                return Excess(place, total, holds[-1])
    return None


@pytest.mark.parametrize(
    "budgets",
    [
        [],
        [(0, "100")],
        [(0, "0.9")],
        [(0, "0.9"), (2, "1.5")],
        [(0, "0.9"), (6, "1.5")],
        [(3, "0.9"), (3, "100")],
        [(4, "0.5"), (5, "100")],
        [(0, "100"), (8, "0.5")],
        [(0, "100"), (7, "0.5")],
    ],
)
def test_the_first_that_was_beyond_the_budget_of_its_time(budgets: list[tuple[int, str]]) -> None:
    history: list[PoissonGaussian | GaussianSum] = [MARGINALS, *[ROUND] * 4, MARGINALS, *[ROUND] * 2]
    stated = [(before, Budget(epsilon=Decimal(value), delta=DELTA)) for before, value in budgets]
    found, expected = first_excess(history, stated), one_by_one(history, stated)
    assert (found is None) == (expected is None)
    if found and expected:
        assert (found.place, found.budget) == (expected.place, expected.budget)
        assert found.epsilon == pytest.approx(expected.epsilon, rel=1e-9)


@pytest.mark.parametrize(
    "fields",
    [
        {"epsilon": "0", "delta": "0.1"},
        {"epsilon": "-1", "delta": "0.1"},
        {"epsilon": "1", "delta": "0"},
        {"epsilon": "1", "delta": "1"},
        {"epsilon": 1.5, "delta": "0.1"},
        {"epsilon": "abc", "delta": "0.1"},
        {"epsilon": "1"},
        {"epsilon": "1", "delta": "0.1", "more": 1},
    ],
)
def test_a_budget_is_two_exact_positive_numbers(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Budget.model_validate(fields)
