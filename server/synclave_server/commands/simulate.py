"""``synclave simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from synclave_server.commands.arguments import epsilon_of, pairs_of, screen
from synclave_shared.audit.console import JsonOption, show

__all__ = ["simulate"]


def simulate(
    plan: Annotated[Path, typer.Argument(help="Plan file.", metavar="PLAN.toml")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it is resumed.", metavar="DIR")],
    site: Annotated[
        list[str], typer.Option(help="A site's data folder; one or more after it, or repeat.", metavar="NAME=DIR")
    ],
    more_sites: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget (epsilon) of every site (default: what the plan spends).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Gateways that Ray runs at a time.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train on this machine with many sites, by the same apps in Flower's simulation engine."""
    from synclave_server.simulate import run_simulation

    folders = {name: Path(value) for name, value in pairs_of([*site, *(more_sites or [])], "--site NAME=DIR").items()}
    document = run_simulation(
        plan, folders, out=out, budget=epsilon_of(budget, "--budget"), workers=workers, console=screen(as_json)
    )

    def draw(console: Console) -> None:
        console.print(f"Snapshot: {escape(document['snapshot'])}", soft_wrap=True)
        console.print(f"Ledger:   {escape(document['ledger'])}  (synclave-audit verify)", soft_wrap=True)

    show(document, as_json, draw)
