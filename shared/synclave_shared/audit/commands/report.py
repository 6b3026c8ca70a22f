"""``synclave-audit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import (
    CoordinatorKeyOption,
    JsonOption,
    LedgerArgument,
    SeenOption,
    SiteKeyOption,
    notes_of,
    say,
    site_keys_of,
)
from synclave_shared.audit.reading import read_ledger
from synclave_shared.audit.report.facts import gather, verdict
from synclave_shared.audit.report.page import write_report

__all__ = ["report"]


def report(
    ledger: LedgerArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.", show_default=False)],
    as_json: JsonOption = False,
    coordinator_key: CoordinatorKeyOption = None,
    site_key: SiteKeyOption = None,
    seen: SeenOption = None,
) -> None:
    """Write a report for a data-protection officer, and its numbers as JSON. Exit code 0 valid, 1 not valid."""
    keys, notes = site_keys_of(site_key), notes_of(seen)
    with opened(ledger) as folder:
        reading = read_ledger(folder, coordinator_key=coordinator_key, site_keys=keys, seen=notes)
    facts = gather(reading)
    written = write_report(facts, out)
    if as_json:
        document = {"valid": reading.report.valid, "verdict": verdict(facts), "files": [str(path) for path in written]}
        frame.print_json(document)
    else:
        say(verdict(facts), "bold green" if reading.report.valid else "bold red")
        for path in written:
            say(f"Written: {path}")
    if not reading.report.valid:
        raise typer.Exit(frame.EXIT_ERROR)
