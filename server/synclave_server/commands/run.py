"""``synclave run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from synclave_server.commands.arguments import (
    DEFAULT_HOME,
    HomeOption,
    KeyOption,
    pairs_of,
    screen,
)
from synclave_shared.audit.console import JsonOption, show

__all__ = ["run"]


def run(
    folder: Annotated[Path, typer.Argument(help="Run folder made by `synclave plan --out`.", metavar="RUN")],
    node_key: Annotated[
        list[str],
        typer.Option(help="A site's public node key, or the file with it; repeat.", metavar="NAME=KEY"),
    ],
    home: HomeOption = DEFAULT_HOME,
    key: KeyOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - sites come from outside
    port: Annotated[int, typer.Option(min=1, max=65535, help="Public TLS port.")] = 8443,
    name: Annotated[str | None, typer.Option(help="Host name by which the sites reach this machine.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the sites and run a signed plan to its end, or resume it after the last complete round."""
    from synclave_server.hosting import run_hosted
    from synclave_server.preparation import coordinator_key

    document = run_hosted(
        folder,
        home=home,
        key_name=coordinator_key(home, named=key),
        node_keys=pairs_of(node_key, "--node-key NAME=KEY"),
        host=host,
        port=port,
        name=name,
        console=screen(as_json),
    )
    show(document, as_json, lambda console: console.print(f"Snapshot: {escape(document['snapshot'])}", soft_wrap=True))
