"""The rules of the ledger: what each entry must have before it, checked by replaying the entries in their order.

Nothing here reads files or hashes; :mod:`synclave_shared.ledger.verify` does. A finding never stops the replay, and a
spend counts even if something else about it is wrong: the epsilon of a bad ledger must not look smaller for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from synclave_shared.canonical import canonical_bytes
from synclave_shared.errors import PlanError
from synclave_shared.ledger.actors import Actor, Actors
from synclave_shared.ledger.entry import (
    Aggregate,
    BudgetChanged,
    KeyRegistered,
    KeyRotated,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    RunClosed,
    SamplesReleased,
    SignedEntry,
    SnapshotWritten,
    SpendReserved,
    UpdateReleased,
)
from synclave_shared.ledger.keys import verify_signature
from synclave_shared.plan import TrainPlan, signed_plan_bytes
from synclave_shared.privacy.accountant import merge_equal
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["Finding", "PlanState", "Replay", "Spend"]

COORDINATOR_KINDS = (PlanProposed, Aggregate, SnapshotWritten, RunClosed, SamplesReleased)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it must be.

    Attributes:
        code: what kind of thing, from a closed list (docs/ledger-format.md).
        severity: an ``error`` makes the ledger invalid; a ``warning`` is for a person to judge.
        explanation: for the person reading.
        entry: index of the entry it is about, if it is about one.
        file: path of the file in the ledger folder it is about, if it is about one.
    """

    code: str
    severity: Literal["error", "warning"]
    explanation: str
    entry: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """One reservation: what was done, and which entry says so; ``leaf`` is that entry's leaf hash."""

    mechanism: PoissonGaussian | GaussianSum
    delta: float
    entry: int
    leaf: bytes


@dataclass(slots=True)
class PlanState:
    """What the ledger says about one plan so far.

    Attributes:
        plan: the plan.
        accepted: site -> its acceptance.
        budgets: site -> the budget it stated last for this plan.
        reserved, released: site -> rounds.
        aggregated: rounds whose updates were combined.
        snapshots: digests of the models written.
        closed: whether the training was said to be over.
        roster: site -> the key that the plan names.
    """

    plan: TrainPlan
    accepted: dict[str, PlanAccepted] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    reserved: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    released: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    aggregated: set[int] = field(default_factory=set)
    snapshots: set[str] = field(default_factory=set)
    closed: bool = False
    roster: dict[str, str] = field(init=False)
    _planned: list[PoissonGaussian | GaussianSum] | None = None
    _latest: tuple[int, PoissonGaussian | GaussianSum] | None = None

    def __post_init__(self) -> None:
        self.roster = {site.name: site.public_key for site in self.plan.sites}

    def planned(self) -> list[PoissonGaussian | GaussianSum]:
        """What the plan does in all, as a site accepts it."""
        # Every site of the plan is compared with it.
        if self._planned is None:
            self._planned = merge_equal(self.plan.mechanisms())
        return self._planned

    def mechanism(self, round_number: int) -> PoissonGaussian | GaussianSum:
        """What the plan does in a round.

        Raises:
            PlanError: if it has no such round.
        """
        # Sites of a round ask for the same one, one after another.
        if self._latest is None or self._latest[0] != round_number:
            self._latest = round_number, self.plan.mechanism(round_number)
        return self._latest[1]


