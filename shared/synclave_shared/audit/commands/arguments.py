"""Arguments and options that several commands take, and how text is written for a person."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.compare import load_note
from synclave_shared.audit.console import JsonOption
from synclave_shared.audit.ledgers import Ledgers, read_ledgers
from synclave_shared.errors import ConfigurationError
from synclave_shared.ledger.checkpoint import Note

__all__ = [
    "CoordinatorKeyOption",
    "CoordinatorKeysOption",
    "JsonOption",
    "LedgerArgument",
    "LedgersArgument",
    "SeenOption",
    "SiteKeyOption",
    "ledgers_of",
    "notes_of",
    "row",
    "say",
    "say_of_all",
    "scope",
    "show_table",
    "site_keys_of",
]

LedgerArgument = Annotated[
    Path,
    typer.Argument(metavar="LEDGER", help="The ledger: a folder, or a file of `export`.", show_default=False),
]
LedgersArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="LEDGER...",
        help="The ledger, a folder or a file of `export`; or several, whose spends are then composed.",
        show_default=False,
    ),
]
CoordinatorKeyOption = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="The coordinator's public key as you know it from elsewhere (base64)."),
]
CoordinatorKeysOption = Annotated[
    list[str] | None,
    typer.Option(
        "--coordinator-key",
        metavar="KEY",
        help="The coordinator's public key as you know it from elsewhere (base64); repeat for ledgers of several.",
    ),
]
SiteKeyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=KEY",
        help="A site's public key as you know it from the site itself; repeat. Two keys for one name are one site's.",
    ),
]
SeenOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="NOTE_FILE", help="A checkpoint that a site kept, from `synclave-site checkpoint`; repeat."),
]


def site_keys_of(texts: list[str] | None) -> dict[str, tuple[str, ...]]:
    """Read ``--site-key`` options; a site that replaced its key may have several.

    Raises:
        ConfigurationError: if one is not NAME=KEY.
    """
    keys: dict[str, tuple[str, ...]] = {}
    for text in texts or []:
        name, separator, key = text.partition("=")
        if not separator or not name:
            raise ConfigurationError(
                expected="NAME=KEY", found=text, remedy="Ask the site: `synclave-site init` told its key."
            )
        keys[name] = (*keys.get(name, ()), key)
    return keys


def notes_of(paths: list[Path] | None) -> list[Note]:
    """Read ``--seen`` options.

    Raises:
        LedgerError: if one is no checkpoint.
    """
    return [load_note(path) for path in paths or []]


def ledgers_of(
    paths: list[Path],
    coordinator_keys: list[str] | None = None,
    site_keys: list[str] | None = None,
    seen: list[Path] | None = None,
) -> Ledgers:
    """Verify and read what the options name; an archive is unpacked for that time alone.

    Raises:
        LedgerError: if one is no ledger or no checkpoint.
        ConfigurationError: if an option cannot be understood.
    """
    keys, notes = site_keys_of(site_keys), notes_of(seen)
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(opened(path)) for path in paths]
        return read_ledgers(folders, coordinator_keys=coordinator_keys or (), site_keys=keys, seen=notes)


def scope(ledgers: int) -> str:
    """In how many ledgers a number was counted; said wherever a spend stands beside a budget."""
    of = "this ledger" if ledgers == 1 else f"these {ledgers} ledgers"
    return (
        f"Epsilon is of {of} alone. A budget spans all trainings of a data set: the site's journal has the rest"
        " (`synclave-site budget`)."
    )


def say_of_all(ledgers: Ledgers) -> None:
    """Which ledgers these are, what was given twice, and what is wrong over all of them."""
    for reading in ledgers.readings:
        if reading.number:
            verdict, style = ("valid", "") if reading.report.valid else ("NOT VALID by itself", "bold red")
            names = ", ".join(plan.name for plan in reading.report.plans) or "no plan"
            size = reading.report.size
            say(f"Ledger {reading.number}: {reading.report.origin}, {size} entries, {names}: {verdict}", style)
    for each in ledgers.repeats:
        say(f"Ledger {each.number}: {each.size} entries that ledger {each.of} holds as well; counted once")
    for found in ledgers.findings:
        finding = found.finding
        place = "" if finding.entry is None else f"entry {finding.entry} of ledger {found.ledger}: "
        style = "red" if finding.severity == "error" else "yellow"
        say(f"{finding.severity}: {place}{finding.explanation} [{finding.code}]", style)


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
