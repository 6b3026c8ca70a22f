"""``synclave-site vault``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_client.commands.arguments import DEFAULT_SETTINGS
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["vault"]


def vault(
    settings: Annotated[list[Path], typer.Option("--settings", help="Settings; repeat to simulate many sites.")] = [  # noqa: B006 - typer reads it once
        DEFAULT_SETTINGS
    ],
    as_json: JsonOption = False,
) -> None:
    """Run the vault: data, policy, journal and training, reachable by its Unix socket only. Ctrl-C ends it."""
    from synclave_client.vault import service

    sites = [SiteSettings.load(path) for path in settings]
    service.configure_log()
    service.run(sites)
    show({"sites": [site.name for site in sites], "stopped": True}, as_json, lambda out: out.print("Vault stopped."))
    service.leave(0)