class Replay:
    """State of the ledger after the entries applied so far.

    Attributes:
        findings: in the order of entries.
        actors: everyone who registered, with role and keys.
        plans: digest -> state, in the order of proposal.
        spends: (site, data set) -> reservations in order, over all plans.
        budgets: (site, data set) -> the budgets stated, oldest first, each with the index of its entry.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.actors = Actors()
        self.plans: dict[str, PlanState] = {}
        self.spends: dict[tuple[str, str], list[Spend]] = defaultdict(list)
        self.budgets: dict[tuple[str, str], list[tuple[int, Budget]]] = defaultdict(list)
        self._index = 0

    def apply(self, index: int, entry: SignedEntry, leaf: bytes) -> None:
        """Take one well-formed entry with a valid signature into account; ``leaf`` is its leaf hash."""
        self._index = index
        if self.actors.is_repeated(leaf):
            self._find("entry-repeated", "the same entry stands in the ledger before; it counts once")
            return
        body, place = entry.body, leaf.hex()
        if isinstance(body, KeyRegistered):
            self._find_all(self.actors.register(entry, body, place))
            return
        if isinstance(body, SpendReserved):
            spend = Spend(mechanism=body.mechanism, delta=float(body.delta), entry=index, leaf=leaf)
            self.spends[entry.actor, body.dataset].append(spend)
        actor, faults = self.actors.admit(entry, place)
        self._find_all(faults)
        if actor is None:
            return
        if isinstance(body, KeyRotated):
            self._find_all(self.actors.rotate(actor, entry, body))
            return
        expected = "coordinator" if isinstance(body, COORDINATOR_KINDS) else "site"
        if actor.role != expected:
            self._find("role-wrong", f"{entry.kind} is for a {expected} to sign, not for {entry.actor}")
            return
        if entry.run != getattr(body, "plan_digest", ""):
            self._find("run-wrong", "the entry belongs to one plan and speaks about another")
        if isinstance(body, PlanProposed):
            self._propose(entry, body)
            return
        state = self.plans.get(entry.run)
        if state is None:
            self._find("plan-unknown", f"about plan {entry.run[:16] or '(none)'}, which was not proposed before")
            return
        self._check_signer(entry, actor, state)
        match body:
            case PlanAccepted():
                self._accept(entry.actor, body, state)
            case BudgetChanged():
                self._change_budget(entry.actor, body, state)
            case SpendReserved():
                self._reserve(entry.actor, body, state)
            case UpdateReleased():
                self._release(entry.actor, body, state)
            case Aggregate():
                self._aggregate(body, state)
            case SnapshotWritten():
                self._snapshot(body, state)
            case RunClosed():
                self._close(body, state)
            case SamplesReleased():
                if body.snapshot_digest not in state.snapshots:
                    self._find("snapshot-unknown", "samples of a model that the ledger does not hold before")
            case PlanRefused():
                pass

    def _find(self, code: str, explanation: str, severity: Literal["error", "warning"] = "error") -> None:
        self.findings.append(Finding(code=code, severity=severity, entry=self._index, explanation=explanation))

    def _find_all(self, faults: Iterable[tuple[str, str]]) -> None:
        for code, explanation in faults:
            self._find(code, explanation)

    def _propose(self, entry: SignedEntry, body: PlanProposed) -> None:
        try:
            content = canonical_bytes(body.plan)
            plan = TrainPlan.from_bytes(content)
        except (PlanError, ValueError) as error:
            self._find("plan-malformed", f"not a plan: {error}")
            return
        if plan.digest != body.plan_digest:
            self._find("plan-digest-wrong", f"the plan's digest is {plan.digest[:16]}, stated is another")
            return
        signed = verify_signature(plan.coordinator_key, signed_plan_bytes(content), body.signature)
        if plan.coordinator_key != entry.key or not signed:
            self._find("plan-signature-wrong", "the plan is not signed by the coordinator that it names")
            return
        if plan.digest in self.plans:
            self._find("plan-repeated", "the plan was proposed before", "warning")
            return
        self.plans[plan.digest] = PlanState(plan)

    def _check_signer(self, entry: SignedEntry, actor: Actor, state: PlanState) -> None:
        """Whether the plan gives this actor a part under this key."""
        expected = state.plan.coordinator_key if actor.role == "coordinator" else state.roster.get(entry.actor)
        # The plan may name a key that the site has replaced since.
        if expected not in actor.keys:
            self._find("not-in-roster", f"the plan does not name {entry.actor} with this key")

    def _accept(self, site: str, body: PlanAccepted, state: PlanState) -> None:
        if list(body.planned) != state.planned():
            self._find("planned-wrong", f"{site} accepted other mechanisms than those of the plan")
        self._check_delta(site, body.budget.delta, state)
        if site in state.accepted:
            self._find("acceptance-repeated", f"{site} accepted this plan before, in other words")
            return
        state.accepted[site] = body
        self._state_budget(site, body.dataset, body.budget, state)

    def _state_budget(self, site: str, dataset: str, budget: Budget, state: PlanState) -> None:
        state.budgets[site] = budget
        stated = self.budgets[site, dataset]
        if not stated or stated[-1][1] != budget:
            stated.append((self._index, budget))

    def _change_budget(self, site: str, body: BudgetChanged, state: PlanState) -> None:
        accepted = state.accepted.get(site)
        if accepted is None:
            self._find("not-accepted", f"{site} changes a budget for a plan that it did not accept before")
        elif body.dataset != accepted.dataset:
            self._find("dataset-wrong", f"{site} accepted the plan for {accepted.dataset}, and changes another budget")
        self._check_delta(site, body.budget.delta, state)
        self._state_budget(site, body.dataset, body.budget, state)

    def _check_delta(self, site: str, delta: Decimal, state: PlanState) -> None:
        if delta > state.plan.privacy.delta:
            explanation = f"{site} states epsilon at delta {delta}, above the plan's {state.plan.privacy.delta}"
            self._find("delta-above-plan", explanation)

    def _reserve(self, site: str, body: SpendReserved, state: PlanState) -> None:
        self._check_delta(site, body.delta, state)
        accepted = state.accepted.get(site)
        if accepted is None:
            self._find("not-accepted", f"{site} spends for a plan that it did not accept before")
        else:
            if body.dataset != accepted.dataset:
                self._find("dataset-wrong", f"{site} accepted the plan for {accepted.dataset}, and charges another")
            if body.delta != state.budgets[site].delta:
                self._find("delta-wrong", f"{site} states a delta that is not that of its budget")
        try:
            if body.mechanism != state.mechanism(body.round):
                self._find("mechanism-wrong", f"{site} does something in round {body.round} that the plan does not say")
        except PlanError:
            self._find("round-wrong", f"the plan has no round {body.round}")
        if state.closed:
            # A warning: an honest site may report the spend of a failed round when it is shown the closed ledger.
            self._find("spend-after-close", f"{site} spends for a run that was closed before", "warning")
        if body.round in state.reserved[site]:
            self._find("reservation-repeated", f"{site} reserves round {body.round} a second time; both count as spent")
        state.reserved[site].add(body.round)

    def _release(self, site: str, body: UpdateReleased, state: PlanState) -> None:
        if body.round not in state.reserved[site]:
            self._find("release-unreserved", f"{site} released round {body.round} without having charged its budget")
        if body.round in state.released[site]:
            self._find("release-repeated", f"{site} released round {body.round} a second time, another update")
        state.released[site].add(body.round)

    def _aggregate(self, body: Aggregate, state: PlanState) -> None:
        absent = [site for site in body.sites if body.round not in state.released[site]]
        if absent:
            self._find("aggregate-unreleased", f"round {body.round} counts {', '.join(absent)}, which released nothing")
        if len(set(body.sites)) != len(body.sites):
            self._find("aggregate-sites-wrong", f"round {body.round} counts a site twice")
        if len(set(body.sites)) < state.plan.federation.minimum_sites:
            self._find("cohort-too-small", f"round {body.round} has fewer sites than the plan's minimum")
        if body.round in state.aggregated:
            self._find("aggregate-repeated", f"round {body.round} was combined before, with another result")
        state.aggregated.add(body.round)

    def _snapshot(self, body: SnapshotWritten, state: PlanState) -> None:
        if body.round not in state.aggregated:
            self._find("snapshot-early", f"a model of round {body.round}, whose updates were not combined before")
        state.snapshots.add(body.snapshot_digest)

    def _close(self, body: RunClosed, state: PlanState) -> None:
        if state.closed:
            self._find("close-repeated", "the run was closed before")
        if body.rounds > state.plan.last_round() or (body.rounds and body.rounds not in state.aggregated):
            self._find("close-wrong", f"closed after {body.rounds} rounds, which the ledger does not show")
        state.closed = True

    def datasets(self, site: str) -> Iterator[str]:
        """Data sets for which a site stated a budget or spent."""
        yield from dict.fromkeys(name for owner, name in (*self.budgets, *self.spends) if owner == site)
