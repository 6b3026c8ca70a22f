"""``synclave augment``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_server.commands.arguments import number_of, screen
from synclave_shared.audit.console import JsonOption, show
from synclave_shared.errors import ConfigurationError

__all__ = ["augment"]


def augment(
    snapshot: Annotated[Path, typer.Option(help="Snapshot folder; it knows the schema.", metavar="DIR")],
    train: Annotated[
        list[Path],
        typer.Option(help="Real training patients: a file or a folder of tables; repeat for several.", metavar="FILE"),
    ],
    held_out: Annotated[
        list[Path],
        typer.Option(help="Other real patients, to test on; repeat for several.", metavar="FILE"),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the training set and its report.", metavar="DIR")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Label value of all added patients or a SHARE of them; repeat (default: the rarest value).",
            metavar="NAME=VALUE[:SHARE]",
        ),
    ] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="Synthetic patients per real training patient; repeat (default: 0.2, 0.4 to 1)."),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, max=100, help="How often patients are drawn and classifiers trained.")
    ] = 3,
    target: Annotated[
        Path | None,
        typer.Option(help="Series: snapshot of the influence vector of a clinical model.", metavar="DIR"),
    ] = None,
    guidance_strength: Annotated[
        str | None,
        typer.Option(help="With --target: how far, in deviations of what is open at each level (default: 0.1)."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the first draw; each later one has the next.")
    ] = 0,
    device: Annotated[str, typer.Option(help="What draws: cpu, cuda or cuda:N.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Add synthetic patients to real ones and measure what a classifier gains by them.

    Where the real records are: the training set in OUT holds real patients and may not leave that place.
    """
    from synclave_server.augment_view import draw_augmentation, run_augmentation
    from synclave_server.augmentation.mixture import ALPHAS

    if target is None and guidance_strength is not None:
        raise ConfigurationError(
            expected="--target with --guidance-strength",
            found="no --target",
            remedy="Name the snapshot of an influence vector, or leave the strength away.",
        )
    document = run_augmentation(
        snapshot,
        train,
        held_out,
        out=out,
        labels=label or [],
        alphas=alpha or ALPHAS,
        draws=draws,
        target=target,
        target_strength=number_of(guidance_strength or "0.1", "--guidance-strength"),
        device=device,
        seed=seed,
        console=screen(as_json),
    )
    show(document, as_json, lambda console: draw_augmentation(document, console))
