"""Arguments and options that several commands take, and how text is written for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from synclave_shared.audit import console as frame
from synclave_shared.audit.compare import load_note
from synclave_shared.audit.console import JsonOption
from synclave_shared.errors import ConfigurationError
from synclave_shared.ledger.checkpoint import Note

__all__ = [
    "ONE_LEDGER",
    "CoordinatorKeyOption",
    "JsonOption",
    "LedgerArgument",
    "SeenOption",
    "SiteKeyOption",
    "notes_of",
    "row",
    "say",
    "show_table",
    "site_keys_of",
]

ONE_LEDGER: Final = (
    "Epsilon is of this ledger alone. A budget spans all trainings of a data set: the site's journal has the rest"
    " (`synclave-site budget`)."
)
"""Said wherever a spend stands beside a budget."""

LedgerArgument = Annotated[
    Path,
    typer.Argument(metavar="LEDGER", help="The ledger: a folder, or a file of `export`.", show_default=False),
]
CoordinatorKeyOption = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="The coordinator's public key as you know it from elsewhere (base64)."),
]
SiteKeyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=KEY", help="A site's public key as you know it from the site itself; repeat."),
]
SeenOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="NOTE_FILE", help="A checkpoint that a site kept, from `synclave-site checkpoint`; repeat."),
]


def site_keys_of(texts: list[str] | None) -> dict[str, str]:
    """Read ``--site-key`` options.

    Raises:
        ConfigurationError: if one is not NAME=KEY, or a name has two keys.
    """
    keys: dict[str, str] = {}
    for text in texts or []:
        name, separator, key = text.partition("=")
        if not separator or not name or keys.setdefault(name, key) != key:
            raise ConfigurationError(
                expected="each site once, as NAME=KEY", found=text, remedy="Ask the site: `synclave-site init` told it."
            )
    return keys


def notes_of(paths: list[Path] | None) -> list[Note]:
    """Read ``--seen`` options.

    Raises:
        LedgerError: if one is no checkpoint.
    """
    return [load_note(path) for path in paths or []]


def say(line: str, style: str = "") -> None:
    """Print a line as plain text: a ledger is written by others, and nothing in it is markup."""
    Console().print(Text(frame.printable(line), style=style), soft_wrap=True)


def row(table: Table, *cells: str) -> None:
    """Add cells to a table as plain text."""
    table.add_row(*(Text(frame.printable(cell)) for cell in cells))


def show_table(table: Table) -> None:
    """Print a table in which long names are folded, never cut off."""
    for column in table.columns:
        column.overflow = "fold"
    Console().print(table)
