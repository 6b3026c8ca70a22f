"""What each site spent on each data set: which entries, under which plan, and epsilon after each of them.

Epsilons never add up. Every number here is the epsilon of one *composition*: of all reservations up to a point, of one
plan or one kind of model alone, or of everything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from synclave_shared.audit.histories import BudgetStated, History
from synclave_shared.audit.ledgers import Ledgers
from synclave_shared.audit.reading import Place
from synclave_shared.plan import TrainPlan
from synclave_shared.privacy.accountant import Bounds, bounds_over_time, epsilon, epsilon_replace_one
from synclave_shared.privacy.budget import within
from synclave_shared.privacy.cross_check import CrossCheck, cross_check
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from synclave_shared.privacy.tally import spent, tallied

__all__ = ["MAX_POINTS", "Account", "ModelSpend", "Operation", "PlanSpend", "Point", "accounts", "course"]

MAX_POINTS = 240
"""A longer history is given at this many evenly spaced reservations and at the ends of plans: each costs a composition.
"""

_Mechanism = PoissonGaussian | GaussianSum


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Cumulative spend after one reservation.

    Attributes:
        entry: the reservation.
        time: its time by the site's clock.
        plan_digest, round: what it was for.
        reservations: how many there are up to here, this one included.
        epsilon: of all of them composed, by privacy loss distributions.
        epsilon_rdp: the same by Rényi divergences.
    """

    entry: Place
    time: str
    plan_digest: str
    round: int
    reservations: int
    epsilon: float
    epsilon_rdp: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that a plan did: the steps of all its rounds together, or so many equal sums.

    Attributes:
        mechanism: with the number of all steps.
        times: how often; 1 for steps.
        entries: the reservations.
    """

    mechanism: _Mechanism
    times: int
    entries: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpend:
    """What one plan did to a data set.

    Attributes:
        digest, name: of the plan; no name if no ledger proposes one with this digest.
        model, modality: kind of the model that it trains, and of data, as the plan says.
        entries: its reservations.
        operations: what was done.
        epsilon_alone: of this plan's reservations and nothing else. These do not add up over plans.
        epsilon_after: of everything on this data set up to this plan's last reservation.
    """

    digest: str
    name: str | None
    model: str | None
    modality: str | None
    entries: tuple[Place, ...]
    operations: tuple[Operation, ...]
    epsilon_alone: float
    epsilon_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpend:
    """What all plans for one kind of model, of one modality, did to a data set; the epsilons do not add up either."""

    model: str | None
    modality: str | None
    plans: int
    entries: tuple[Place, ...]
    epsilon_alone: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One site's one data set, over all ledgers of the audit.

    Attributes:
        site, dataset: whose, and the site's name for it.
        ledgers: numbers of the ledgers that say anything about it.
        delta: the smallest of any budget that was stated; of any reservation if there is no budget.
        budgets: as the site stated them, in order, each with its entry; the last one holds.
        entries: all reservations.
        mechanisms: what each of them reserved.
        epsilon: of all of them composed.
        epsilon_replaced: the same for replacing one patient instead of adding or removing one.
        check: what the three accountants say of it, and whether they agree.
        plans: the same by plan.
        models: the same by kind of model and modality.
        course: the same over time.
    """

    site: str
    dataset: str
    ledgers: tuple[int, ...]
    delta: float
    budgets: tuple[BudgetStated, ...]
    entries: tuple[Place, ...]
    mechanisms: tuple[_Mechanism, ...]
    epsilon: float
    epsilon_replaced: float
    check: CrossCheck
    plans: tuple[PlanSpend, ...]
    models: tuple[ModelSpend, ...]
    course: tuple[Point, ...]

    @property
    def budget(self) -> float | None:
        """Epsilon of the budget that was stated last."""
        return float(self.budgets[-1].budget.epsilon) if self.budgets else None

    @property
    def left(self) -> float | None:
        """Distance from the cumulative epsilon in these ledgers to the budget, 0 beyond it; None without a budget.

        The budget spans all ledgers of the data set, so less may be left. Not an epsilon that one could
        still spend: what still fits is a matter of composition.
        """
        return None if self.budget is None else max(0.0, self.budget - self.epsilon)

    @property
    def exceeded(self) -> bool:
        """Whether the budget stated last is exceeded."""
        return bool(self.budgets) and not within(self.epsilon, self.budgets[-1].budget)


def accounts(ledgers: Ledgers) -> list[Account]:
    """Every site's every data set, in the order of the sites in the ledgers."""
    plans = {digest: state.plan for reading in ledgers.readings for digest, state in reading.replay.plans.items()}
    return [_account(history, plans) for history in ledgers.histories]


