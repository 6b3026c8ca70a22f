"""``synclave-audit export``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened, write_archive
from synclave_shared.audit.commands.arguments import JsonOption, LedgerArgument, say
from synclave_shared.audit.ledgers import read_ledgers
from synclave_shared.audit.spends import Account, accounts
from synclave_shared.errors import ConfigurationError

__all__ = ["export"]

COLUMNS = ("site", "dataset", "delta", "budget", "entry", "plan", "round", "epsilon", "epsilon_rdp")


def export(
    ledger: LedgerArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new file, a tar archive.", show_default=False)],
    spends: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also a CSV of epsilon after each reservation.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a ledger into one file, which every command reads; the same ledger always gives the same bytes."""
    with opened(ledger) as folder:
        if spends is not None and spends.exists():
            raise ConfigurationError(
                expected="a name for a new file", found=f"{spends} exists", remedy="Remove it, or choose another name."
            )
        digest = write_archive(folder, out)
        if spends is not None:
            _write_csv(spends, accounts(read_ledgers([folder])))
    if as_json:
        frame.print_json({"file": str(out), "sha256": digest, "spends": str(spends) if spends else None})
        return
    say(f"Written: {out}")
    say(f"SHA-256: {digest}")
    if spends is not None:
        say(f"Written: {spends}")


def _write_csv(path: Path, found: list[Account]) -> None:
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for account in found:
            budget = "" if account.budget is None else f"{account.budget:g}"
            for point in account.course:
                own = (_inert(account.site), _inert(account.dataset), f"{account.delta:g}", budget)
                after = (f"{point.epsilon:.6f}", f"{point.epsilon_rdp:.6f}")
                writer.writerow([*own, point.entry.entry, point.plan_digest, point.round, *after])


def _inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: a site chooses the names of its data sets."""
    plain = frame.printable(text)
    return f"'{plain}" if plain[:1] in ("=", "+", "-", "@") else plain
