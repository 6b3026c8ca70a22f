"""What the commands print as JSON: plain values, an infinite epsilon as null."""

from __future__ import annotations

import math
from typing import Any

from synclave_shared.audit.spends import Account

__all__ = ["account_document", "finite"]


def finite(value: float | None) -> float | None:
    """A number that JSON has; None for infinity."""
    return value if value is not None and math.isfinite(value) else None


def account_document(account: Account) -> dict[str, Any]:
    """One site's one data set."""
    return {
        "site": account.site,
        "dataset": account.dataset,
        "delta": account.delta,
        "epsilon": finite(account.epsilon),
        "epsilon_replace_one": finite(account.epsilon_replaced),
        "accountants": {
            "pld": finite(account.check.pld),
            "rdp": finite(account.check.rdp),
            "prv": finite(account.check.prv),
            "tolerance": account.check.tolerance,
            "disagreements": list(account.check.disagreements),
            "not_checked": list(account.check.not_checked),
        },
        "budget_epsilon": account.budget,
        "left_in_this_ledger": finite(account.left),
        "entries": list(account.entries),
        "budgets": [{"entry": entry, **budget.model_dump(mode="json")} for entry, budget in account.budgets],
        "plans": [
            {
                "plan_digest": plan.digest,
                "name": plan.name,
                "model": plan.model,
                "entries": list(plan.entries),
                "mechanisms": [mechanism.model_dump(mode="json") for mechanism in plan.mechanisms],
                "epsilon_alone": finite(plan.epsilon_alone),
                "epsilon_after": finite(plan.epsilon_after),
            }
            for plan in account.plans
        ],
        "course": [
            {
                "entry": point.entry,
                "plan_digest": point.plan_digest,
                "round": point.round,
                "reservations": point.reservations,
                "epsilon": finite(point.epsilon),
                "epsilon_rdp": finite(point.epsilon_rdp),
            }
            for point in account.course
        ],
    }