def course(mechanisms: Sequence[_Mechanism], delta: float, ends: Iterable[int] = ()) -> list[tuple[int, Bounds]]:
    """Cumulative epsilon along a history, at :data:`MAX_POINTS` places and at all of ``ends`` if they are as few.

    Args:
        mechanisms: the history.
        delta: at which epsilon is asked.
        ends: numbers of mechanisms after which epsilon is wanted in any case.

    Returns:
        Number of mechanisms up to here, and both bounds of their epsilon; the whole history last.
    """
    total = len(mechanisms)
    if not total:
        return []
    count = min(total, MAX_POINTS)
    wanted = set(ends)
    spaced = {math.ceil((place + 1) * total / count) for place in range(count)}
    stops = sorted(spaced | wanted if len(wanted) <= MAX_POINTS else spaced)
    # Between two places, what was done many times is one mechanism: a long history takes as long as a short one.
    groups = [tallied(mechanisms[first:last]) for first, last in itertools.pairwise([0, *stops])]
    values = bounds_over_time([mechanism for group in groups for mechanism in group], delta)
    lengths = itertools.accumulate(map(len, groups))
    return [(stop, values[done - 1]) for stop, done in zip(stops, lengths, strict=True)]


def _account(history: History, plans: dict[str, TrainPlan]) -> Account:
    short, delta = tallied(history.mechanisms), history.delta
    total = epsilon(short, delta)
    places: dict[str, list[int]] = {}
    for place, reserved in enumerate(history.reserved):
        places.setdefault(reserved.plan, []).append(place)
    along = course(history.mechanisms, delta, (own[-1] + 1 for own in places.values()))
    points = tuple(
        Point(
            entry=history.entries[count - 1],
            time=history.reserved[count - 1].time,
            plan_digest=history.reserved[count - 1].plan,
            round=history.reserved[count - 1].round,
            reservations=count,
            # The same composition in another order of arithmetic; the last one is the total itself.
            epsilon=total if count == len(history.entries) else bound.smaller,
            epsilon_rdp=bound.by_divergence,
        )
        for count, bound in along
    )
    after = {point.reservations: point.epsilon for point in points}
    by_plan = tuple(_plan_spend(history, digest, own, plans.get(digest), after) for digest, own in places.items())
    return Account(
        site=history.site,
        dataset=history.dataset,
        ledgers=history.ledgers,
        delta=delta,
        budgets=history.budgets,
        entries=history.entries,
        mechanisms=history.mechanisms,
        epsilon=total,
        epsilon_replaced=epsilon_replace_one(short, delta),
        check=cross_check(short, delta),
        plans=by_plan,
        models=_by_model(by_plan, places, history),
        course=points,
    )


def _plan_spend(
    history: History, digest: str, places: Sequence[int], plan: TrainPlan | None, after: dict[int, float]
) -> PlanSpend:
    end = places[-1] + 1
    return PlanSpend(
        digest=digest,
        name=plan.name if plan else None,
        model=plan.model.kind if plan else None,
        modality=plan.modality if plan else None,
        entries=tuple(history.entries[place] for place in places),
        operations=_operations(history, places),
        epsilon_alone=spent([history.mechanisms[place] for place in places], history.delta),
        epsilon_after=after[end] if end in after else spent(history.mechanisms[:end], history.delta),
    )


def _operations(history: History, places: Sequence[int]) -> tuple[Operation, ...]:
    """What was done at some places of a history, each different thing once."""
    # First by object, of which a long history has few: comparing values takes a hundred times as long.
    objects: dict[int, list[int]] = {}
    for place in places:
        objects.setdefault(id(history.mechanisms[place]), []).append(place)
    done: dict[_Mechanism, list[tuple[int, list[int]]]] = {}
    for own in objects.values():
        mechanism = history.mechanisms[own[0]]
        if isinstance(mechanism, PoissonGaussian):
            done.setdefault(mechanism.model_copy(update={"steps": 1}), []).append((mechanism.steps * len(own), own))
        else:
            done.setdefault(mechanism, []).append((len(own), own))
    return tuple(
        Operation(
            mechanism=once.model_copy(update={"steps": times}) if isinstance(once, PoissonGaussian) else once,
            times=1 if isinstance(once, PoissonGaussian) else times,
            entries=tuple(history.entries[place] for place in sorted(place for _, own in parts for place in own)),
        )
        for once, parts in done.items()
        for times in [sum(times for times, _ in parts)]
    )


def _by_model(plans: Sequence[PlanSpend], places: dict[str, list[int]], history: History) -> tuple[ModelSpend, ...]:
    kinds: dict[tuple[str | None, str | None], list[PlanSpend]] = {}
    for plan in plans:
        kinds.setdefault((plan.model, plan.modality), []).append(plan)
    found = []
    for (model, modality), own in kinds.items():
        mine = sorted(place for plan in own for place in places[plan.digest])
        found.append(
            ModelSpend(
                model=model,
                modality=modality,
                plans=len(own),
                entries=tuple(history.entries[place] for place in mine),
                epsilon_alone=spent([history.mechanisms[place] for place in mine], history.delta),
            )
        )
    return tuple(found)
