"""``synclave demo``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synclave_server.commands.arguments import epsilon_of, screen
from synclave_shared.audit.console import JsonOption, show

__all__ = ["demo"]


class Modality(StrEnum):
    """Kinds of data the demo knows."""

    CODES = "codes"
    SERIES = "series"


def demo(
    modality: Annotated[Modality, typer.Option(help="Kind of data.")] = Modality.CODES,
    out: Annotated[
        Path | None, typer.Option(help="New folder for everything (default: synclave-demo/<time>).", metavar="DIR")
    ] = None,
    epsilon: Annotated[str | None, typer.Option(help="Privacy budget of each hospital (default: the plan's).")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=1000, help="Training rounds (default: the plan's).")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of sampling and evaluation.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Four hospitals on this machine train together on embedded real data; then sample, evaluate and audit."""
    from synclave_server.demo import draw_demo, run_demo

    target = epsilon_of(epsilon, "--epsilon")
    document = run_demo(modality.value, out=out, epsilon=target, rounds=rounds, seed=seed, console=screen(as_json))
    show(document, as_json, lambda console: draw_demo(document, console))
