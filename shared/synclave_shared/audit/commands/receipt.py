"""``synclave-audit receipt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit import console as frame
from synclave_shared.audit.commands.arguments import CoordinatorKeyOption, JsonOption, say
from synclave_shared.audit.rules import remedy_of
from synclave_shared.audit.words import describe
from synclave_shared.ledger.receipt import MAX_RECEIPT_BYTES, ReceiptReport, check_receipt

__all__ = ["receipt"]


def receipt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt that a site kept.", show_default=False)],
    as_json: JsonOption = False,
    coordinator_key: CoordinatorKeyOption = None,
    site_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Public key of the one who signed the entry, as you know it (base64)."),
    ] = None,
) -> None:
    """Verify a receipt offline: that the coordinator signed a ledger with this entry in it. Exit code 0 or 1."""
    with file.open("rb") as opened:
        report = check_receipt(opened.read(MAX_RECEIPT_BYTES + 1), coordinator_key=coordinator_key, site_key=site_key)
    if as_json:
        frame.print_json(_document(report))
    else:
        _draw(report, pinned=coordinator_key is not None)
    if not report.valid:
        raise typer.Exit(frame.EXIT_ERROR)


def _document(report: ReceiptReport) -> dict[str, object]:
    checkpoint = report.checkpoint
    return {
        "valid": report.valid,
        "findings": [{"code": finding.code, "explanation": finding.explanation} for finding in report.findings],
        "index": report.index,
        "entry": report.entry.model_dump(mode="json") if report.entry else None,
        "origin": checkpoint.origin if checkpoint else None,
        "size": checkpoint.size if checkpoint else None,
        "root": checkpoint.root.hex() if checkpoint else None,
        "coordinator_key": report.coordinator_key,
    }


def _draw(report: ReceiptReport, *, pinned: bool) -> None:
    say("VALID receipt" if report.valid else "NOT VALID receipt", "bold green" if report.valid else "bold red")
    for finding in report.findings:
        say(f"error: {finding.explanation} [{finding.code}]", "red")
        say(f"  {remedy_of(finding.code)}")
    if report.entry:
        say(f"Entry {report.index}: {report.entry.actor}, {report.entry.kind}, {report.entry.time}")
        say(f"  {describe(report.entry)}")
        say(f"  signed with key {report.entry.key}")
    if report.checkpoint and report.valid:
        origin, size = report.checkpoint.origin, report.checkpoint.size
        say(f"The coordinator signed that {origin} holds it at this place when it had {size} entries.")
        say("A ledger of that many entries or more without it contradicts the coordinator's own signature.")
    if report.coordinator_key and not pinned:
        say(f"Coordinator: {report.coordinator_key}. Compare with the key you know, or give --coordinator-key.")
