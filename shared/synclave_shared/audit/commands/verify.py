"""``synclave-audit verify``."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import (
    CoordinatorKeysOption,
    JsonOption,
    LedgersArgument,
    SeenOption,
    SiteKeyOption,
    ledgers_of,
    notes_of,
    row,
    say,
    say_of_all,
    scope,
    show_table,
    site_keys_of,
)
from synclave_shared.audit.documents import entries_document, ledgers_document
from synclave_shared.audit.histories import History
from synclave_shared.audit.ledgers import Ledgers, verdicts
from synclave_shared.audit.words import number, small
from synclave_shared.canonical import finite
from synclave_shared.ledger.replay import Replay
from synclave_shared.ledger.verify import SiteReport, Verification, VerifyReport
from synclave_shared.privacy.tally import spent

__all__ = ["verify"]


def verify(
    ledger: LedgersArgument,
    as_json: JsonOption = False,
    coordinator_key: CoordinatorKeysOption = None,
    site_key: SiteKeyOption = None,
    seen: SeenOption = None,
) -> None:
    """Verify every file, signature and rule of a ledger, and recompute epsilon. Exit code 0 valid, 1 not valid.

    Several ledgers are verified one by one, and epsilon of each data set over all of them.
    """
    pinned = coordinator_key is not None
    if len(ledger) == 1:
        # Without what only the other views show: a million entries fit into half a gigabyte.
        with opened(ledger[0]) as folder:
            read = Verification(folder, Replay)
            (one,) = verdicts([read], coordinator_key or (), site_keys_of(site_key), notes_of(seen))
        valid = one.report.valid
        if as_json:
            frame.print_json(one.report.to_json())
        else:
            _draw(one.report, pinned=pinned)
            if one.report.sites:
                say(scope(1))
    else:
        ledgers = ledgers_of(ledger, coordinator_key, site_key, seen)
        valid = ledgers.valid
        if as_json:
            frame.print_json(_document(ledgers))
        else:
            for reading in ledgers.readings:
                _draw(reading.report, pinned=pinned)
            _draw_all(ledgers)
    if not valid:
        raise typer.Exit(frame.EXIT_ERROR)


def _document(ledgers: Ledgers) -> dict[str, Any]:
    document = ledgers_document(ledgers)
    for described, reading in zip(document["ledgers"], ledgers.readings, strict=True):
        described |= reading.report.to_json()
    together = [
        {
            "site": history.site,
            "dataset": history.dataset,
            "epsilon": finite(_epsilon(history)),
            "delta": history.delta,
            "budget_epsilon": float(history.budgets[-1].budget.epsilon) if history.budgets else None,
            "entries": entries_document(history.entries),
        }
        for history in ledgers.histories
    ]
    return {**document, "over_all": together}


def _epsilon(history: History) -> float:
    return spent(history.mechanisms, history.delta)


def _draw_all(ledgers: Ledgers) -> None:
    """What holds over all of several ledgers."""
    verdict, style = ("VALID", "bold green") if ledgers.valid else ("NOT VALID", "bold red")
    say(f"{verdict}  {len(ledgers.readings)} ledgers together", style)
    say_of_all(ledgers)
    table = Table("site", "data set", "ledgers", "spends", "epsilon over all", "budget", "delta")
    for history in ledgers.histories:
        numbers = ", ".join(str(each) for each in history.ledgers)
        budget = f"{history.budgets[-1].budget.epsilon:f}" if history.budgets else "-"
        cells = (str(len(history.entries)), number(_epsilon(history)), budget, small(history.delta))
        row(table, history.site, history.dataset, numbers, *cells)
    if ledgers.histories:
        show_table(table)
        say(scope(len(ledgers.readings)))


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
