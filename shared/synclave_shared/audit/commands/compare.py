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
from synclave_shared.audit.commands.arguments import CoordinatorKeyOption, JsonOption, say

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
    coordinator_key: CoordinatorKeyOption = None,
) -> None:
    """Compare two copies of a ledger, or a copy and a checkpoint: the same, continued, cut short, or two histories.

    Exit code 0 if they agree, one may go on where the other stops; 1 if they do not.
    """
    comparison = core.compare(_load(first), _load(second), coordinator_key)
    if as_json:
        frame.print_json({**asdict(comparison), "two_coordinators": comparison.two_coordinators})
    else:
        _draw(comparison, pinned=coordinator_key is not None)
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


def _draw(comparison: core.Comparison, *, pinned: bool) -> None:
    harmless = comparison.relation in HARMLESS
    say(f"{comparison.relation.upper()}: {comparison.explanation}", "bold green" if harmless else "bold red")
    say(f"A has {comparison.first_size} entries, B has {comparison.second_size}.")
    if comparison.first_difference is not None:
        only = "is the first that only one of them has" if harmless or comparison.relation == "truncated" else "differs"
        say(f"Entry {comparison.first_difference} {only}.")
    sides = zip("AB", comparison.coordinator_keys, comparison.signed, comparison.cosigners, strict=True)
    for name, key, signed, cosigners in sides:
        by = f"{'signed' if signed else 'not signed'} by {key}" if key else "signed by nobody known"
        say(f"Checkpoint of {name}: {by}; co-signed by {', '.join(cosigners) or 'nobody whose signature verifies'}.")
    if comparison.two_coordinators:
        say("Two coordinators: each ledger names another key. Compare both with the key you know.", "bold red")
    elif not pinned and any(comparison.coordinator_keys):
        say("Compare the coordinator's key with the one you know, or give --coordinator-key.")
    if comparison.relation == "fork" and all(comparison.signed) and not comparison.two_coordinators:
        say("The coordinator signed both histories. Keep both files: together they prove it.", "bold red")
