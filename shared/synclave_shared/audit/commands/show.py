"""``synclave-audit show``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import JsonOption, LedgerArgument, row
from synclave_shared.audit.compare import load_copy
from synclave_shared.audit.words import describe
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import parse_entry

__all__ = ["show"]


def show(ledger: LedgerArgument, as_json: JsonOption = False) -> None:
    """List the entries of a ledger. Checks no signature; `verify` does."""
    with opened(ledger) as folder:
        copy = load_copy(folder)
    if copy.entries is None or not copy.sound:
        raise LedgerError(
            expected=f"{copy.size} entries with the root of the checkpoint",
            found="other entries, or not all",
            remedy="Run `synclave-audit verify` to see what was changed; ask for the ledger again.",
        )
    entries = [parse_entry(content) for content in copy.entries]
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
