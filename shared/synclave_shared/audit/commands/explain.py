"""``synclave-audit explain``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from synclave_shared.audit import console as frame
from synclave_shared.audit import explain as core
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import JsonOption, LedgerArgument, say
from synclave_shared.audit.reading import read_ledger

__all__ = ["explain"]


def explain(
    ledger: LedgerArgument,
    index: Annotated[
        int, typer.Argument(metavar="N", min=0, help="Which entry, as `show` numbers them.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Explain one entry in plain words: who did what, what it means for patients, and what it was checked against."""
    with opened(ledger) as folder:
        explanation = core.explain(read_ledger(folder), index)
    if as_json:
        frame.print_json({**asdict(explanation), "rules": [list(rule) for rule in explanation.rules]})
        return
    say(f"Entry {explanation.entry}, {explanation.kind}, {explanation.time}", "bold")
    for label, text in (
        ("Who", explanation.who),
        ("What", explanation.what),
        ("Plan", explanation.plan),
        ("For patients", explanation.patients),
    ):
        if text:
            say(f"{label}: {text}")
    say("Checked:")
    for title, holds in explanation.rules:
        say(f"  {'holds ' if holds else 'BROKEN'}  {title}", "" if holds else "bold red")
    for finding, remedy in zip(explanation.findings, explanation.remedies, strict=True):
        say(f"{finding.severity}: {finding.explanation} [{finding.code}]", "red")
        say(f"  {remedy}")
    say(f"Leaf hash: {explanation.leaf}")
