"""The rules of the ledger: what each entry must have before it, checked by replaying the entries in their order.

Nothing here reads files or hashes; :mod:`synclave_shared.ledger.verify` does. A finding never stops the replay, and a
spend counts even if something else about it is wrong: the epsilon of a bad ledger must not look smaller for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from synclave_shared.canonical import canonical_bytes
from synclave_shared.errors import PlanError
from synclave_shared.ledger.entry import (
    Aggregate,
    KeyRegistered,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    RunClosed,
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

COORDINATOR_KINDS = (PlanProposed, Aggregate, SnapshotWritten, RunClosed)


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
    """One reservation: what was done, and which entry says so."""

    mechanism: PoissonGaussian | GaussianSum
    delta: float
    entry: int


@dataclass(slots=True)
class PlanState:
    """What the ledger says about one plan so far."""

    plan: TrainPlan
    accepted: dict[str, PlanAccepted] = field(default_factory=dict)
    reserved: dict[tuple[str, int], bytes] = field(default_factory=dict)
    released: dict[tuple[str, int], bytes] = field(default_factory=dict)
    aggregated: dict[int, bytes] = field(default_factory=dict)
    closed: bool = False


class Replay:
    """State of the ledger after the entries applied so far.

    Attributes:
        findings: in the order of entries.
        keys: name -> public key of everyone who registered.
        roles: name -> role it registered with.
        plans: digest -> state, in the order of proposal.
        spends: (site, data set) -> reservations in order, over all plans.
        budgets: (site, data set) -> the budget stated last.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.keys: dict[str, str] = {}
        self.roles: dict[str, str] = {}
        self.plans: dict[str, PlanState] = {}
        self.spends: dict[tuple[str, str], list[Spend]] = defaultdict(list)
        self.budgets: dict[tuple[str, str], Budget] = {}
        self._seen: set[bytes] = set()
        self._index = 0

    def apply(self, index: int, entry: SignedEntry) -> None:
        """Take one well-formed entry with a valid signature into account."""
        self._index = index
        content = entry.to_bytes()
        if content in self._seen:
            self._find("entry-repeated", "the same entry stands in the ledger before; it counts once", "warning")
            return
        self._seen.add(content)
        body = entry.body
        if isinstance(body, KeyRegistered):
            self._register(entry, body)
            return
        if isinstance(body, SpendReserved):
            spend = Spend(mechanism=body.mechanism, delta=float(body.delta), entry=index)
            self.spends[entry.actor, body.dataset].append(spend)
        if self.keys.get(entry.actor) != entry.key:
            self._find("key-unknown", f"signed with a key that {entry.actor} did not register before")
            return
        expected = "coordinator" if isinstance(body, COORDINATOR_KINDS) else "site"
        if self.roles[entry.actor] != expected:
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
        self._check_signer(entry, state)
        match body:
            case PlanAccepted():
                self._accept(entry.actor, body, state)
            case SpendReserved():
                self._reserve(entry.actor, body, state, content)
            case UpdateReleased():
                self._release(entry.actor, body, state, content)
            case Aggregate():
                self._aggregate(body, state, content)
            case SnapshotWritten():
                if body.round not in state.aggregated:
                    self._find(
                        "snapshot-early", f"a model of round {body.round}, whose updates were not combined before"
                    )
            case RunClosed():
                self._close(body, state)
            case PlanRefused():
                pass

    def _find(self, code: str, explanation: str, severity: Literal["error", "warning"] = "error") -> None:
        self.findings.append(Finding(code=code, severity=severity, entry=self._index, explanation=explanation))

    def _register(self, entry: SignedEntry, body: KeyRegistered) -> None:
        if (entry.actor, entry.key, entry.run) != (body.name, body.public_key, ""):
            self._find("registration-wrong", f"{entry.actor} registers a key or a name that is not its own")
        elif self.keys.get(body.name, body.public_key) != body.public_key:
            self._find("key-conflict", f"{body.name} registered another key before; that one stays")
        elif body.role == "coordinator" and "coordinator" in self.roles.values() and body.name not in self.keys:
            self._find("key-conflict", "a second coordinator; a ledger has one")
        elif self.roles.get(body.name, body.role) != body.role:
            self._find("key-conflict", f"{body.name} registered in another role before")
        else:
            self.keys[body.name] = body.public_key
            self.roles[body.name] = body.role

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

    def _check_signer(self, entry: SignedEntry, state: PlanState) -> None:
        """Whether the plan gives this actor a part under this key."""
        if self.roles[entry.actor] == "coordinator":
            expected = state.plan.coordinator_key
        else:
            expected = next((site.public_key for site in state.plan.sites if site.name == entry.actor), "")
        if expected != entry.key:
            self._find("not-in-roster", f"the plan does not name {entry.actor} with this key")

    def _accept(self, site: str, body: PlanAccepted, state: PlanState) -> None:
        if list(body.planned) != merge_equal(state.plan.mechanisms()):
            self._find("planned-wrong", f"{site} accepted other mechanisms than those of the plan")
        self._check_delta(site, body.budget.delta, state)
        if site in state.accepted:
            self._find("acceptance-repeated", f"{site} accepted this plan before, in other words")
            return
        state.accepted[site] = body
        self.budgets[site, body.dataset] = body.budget

    def _check_delta(self, site: str, delta: Decimal, state: PlanState) -> None:
        if delta > state.plan.privacy.delta:
            explanation = f"{site} states epsilon at delta {delta}, above the plan's {state.plan.privacy.delta}"
            self._find("delta-above-plan", explanation)

    def _reserve(self, site: str, body: SpendReserved, state: PlanState, content: bytes) -> None:
        self._check_delta(site, body.delta, state)
        accepted = state.accepted.get(site)
        if accepted is None:
            self._find("not-accepted", f"{site} spends for a plan that it did not accept before")
        else:
            if body.dataset != accepted.dataset:
                self._find("dataset-wrong", f"{site} accepted the plan for {accepted.dataset}, and charges another")
            if body.delta != accepted.budget.delta:
                self._find("delta-wrong", f"{site} states a delta that is not that of its budget")
        try:
            if body.mechanism != state.plan.mechanism(body.round):
                self._find("mechanism-wrong", f"{site} does something in round {body.round} that the plan does not say")
        except PlanError:
            self._find("round-wrong", f"the plan has no round {body.round}")
        if state.closed:
            # A warning: an honest site may report the spend of a failed round when it is shown the closed ledger.
            self._find("spend-after-close", f"{site} spends for a run that was closed before", "warning")
        if (site, body.round) in state.reserved:
            self._find("reservation-repeated", f"{site} reserves round {body.round} a second time; both count as spent")
        state.reserved[site, body.round] = content

    def _release(self, site: str, body: UpdateReleased, state: PlanState, content: bytes) -> None:
        if (site, body.round) not in state.reserved:
            self._find("release-unreserved", f"{site} released round {body.round} without having charged its budget")
        if (site, body.round) in state.released:
            self._find("release-repeated", f"{site} released round {body.round} a second time, another update")
        state.released[site, body.round] = content

    def _aggregate(self, body: Aggregate, state: PlanState, content: bytes) -> None:
        absent = [site for site in body.sites if (site, body.round) not in state.released]
        if absent:
            self._find("aggregate-unreleased", f"round {body.round} counts {', '.join(absent)}, which released nothing")
        if len(set(body.sites)) != len(body.sites):
            self._find("aggregate-sites-wrong", f"round {body.round} counts a site twice")
        if len(set(body.sites)) < state.plan.federation.minimum_sites:
            self._find("cohort-too-small", f"round {body.round} has fewer sites than the plan's minimum")
        if body.round in state.aggregated:
            self._find("aggregate-repeated", f"round {body.round} was combined before, with another result")
        state.aggregated[body.round] = content

    def _close(self, body: RunClosed, state: PlanState) -> None:
        if state.closed:
            self._find("close-repeated", "the run was closed before")
        if body.rounds > state.plan.last_round() or (body.rounds and body.rounds not in state.aggregated):
            self._find("close-wrong", f"closed after {body.rounds} rounds, which the ledger does not show")
        state.closed = True

    def datasets(self, site: str) -> Iterator[str]:
        """Data sets for which a site stated a budget or spent."""
        yield from dict.fromkeys(name for owner, name in (*self.budgets, *self.spends) if owner == site)
