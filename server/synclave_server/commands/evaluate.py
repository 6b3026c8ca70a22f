"""``synclave evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_server.commands.arguments import pairs_of, screen
from synclave_shared.audit.console import JsonOption, show

__all__ = ["evaluate"]


def evaluate(
    schema: Annotated[Path, typer.Option(help="Schema (TOML).", metavar="S.toml")],
    real: Annotated[
        list[Path],
        typer.Option(help="Held-out real patients: a file or a folder of tables; repeat for several.", metavar="FILE"),
    ],
    synthetic: Annotated[Path, typer.Option(help="Synthetic patients: a file or a folder.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and report.html.", metavar="DIR")],
    train: Annotated[
        list[Path] | None,
        typer.Option(help="Real training patients, where they may be seen; repeat for several.", metavar="FILE"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder: adds epsilon and provenance.", metavar="DIR")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A column to predict from the others; repeat. Default: six common ones.", metavar="FIELD:VALUE"
        ),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Held-out real patients of one site: adds the measures there; repeat.", metavar="NAME=FILE"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of splits and downstream models.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare synthetic with real patients; writes metrics.json and a self-contained report.html."""
    from synclave_server.evaluate_view import draw_evaluation, run_evaluation

    sites = {name: Path(value) for name, value in pairs_of(site, "--site NAME=FILE").items()}
    document = run_evaluation(
        schema,
        real,
        synthetic,
        train or [],
        run,
        out=out,
        seed=seed,
        targets=target or [],
        sites=sites,
        console=screen(as_json),
    )
    show(document, as_json, lambda console: draw_evaluation(document, console))
