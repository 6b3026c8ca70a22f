"""``synclave fetch-base``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from synclave_shared.audit.console import JsonOption, show

__all__ = ["fetch_base"]


def fetch_base(
    name: Annotated[str, typer.Argument(help="Name on the Hugging Face hub.", metavar="NAME")],
    out: Annotated[Path, typer.Option(help="New folder for the model.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Fetch a published masked language model for plans of notes. The one command that opens a connection for a model.

    Vocabulary, configuration and weights are stored as safetensors; sites get a copy of the folder, which plans name by
    its digest.
    """
    from synclave_server.fetching import fetch

    document = fetch(name, out)
    show(
        document,
        as_json,
        lambda console: console.print(
            f"{document['parameters']:,} parameters, digest {document['digest']}: {escape(document['out'])}",
            soft_wrap=True,
        ),
    )
