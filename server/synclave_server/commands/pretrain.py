"""``synclave pretrain``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from synclave_server.commands.arguments import NetworkPrecision, screen
from synclave_shared.audit.console import JsonOption, show

__all__ = ["pretrain"]


class Corruption(StrEnum):
    """What training hides of a patient."""

    GAUSSIAN = "gaussian"
    MASKED = "masked"


def pretrain(
    schema: Annotated[Path, typer.Option(help="Schema (TOML).", metavar="S.toml")],
    data: Annotated[Path, typer.Option(help="Public patients: a file or a folder of tables.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="New folder for the model.", metavar="DIR")],
    corruption: Annotated[
        Corruption | None, typer.Option(help="Codes: what training hides of a patient (default: gaussian).")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(min=0, max=4096, help="Width of the residual tower, 0: none; or of the clinical model."),
    ] = None,
    blocks: Annotated[int | None, typer.Option(min=1, max=16, help="Blocks of either.")] = None,
    coupled_columns: Annotated[
        int | None,
        typer.Option(min=0, max=4096, help="Codes: most prevalent columns that are coupled in pairs; 0: none."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Series: the clinical model, such as logistic, gru or transformer.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000_000, help="Optimiser steps (default: 4000; of a clinical model 600; of notes 2000)."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2**20, help="Patients of a step (default: 512; of notes 32).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Fixes all randomness.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[
        NetworkPrecision, typer.Option(help="What the network computes in; bfloat16 is faster on most GPUs.")
    ] = NetworkPrecision.FLOAT32,
    as_json: JsonOption = False,
) -> None:
    """Train a model on public patients WITHOUT privacy, for the warm start of a plan.

    Of notes it is the embedded language model. Of time series it is a clinical model, which may be trained on synthetic
    patients to see at the sites what they teach. Never give it patients of the sites: what it learns of them no later
    noise takes back.
    """
    from synclave_server.pretrain_view import run_pretrain

    document = run_pretrain(
        schema,
        data,
        out=out,
        network={
            "corruption": None if corruption is None else corruption.value,
            "coupled_columns": coupled_columns,
            "architecture": architecture,
            "width": width,
            "blocks": blocks,
        },
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision.value,
        console=screen(as_json),
    )
    show(
        document,
        as_json,
        lambda console: console.print(
            f"{document['parameters']:,} parameters from {document['training']['patients']:,} patients, loss"
            f" {document['loss']:.3f} nats, {document['steps_per_second']:.1f} steps per second:"
            f" {escape(document['out'])}",
            soft_wrap=True,
        ),
    )
