"""``synclave init``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from synclave_server.commands.arguments import DEFAULT_HOME, HomeOption, KeyOption
from synclave_shared.audit.console import JsonOption, show

__all__ = ["init"]


def init(
    home: HomeOption = DEFAULT_HOME,
    key: KeyOption = None,
    name: Annotated[
        str | None, typer.Option(help="Host name by which sites elsewhere reach this machine: makes its certificate.")
    ] = None,
    key_valid_days: Annotated[
        int | None,
        typer.Option(min=1, max=36_500, help="Days for which the new key may sign (default: without end)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the coordinator's key, and a certificate for sites elsewhere. Prints what every site pins."""
    from synclave_server.hosting import authority_for
    from synclave_server.preparation import coordinator_key
    from synclave_shared.ledger.keys import SigningKey

    key_name = coordinator_key(home, named=key, create=True, valid_days=key_valid_days)
    public_key = SigningKey.named(key_name).public_text
    document = {"home": str(home.resolve()), "public_key": public_key}
    if name is not None:
        document["root_certificate"] = str(authority_for(home, name))

    def draw(console: Console) -> None:
        console.print(
            f"Coordinator's folder: {escape(document['home'])}. Keep its key: it signs plans and ledgers.",
            soft_wrap=True,
        )
        console.print(f"Public key, for the sites: [bold]{public_key}[/bold]", soft_wrap=True)
        if "root_certificate" in document:
            console.print(f"Certificate, for the sites: {escape(document['root_certificate'])}", soft_wrap=True)

    show(document, as_json, draw)
