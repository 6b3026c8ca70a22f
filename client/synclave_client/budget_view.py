"""What ``synclave-site budget`` tells a data steward: spent, promised and left, all by composition, never by adding."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_shared.canonical import finite
from synclave_shared.errors import REFUSAL_CODES
from synclave_shared.privacy.accountant import epsilon, epsilon_replace_one
from synclave_shared.privacy.several_sites import SEVERAL, epsilon_at_sites

__all__ = ["budget_document", "draw_budget"]

_DIGITS = 6
"""Epsilon is shown to six decimals; the accountant's own grid is coarser."""

_DIGEST_SHOWN = 12
"""Hex digits of a plan's digest: enough to tell a site's plans apart, and to name one to ``withdraw``."""


def budget_document(settings: SiteSettings, journal: Journal) -> dict[str, Any]:
    """The state of the site's budget as plain values; epsilons are at the budget's delta.

    Args:
        settings: the site's settings.
        journal: its journal, opened for reading.
    """
    delta = float(settings.budget.delta)
    mechanisms = journal.spent(settings.dataset)
    spent = epsilon(mechanisms, delta)
    committed = epsilon(journal.committed(settings.dataset), delta)
    several = {str(sites): epsilon_at_sites(mechanisms, delta, sites) for sites in SEVERAL}
    allowed = float(settings.budget.epsilon)
    return {
        "name": settings.name,
        "dataset": settings.dataset,
        "paused": settings.pause_file.exists(),
        "delta": delta,
        "epsilon": {
            "allowed": allowed,
            "spent": round(spent, _DIGITS),
            "left": round(max(0.0, allowed - spent), _DIGITS),
            "worst_case": round(committed, _DIGITS),
        },
        "spent_otherwise": {
            "replace_one": _rounded(epsilon_replace_one(mechanisms, delta)),
            "patient_at_sites": {sites: _rounded(at.visible) for sites, at in several.items()},
            "patient_at_sites_in_one_sum": {sites: _rounded(at.in_one_sum) for sites, at in several.items()},
        },
        "plans": [
            {
                "name": plan.name,
                "digest": plan.digest,
                "dataset": plan.dataset,
                "state": "closed" if plan.closed else "open",
                "accepted_at": plan.accepted_at,
                "rounds_reserved": plan.reserved_rounds,
                "rounds_released": plan.released_rounds,
                "rounds_to_come": len(plan.promised),
                "epsilon_spent": round(epsilon(plan.spent, delta), _DIGITS),
                "epsilon_worst_case": round(epsilon([*plan.spent, *plan.promised], delta), _DIGITS),
            }
            for plan in journal.plan_spends()
        ],
        "refusals": [
            {"plan": digest, "round": round_number, "refusal": refusal}
            for digest, round_number, refusal in journal.refusals()
        ],
    }


def _rounded(epsilon: float) -> float | None:
    value = finite(epsilon)
    return None if value is None else round(value, _DIGITS)


def _shown(epsilon: float | None) -> str:
    return "not computed" if epsilon is None else f"{epsilon:.4g}"


def draw_budget(out: Console, document: dict[str, Any]) -> None:
    """Print the document of :func:`budget_document` as tables."""
    total = document["epsilon"]
    out.print(
        f"Site [bold]{escape(document['name'])}[/bold], data set [bold]{escape(document['dataset'])}[/bold]"
        f"{' [red](paused)[/red]' if document['paused'] else ''}; epsilon at delta {document['delta']:g}, per patient"
    )
    summary = Table(show_header=False)
    summary.add_column(style="bold")
    summary.add_column(justify="right")
    summary.add_row("allowed", f"{total['allowed']:.4g}")
    summary.add_row("spent", f"{total['spent']:.4g}")
    summary.add_row("left", f"{total['left']:.4g}", style="green" if total["left"] > 0 else "red")
    summary.add_row("spent, if open plans run to their end", f"{total['worst_case']:.4g}")
    otherwise = document["spent_otherwise"]
    if total["spent"]:
        summary.add_row("spent, if one patient is replaced by another", _shown(otherwise["replace_one"]))
        for sites, value in otherwise["patient_at_sites"].items():
            summary.add_row(f"spent, of a patient at {sites} sites alike, every update seen", _shown(value))
        for sites, value in otherwise["patient_at_sites_in_one_sum"].items():
            summary.add_row(f"spent, of a patient at {sites} sites alike, in one secure sum", _shown(value))
    out.print(summary)
    if document["plans"]:
        plans = Table(title="Plans", title_justify="left", caption="Epsilons of plans compose; they do not add up.")
        plans.add_column("Plan", overflow="fold")
        plans.add_column("Digest", no_wrap=True)
        for heading in ("Data set", "State"):
            plans.add_column(heading, overflow="fold")
        for heading in ("Rounds", "Epsilon", "At most"):
            plans.add_column(heading, justify="right", no_wrap=True)
        for plan in document["plans"]:
            plans.add_row(
                escape(plan["name"]),
                plan["digest"][:_DIGEST_SHOWN],
                escape(plan["dataset"]),
                plan["state"],
                f"{plan['rounds_reserved']} of {plan['rounds_reserved'] + plan['rounds_to_come']}",
                *(f"{plan[key]:.4g}" for key in ("epsilon_spent", "epsilon_worst_case")),
            )
        out.print(plans)
    for refusal in document["refusals"]:
        place = "" if refusal["round"] is None else f", round {refusal['round']}"
        plan_shown = refusal["plan"][:_DIGEST_SHOWN]
        out.print(
            f"[yellow]refused[/yellow] plan {plan_shown}{place}: {REFUSAL_CODES[refusal['refusal']]}", soft_wrap=True
        )
