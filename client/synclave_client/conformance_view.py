"""What ``synclave-site conformance`` tells a data steward: what each training really did, check by check."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_client.settings import SiteSettings
from synclave_client.training.conformance_checks import FALSE_ALARM, NOTHING
from synclave_client.vault.conformance import ConformanceFolder, RoundReport
from synclave_shared.errors import ConfigurationError

__all__ = ["conformance_document", "draw_conformance"]

_DIGEST_SHOWN = 12


def conformance_document(settings: SiteSettings, folder: ConformanceFolder, plan: str) -> dict[str, Any]:
    """The reports as plain values.

    Args:
        settings: the site's settings.
        folder: its record.
        plan: digest of one plan, or its beginning; empty: all.

    Raises:
        ConfigurationError: if a plan is named and there is none, or several.
        JournalError: if a report cannot be read.
    """
    digests = [digest for digest in folder.plans() if digest.startswith(plan)]
    if plan and len(digests) != 1:
        raise ConfigurationError(
            expected="the digest of one plan of which this site has trained a round",
            found=f"{plan}, which fits {len(digests)}",
            remedy="`synclave-site conformance` lists them.",
        )
    return {
        "name": settings.name,
        "false_alarm_probability": FALSE_ALARM,
        "plans": [_plan(folder.reports(digest)) for digest in digests],
    }


def _plan(reports: list[RoundReport]) -> dict[str, Any]:
    return {
        "name": reports[0].plan_name,
        "digest": reports[0].plan,
        "passed": all(report.passed for report in reports),
        "rounds": [
            {
                "round": report.round,
                "time": report.time,
                "passed": report.passed,
                "steps": report.evidence.steps,
                "checks": [
                    {name: _finite(value) for name, value in check.model_dump().items()} for check in report.checks
                ],
            }
            for report in reports
        ],
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw_conformance(out: Console, document: dict[str, Any]) -> None:
    """Print each plan's verdict, and the checks of its newest round."""
    if not document["plans"]:
        out.print(f"Site {escape(document['name'])} has trained no round that was watched.")
    for plan in document["plans"]:
        newest = plan["rounds"][-1]
        out.print(
            f"Plan [bold]{escape(plan['name'])}[/bold] {plan['digest'][:_DIGEST_SHOWN]}, {len(plan['rounds'])} rounds"
            f" watched: {_verdict(plan['passed'])}",
            soft_wrap=True,
        )
        table = Table(title=f"Round {newest['round']}, and all rounds up to it", title_justify="left")
        table.add_column("Check", overflow="fold")
        for heading in ("Expected", "Round", "All rounds"):
            table.add_column(heading, overflow="fold")
        table.add_column("Conforms")
        for name in dict.fromkeys(check["name"] for check in newest["checks"]):
            scopes = {check["scope"]: check for check in newest["checks"] if check["name"] == name}
            table.add_row(
                name,
                scopes["round"]["expected"],
                *(_found(scopes.get(scope)) for scope in ("round", "plan")),
                "[green]yes[/green]"
                if all(check["passed"] for check in scopes.values())
                else "[bold red]NO[/bold red]",
            )
        out.print(table)
    out.print(
        f"A training that does what its plan says is stopped with probability {document['false_alarm_probability']:g}"
        " at most. This is patient-derived: it stays at the site."
    )


def _found(check: dict[str, Any] | None) -> str:
    if check is None:
        return ""
    if check["deviation"] is not None and check["found"] != NOTHING:
        return f"{check['found']} (z {check['deviation']:+.1f})"
    if check["probability"] is not None and check["found"] != NOTHING:
        return f"{check['found']} (p {check['probability']:.1g})"
    return str(check["found"])


def _verdict(passed: bool) -> str:
    return "[green]conforms[/green]" if passed else "[bold red]DOES NOT CONFORM[/bold red]"
