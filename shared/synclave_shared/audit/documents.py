"""What the commands print as JSON: plain values, an infinite epsilon as null."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from synclave_shared.audit.ledgers import Found, Ledgers
from synclave_shared.audit.reading import Place
from synclave_shared.audit.rules import remedy_of
from synclave_shared.audit.spends import Account
from synclave_shared.canonical import finite

__all__ = ["account_document", "entries_document", "finding_document", "ledgers_document"]


def entries_document(entries: Iterable[Place]) -> list[dict[str, Any]]:
    """Entries by ledger; the only ledger is number 1."""
    by_ledger: dict[int, list[int]] = {}
    for place in entries:
        by_ledger.setdefault(place.ledger or 1, []).append(place.entry)
    return [{"ledger": ledger, "entries": indices} for ledger, indices in sorted(by_ledger.items())]


def finding_document(found: Found) -> dict[str, Any]:
    """A finding; ``ledger`` is null if it is about several."""
    return {"ledger": found.ledger or None, **asdict(found.finding), "remedy": remedy_of(found.finding.code)}


def ledgers_document(ledgers: Ledgers) -> dict[str, Any]:
    """Which ledgers are meant, what was given twice, and what is wrong over all of them."""
    return {
        "valid": ledgers.valid,
        "ledgers": [
            {
                "ledger": reading.number or 1,
                "origin": reading.report.origin,
                "size": reading.report.size,
                "root": reading.report.root,
                "valid": reading.report.valid,
            }
            for reading in ledgers.readings
        ],
        "copies": [{"ledger": each.number, "of": each.of, "size": each.size} for each in ledgers.repeats],
        "findings_over_all": [finding_document(found) for found in ledgers.findings],
    }


def account_document(account: Account) -> dict[str, Any]:
    """One site's one data set."""
    document: dict[str, Any] = finite(
        {
            "site": account.site,
            "dataset": account.dataset,
            "ledgers": [number or 1 for number in account.ledgers],
            "delta": account.delta,
            "epsilon": account.epsilon,
            "epsilon_replace_one": account.epsilon_replaced,
            "accountants": {
                "pld": account.check.pld,
                "rdp": account.check.rdp,
                "prv": account.check.prv,
                "tolerance": account.check.tolerance,
                "disagreements": account.check.disagreements,
                "not_checked": account.check.not_checked,
            },
            "budget_epsilon": account.budget,
            "left_after_these_ledgers": account.left,
            "exceeded": account.exceeded,
            "entries": entries_document(account.entries),
            "budgets": [
                {
                    "ledger": stated.entry.ledger or 1,
                    "entry": stated.entry.entry,
                    "reservations_before": stated.before,
                    **stated.budget.model_dump(mode="json"),
                }
                for stated in account.budgets
            ],
            "plans": [
                {
                    "plan_digest": plan.digest,
                    "name": plan.name,
                    "model": plan.model,
                    "modality": plan.modality,
                    "entries": entries_document(plan.entries),
                    "operations": [
                        {
                            "mechanism": each.mechanism.model_dump(mode="json"),
                            "times": each.times,
                            "entries": entries_document(each.entries),
                        }
                        for each in plan.operations
                    ],
                    "epsilon_alone": plan.epsilon_alone,
                    "epsilon_after": plan.epsilon_after,
                }
                for plan in account.plans
            ],
            "models": [
                {
                    "model": kind.model,
                    "modality": kind.modality,
                    "plans": kind.plans,
                    "entries": entries_document(kind.entries),
                    "epsilon_alone": kind.epsilon_alone,
                }
                for kind in account.models
            ],
            "course": [
                {
                    "ledger": point.entry.ledger or 1,
                    "entry": point.entry.entry,
                    "time": point.time,
                    "plan_digest": point.plan_digest,
                    "round": point.round,
                    "reservations": point.reservations,
                    "epsilon": point.epsilon,
                    "epsilon_rdp": point.epsilon_rdp,
                }
                for point in account.course
            ],
        }
    )
    return document
