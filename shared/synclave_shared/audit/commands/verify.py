"""``synclave-audit verify``."""

from __future__ import annotations

import typer
from rich.table import Table

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import (
    ONE_LEDGER,
    CoordinatorKeyOption,
    JsonOption,
    LedgerArgument,
    SeenOption,
    SiteKeyOption,
    notes_of,
    row,
    say,
    show_table,
    site_keys_of,
)
from synclave_shared.ledger.verify import SiteReport, VerifyReport, verify_ledger

__all__ = ["verify"]


def verify(
    ledger: LedgerArgument,
    as_json: JsonOption = False,
    coordinator_key: CoordinatorKeyOption = None,
    site_key: SiteKeyOption = None,
    seen: SeenOption = None,
) -> None:
    """Verify every file, signature and rule of a ledger, and recompute epsilon. Exit code 0 valid, 1 not valid."""
    with opened(ledger) as folder:
        report = verify_ledger(
            folder, coordinator_key=coordinator_key, site_keys=site_keys_of(site_key), seen=notes_of(seen)
        )
    if as_json:
        frame.print_json(report.to_json())
    else:
        _draw(report, pinned=coordinator_key is not None)
    if not report.valid:
        raise typer.Exit(frame.EXIT_ERROR)


def _draw(report: VerifyReport, *, pinned: bool) -> None:
    verdict, style = ("VALID", "bold green") if report.valid else ("NOT VALID", "bold red")
    say(f"{verdict}  {report.origin}, {report.size} entries, root {report.root[:16]}", style)
    for finding in report.findings:
        place = finding.file or ("ledger" if finding.entry is None else f"entry {finding.entry}")
        style = "red" if finding.severity == "error" else "yellow"
        say(f"{finding.severity}: {place}: {finding.explanation} [{finding.code}]", style)
    for plan in report.plans:
        state = "closed" if plan.closed else "open"
        say(f"Plan {plan.name} {plan.digest[:16]}: {plan.rounds_combined} rounds combined, {state}")
    table = Table("site", "data set", "epsilon here", "budget", "delta", "by Rényi", "spends", "co-signed to")
    for name, site in report.sites.items():
        row(table, name, *_cells(site))
    if report.sites:
        show_table(table)
        say(ONE_LEDGER)
    for name, site in report.sites.items():
        together = f"; epsilon {site.epsilon_all_datasets:.4f} over its {len(site.datasets)} data sets together"
        say(f"Site {name}: key {site.public_key or '-'}{together if len(site.datasets) > 1 else ''}")
    if report.coordinator_key and not pinned:
        say(f"Coordinator: {report.coordinator_key}. Compare with the key you know, or give --coordinator-key.")


def _cells(site: SiteReport) -> tuple[str, ...]:
    return (
        site.dataset or "-",
        f"{site.epsilon:.4f}",
        "-" if site.budget_epsilon is None else f"{site.budget_epsilon:g}",
        "-" if site.delta is None else f"{site.delta:g}",
        f"{site.epsilon_rdp:.4f}",
        str(site.spends),
        "-" if site.witnessed_size is None else str(site.witnessed_size),
    )
