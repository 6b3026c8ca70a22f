"""``synclave-audit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit import console as frame
from synclave_shared.audit.commands.arguments import (
    CoordinatorKeysOption,
    JsonOption,
    LedgersArgument,
    SeenOption,
    SiteKeyOption,
    ledgers_of,
    say,
)
from synclave_shared.audit.report.facts import gather, verdict
from synclave_shared.audit.report.page import write_report

__all__ = ["report"]


def report(
    ledger: LedgersArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.", show_default=False)],
    as_json: JsonOption = False,
    coordinator_key: CoordinatorKeysOption = None,
    site_key: SiteKeyOption = None,
    seen: SeenOption = None,
) -> None:
    """Write a report for a data-protection officer, and its numbers as JSON; several ledgers make one report.

    Exit code 0 valid, 1 not valid.
    """
    ledgers = ledgers_of(ledger, coordinator_key, site_key, seen)
    facts = gather(ledgers)
    written = write_report(facts, out)
    if as_json:
        files = [str(path) for path in written]
        frame.print_json({"valid": ledgers.valid, "verdict": verdict(facts), "files": files})
    else:
        say(verdict(facts), "bold green" if ledgers.valid else "bold red")
        for path in written:
            say(f"Written: {path}")
    if not ledgers.valid:
        raise typer.Exit(frame.EXIT_ERROR)
