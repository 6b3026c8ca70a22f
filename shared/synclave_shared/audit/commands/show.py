"""``synclave-audit show``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import JsonOption, LedgerArgument, row
from synclave_shared.audit.words import describe
from synclave_shared.ledger.entry import parse_entry
from synclave_shared.ledger.store import Ledger

__all__ = ["show"]


def show(ledger: LedgerArgument, as_json: JsonOption = False) -> None:
    """List the entries of a ledger. Checks no signature; `verify` does."""
    with opened(ledger) as folder:
        copy = Ledger.open(folder)
        entries = [parse_entry(copy.entry(index)) for index in range(copy.size)]
    if as_json:
        frame.print_json(
            {
                "origin": copy.origin,
                "size": copy.size,
                "root": copy.root,
                "entries": [entry.model_dump(mode="json") for entry in entries],
            }
        )
        return
    table = Table("index", "time (UTC)", "actor", "kind", "what", title=Text(f"{copy.origin}, {copy.size} entries"))
    for index, entry in enumerate(entries):
        row(table, str(index), entry.time, entry.actor, entry.kind, describe(entry))
    Console().print(table)
