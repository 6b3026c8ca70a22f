"""``synclave-audit compare``."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit import compare as core
from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import JsonOption, say

__all__ = ["compare"]

HARMLESS = ("same", "first-extends", "second-extends")


def compare(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="A ledger: folder, file of `export`, or checkpoint.", show_default=False)
    ],
    second: Annotated[
        Path,
        typer.Argument(metavar="B", help="The other: folder, file of `export`, or checkpoint.", show_default=False),
    ],
    as_json: JsonOption = False,
) -> None:
    """Compare two copies of a ledger, or a copy and a checkpoint: the same, continued, cut short, or two histories.

    Exit code 0 if they agree, one may go on where the other stops; 1 if they do not.
    """
    comparison = core.compare(_load(first), _load(second))
    if as_json:
        frame.print_json(asdict(comparison))
    else:
        _draw(comparison)
    if comparison.relation not in HARMLESS:
        raise typer.Exit(frame.EXIT_ERROR)


def _load(path: Path) -> core.Copy:
    if path.is_file():
        with path.open("rb") as file:
            # A tar archive begins with the name of its first file, padded with zeros; a checkpoint is text.
            begins = file.read(512)
        if b"\0" not in begins:
            return core.of_note(core.load_note(path))
    with contextlib.ExitStack() as stack:
        return core.load_copy(stack.enter_context(opened(path)))


def _draw(comparison: core.Comparison) -> None:
    harmless = comparison.relation in HARMLESS
    say(f"{comparison.relation.upper()}: {comparison.explanation}", "bold green" if harmless else "bold red")
    say(f"A has {comparison.first_size} entries, B has {comparison.second_size}.")
    if comparison.first_difference is not None:
        only = "is the first that only one of them has" if harmless or comparison.relation == "truncated" else "differs"
        say(f"Entry {comparison.first_difference} {only}.")
    names = ("A", "B")
    for name, signed, cosigners in zip(names, comparison.signed, comparison.cosigners, strict=True):
        by = "signed by the coordinator's key" if signed else "not signed by the coordinator's key"
        say(f"Checkpoint of {name}: {by}; co-signed by {', '.join(cosigners) or 'nobody'}.")
    if comparison.coordinator_key:
        say(f"Coordinator: {comparison.coordinator_key}. Compare with the key you know.")
    if comparison.relation == "fork" and all(comparison.signed):
        say("The coordinator signed both histories. Keep both files: together they prove it.", "bold red")
