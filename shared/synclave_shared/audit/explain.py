"""One entry in plain words: who did what, under which plan, what it means for patients, which rules it was held to."""

from __future__ import annotations

from dataclasses import dataclass

from synclave_shared.audit.reading import Reading
from synclave_shared.audit.rules import RULES, remedy_of
from synclave_shared.audit.words import MODELS, budget_line, in_words, number, small
from synclave_shared.errors import REFUSAL_CODES
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
from synclave_shared.ledger.replay import Finding
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.tally import spent

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One entry for a reader who knows no cryptography.

    Attributes:
        entry: its index.
        kind, actor, time, key, leaf: as the entry says; ``leaf`` is its hash in the tree, hex.
        who: who acted, and by which key one can tell.
        what: what was done.
        plan: under which plan, and which entry proposed it; empty if it belongs to none.
        patients: what it means for the patients of the site.
        rules: what it was checked against, each with whether it holds for this entry.
        findings: what is wrong with it.
        remedies: what to do about each finding.
    """

    entry: int
    kind: str
    actor: str
    time: str
    key: str
    leaf: str
    who: str
    what: str
    plan: str
    patients: str
    rules: tuple[tuple[str, bool], ...]
    findings: tuple[Finding, ...]
    remedies: tuple[str, ...]


def explain(reading: Reading, index: int) -> Explanation:
    """Explain one entry.

    Raises:
        LedgerError: if there is no such entry, or none that can be read.
    """
    entry = reading.entry(index)
    findings = tuple(finding for finding in reading.report.findings if finding.entry == index)
    codes = {finding.code for finding in findings}
    what, patients = _what(reading, index, entry)
    return Explanation(
        entry=index,
        kind=entry.kind,
        actor=entry.actor,
        time=entry.time,
        key=entry.key,
        leaf=entry.leaf,
        who=_who(reading, index, entry),
        what=what,
        plan=_plan(reading, entry),
        patients=patients,
        rules=tuple((rule.title, not codes & set(rule.codes)) for rule in RULES if rule.concerns(entry.kind)),
        findings=findings,
        remedies=tuple(remedy_of(finding.code) for finding in findings),
    )


def _who(reading: Reading, index: int, entry: SignedEntry) -> str:
    actor = reading.replay.actors.by_name.get(entry.actor)
    role = "The coordinator" if actor and actor.role == "coordinator" else f"Site {entry.actor}"
    registered = reading.replay.registered.get(entry.actor)
    if actor is None or registered is None or entry.key not in actor.keys:
        return f"Somebody who calls itself {entry.actor}, with a key that no entry registers for that name."
    if registered == index:
        return f"{role}, introducing its key {entry.key}."
    later = "" if entry.key == actor.keys[0] else ", by the key that replaced it"
    return f"{role}, registered in entry {registered}{later}."


def _plan(reading: Reading, entry: SignedEntry) -> str:
    state = reading.replay.plans.get(entry.run)
    if state is None:
        return f"Plan {entry.run[:16]}, which this ledger does not propose." if entry.run else ""
    model = MODELS.get(state.plan.model.kind, state.plan.model.kind)
    proposed = reading.replay.proposed[entry.run]
    return f"Plan {state.plan.name} ({entry.run[:16]}), for {model}, proposed in entry {proposed}."


def _what(reading: Reading, index: int, entry: SignedEntry) -> tuple[str, str]:
    """What was done, and what it means for patients."""
    nothing = "Nothing: no patient's data are touched by it."
    match entry.body:
        case KeyRegistered() as body:
            return f"Registers the key with which {body.name} signs as {body.role}.", nothing
        case PlanProposed() as body:
            state = reading.replay.plans.get(body.plan_digest)
            sites = f" before {len(state.plan.sites)} sites" if state else " before the sites"
            return f"Puts a signed plan{sites}: all that they will be asked to do.", nothing
        case PlanAccepted() as body:
            planned = epsilon(body.planned, float(body.budget.delta))
            return (
                f"Agrees to the plan for its data set {body.dataset} and states the budget of that data set:"
                f" {budget_line(body.budget)}, over everything ever done with it.",
                f"Nothing yet. If the plan is carried out in full, it alone costs epsilon {number(planned)} at most.",
            )
        case KeyRotated() as body:
            return f"Replaces the key of {body.name}: what follows must be signed with {body.public_key}.", nothing
        case BudgetChanged() as body:
            return (
                f"Changes the budget of {body.dataset} to {budget_line(body.budget)},"
                " for everything ever done with it, from here on.",
                "Nothing by itself; it decides what may still be done with their data.",
            )
        case PlanRefused() as body:
            return f"Declines the plan: {REFUSAL_CODES[body.refusal]}.", "Their data are not used for this plan."
        case SpendReserved() as body:
            return (
                f"Charges the budget of {body.dataset} for round {body.round}, before computing anything:"
                f" {in_words(body.mechanism)}",
                _spent(reading, index, entry.actor, body),
            )
        case UpdateReleased() as body:
            return (
                f"Lets the result of round {body.round} leave the site. Its SHA-256 is {body.update_digest}.",
                "What left was noised before; its cost was charged by the reservation of the same round.",
            )
        case Aggregate() as body:
            return (
                f"Combines round {body.round} from {len(body.sites)} sites: {', '.join(body.sites)}.",
                "No further cost: whatever is computed from noised results is as private as they are.",
            )
        case SnapshotWritten() as body:
            return f"Stores the model after round {body.round}, SHA-256 {body.snapshot_digest}.", "No further cost."
        case RunClosed() as body:
            return f"Ends the training after {body.rounds} rounds.", nothing
        case SamplesReleased() as body:
            return (
                f"Draws {body.patients:,} synthetic patients from the model {body.snapshot_digest}.",
                "No further cost: they are drawn from the model alone.",
            )
    return f"An entry of kind {entry.kind}.", "Not known to this version."


def _spent(reading: Reading, index: int, site: str, body: SpendReserved) -> str:
    spends = [spend for spend in reading.replay.spends[site, body.dataset] if spend.entry <= index]
    if not any(spend.entry == index for spend in spends):
        return "It counts for nothing: see what is wrong with it."
    stated = [budget for entry, budget in reading.replay.budgets.get((site, body.dataset), ()) if entry <= index]
    budget = stated[-1] if stated else None
    delta = float(budget.delta if budget else body.delta)
    before = spent([spend.mechanism for spend in spends[:-1]], delta)
    after = spent([spend.mechanism for spend in spends], delta)
    limit = f" The budget is {budget.epsilon}." if budget else " The site has stated no budget."
    return (
        f"The cumulative epsilon of {body.dataset} rises from {number(before)} to {number(after)} at delta"
        f" {small(delta)}.{limit} It counts even if nothing was released afterwards."
    )
