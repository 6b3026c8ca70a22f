"""What each site spent on each data set: which entries, under which plan, and epsilon after each of them.

Epsilons never add up. Every number here is the epsilon of one *composition*: of all reservations up to a point, of one
plan alone, or of everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from synclave_shared.audit.reading import Reading
from synclave_shared.ledger.replay import Spend
from synclave_shared.privacy.accountant import epsilon, epsilon_over_time, epsilon_rdp, epsilon_replace_one, merge_equal
from synclave_shared.privacy.budget import Budget, within
from synclave_shared.privacy.cross_check import CrossCheck, cross_check
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from synclave_shared.privacy.tally import spent, tallied

__all__ = ["MAX_POINTS", "Account", "PlanSpend", "Point", "accounts", "course"]

MAX_POINTS = 240
"""A longer history is given at this many evenly spaced reservations, the last among them: each costs a composition."""

_Mechanism = PoissonGaussian | GaussianSum


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Cumulative spend after one reservation.

    Attributes:
        entry: the reservation's index in the ledger.
        plan_digest, round: what it was for.
        reservations: how many there are up to here, this one included.
        epsilon: of all of them composed, by privacy loss distributions.
        epsilon_rdp: the same by Rényi divergences.
    """

    entry: int
    plan_digest: str
    round: int
    reservations: int
    epsilon: float
    epsilon_rdp: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpend:
    """What one plan did to a data set.

    Attributes:
        digest, name: of the plan; no name if the ledger proposes none with this digest.
        model: kind of the model that it trains, as the plan says.
        entries: indices of its reservations.
        mechanisms: what was done, neighbours that differ in steps alone written as one.
        epsilon_alone: of this plan's reservations and nothing else. These do not add up over plans.
        epsilon_after: of everything on this data set up to this plan's last reservation.
    """

    digest: str
    name: str | None
    model: str | None
    entries: tuple[int, ...]
    mechanisms: tuple[_Mechanism, ...]
    epsilon_alone: float
    epsilon_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One site's one data set.

    Attributes:
        site, dataset: whose, and the site's name for it.
        delta: of the budget, or of the first reservation if there is no budget.
        budgets: as the site stated them, in order, each with the index of its entry; the last one holds.
        entries: indices of all reservations.
        mechanisms: what each of them reserved.
        epsilon: of all of them composed.
        epsilon_replaced: the same for replacing one patient instead of adding or removing one.
        check: what the three accountants say of it, and whether they agree.
        plans: the same by plan.
        course: the same over time.
    """

    site: str
    dataset: str
    delta: float
    budgets: tuple[tuple[int, Budget], ...]
    entries: tuple[int, ...]
    mechanisms: tuple[_Mechanism, ...]
    epsilon: float
    epsilon_replaced: float
    check: CrossCheck
    plans: tuple[PlanSpend, ...]
    course: tuple[Point, ...]

    @property
    def budget(self) -> float | None:
        """Epsilon of the budget that was stated last."""
        return float(self.budgets[-1][1].epsilon) if self.budgets else None

    @property
    def left(self) -> float | None:
        """Distance from the cumulative epsilon in this ledger to the budget, 0 beyond it; None without a budget.

        The budget spans all ledgers of the data set, so less may be left. Not an epsilon that one could
        still spend: what still fits is a matter of composition.
        """
        return None if self.budget is None else max(0.0, self.budget - self.epsilon)

    @property
    def exceeded(self) -> bool:
        """Whether the budget stated last is exceeded."""
        return bool(self.budgets) and not within(self.epsilon, self.budgets[-1][1])


def accounts(reading: Reading) -> list[Account]:
    """Every site's every data set, in the order of the sites in the ledger."""
    return [_account(reading, site, name) for site in reading.sites() for name in reading.replay.datasets(site)]


def course(mechanisms: Sequence[_Mechanism], delta: float) -> list[tuple[int, float, float]]:
    """Cumulative epsilon along a history, at :data:`MAX_POINTS` places at most.

    Returns:
        (number of mechanisms up to here, epsilon, epsilon by Rényi divergences), the whole history last.
    """
    total = len(mechanisms)
    if not total:
        return []
    count = min(total, MAX_POINTS)
    stops = [math.ceil((place + 1) * total / count) for place in range(count)]
    # Between two places, equal neighbours are one mechanism: a long history takes as long as a short one.
    groups = [merge_equal(mechanisms[first:last]) for first, last in zip([0, *stops[:-1]], stops, strict=True)]
    flat = [mechanism for group in groups for mechanism in group]
    values = epsilon_over_time(flat, delta)
    points, done = [], 0
    for stop, group in zip(stops, groups, strict=True):
        done += len(group)
        points.append((stop, values[done - 1], epsilon_rdp(flat[:done], delta)))
    return points


def _account(reading: Reading, site: str, dataset: str) -> Account:
    spends = reading.replay.spends.get((site, dataset), [])
    budgets = tuple(reading.replay.budgets.get((site, dataset), ()))
    entries = tuple(spend.entry for spend in spends)
    mechanisms = tuple(spend.mechanism for spend in spends)
    delta = float(budgets[-1][1].delta) if budgets else spends[0].delta
    short = tallied(mechanisms)
    return Account(
        site=site,
        dataset=dataset,
        delta=delta,
        budgets=budgets,
        entries=entries,
        mechanisms=mechanisms,
        epsilon=epsilon(short, delta),
        epsilon_replaced=epsilon_replace_one(short, delta),
        check=cross_check(short, delta),
        plans=tuple(
            _plan_spend(reading, digest, spends, delta)
            for digest in dict.fromkeys(reading.reserved[entry][0] for entry in entries)
        ),
        course=tuple(
            Point(
                entry=entries[count - 1],
                plan_digest=reading.reserved[entries[count - 1]][0],
                round=reading.reserved[entries[count - 1]][1],
                reservations=count,
                epsilon=value,
                epsilon_rdp=bound,
            )
            for count, value, bound in course(mechanisms, delta)
        ),
    )


def _plan_spend(reading: Reading, digest: str, spends: Sequence[Spend], delta: float) -> PlanSpend:
    own = [spend for spend in spends if reading.reserved[spend.entry][0] == digest]
    mechanisms = [spend.mechanism for spend in own]
    state = reading.replay.plans.get(digest)
    return PlanSpend(
        digest=digest,
        name=state.plan.name if state else None,
        model=state.plan.model.kind if state else None,
        entries=tuple(spend.entry for spend in own),
        mechanisms=tuple(merge_equal(mechanisms)),
        epsilon_alone=spent(mechanisms, delta),
        epsilon_after=spent([spend.mechanism for spend in spends if spend.entry <= own[-1].entry], delta),
    )
