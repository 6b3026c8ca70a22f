"""``synclave scores``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit.console import JsonOption, show

__all__ = ["scores"]


def scores(
    snapshot: Annotated[
        list[str],
        typer.Option(
            help="Snapshot of a run of kind scores, perhaps with a name; repeat to compare.", metavar="[NAME=]DIR"
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for scores.json and scores.html.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Show how well clinical models predict the sites' patients, from the noisy counts that the sites told."""
    from synclave_server.scores_view import draw_scores, run_scores

    document = run_scores(snapshot, out=out)
    show(document, as_json, lambda console: draw_scores(document, console))
