"""A site's privacy budget for one data set, and whether something still fits into it.

A budget bounds the *cumulative composed* spend over every plan that ever touched the data set. Epsilons are never
added up: what was done before and what is planned are composed as one list of mechanisms.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from synclave_shared.canonical import ExactDecimal, FrozenModel
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.mechanism import Delta, GaussianSum, PoissonGaussian
from synclave_shared.privacy.tally import spent as composed

__all__ = ["Budget", "Excess", "Verdict", "check_budget", "first_excess", "within"]


class Budget(FrozenModel):
    """The most that may ever be spent on a data set: (epsilon, delta)-DP per patient."""

    epsilon: Annotated[ExactDecimal, Field(gt=0, le=1_000_000)]
    delta: Delta


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a spend would do to a budget.

    Attributes:
        spent_epsilon: cumulative epsilon so far, at the budget's delta.
        after_epsilon: cumulative epsilon afterwards; infinite if that delta cannot be met at all.
        allowed: whether ``after_epsilon`` is within the budget.
    """

    spent_epsilon: float
    after_epsilon: float
    allowed: bool


def within(value: float, budget: Budget) -> bool:
    """Whether an epsilon is within a budget; compared exactly, and false for infinity and NaN."""
    return Decimal(value).is_finite() and Decimal(value) <= budget.epsilon


def check_budget(
    budget: Budget,
    spent: Sequence[PoissonGaussian | GaussianSum],
    planned: Sequence[PoissonGaussian | GaussianSum],
) -> Verdict:
    """Decide over a spend on the composition of everything before it and itself.

    Args:
        budget: the data set's budget.
        spent: every mechanism reserved on the data set so far, under any plan.
        planned: what is to be added.
    """
    delta = float(budget.delta)
    before = epsilon(spent, delta)
    after = epsilon([*spent, *planned], delta) if planned else before
    return Verdict(spent_epsilon=before, after_epsilon=after, allowed=within(after, budget))


@dataclass(frozen=True, slots=True)
class Excess:
    """The first mechanism of a history that was beyond the budget of its time.

    Attributes:
        place: its place in the history, from 0.
        epsilon: cumulative epsilon of everything up to it, itself included.
        budget: the budget that held.
    """

    place: int
    epsilon: float
    budget: Budget


def first_excess(
    history: Sequence[PoissonGaussian | GaussianSum], budgets: Sequence[tuple[int, Budget]]
) -> Excess | None:
    """Find the first mechanism with which a data set was beyond its budget.

    Args:
        history: everything that was done to the data set, in order.
        budgets: as they were stated, in order, each with the number of mechanisms before it; the first holds for what
            came before it as well.

    Returns:
        None if each mechanism kept to the budget that held when it was done, or if no budget was stated.
    """
    ends = [*(before for before, _ in budgets[1:]), len(history)] if budgets else []
    start = 0
    for (_, budget), end in zip(budgets, ends, strict=True):
        delta = float(budget.delta)

        def beyond(place: int, budget: Budget = budget, delta: float = delta) -> bool:
            return not within(composed(history[: place + 1], delta), budget)

        # Epsilon only grows, so that of the last mechanism under a budget decides over all of them.
        if end > start and beyond(end - 1):
            places = range(start, end)
            place = places[bisect.bisect_left(places, True, key=beyond)]
            return Excess(place, composed(history[: place + 1], delta), budget)
        start = end
    return None
