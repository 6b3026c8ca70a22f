"""``synclave-site run``."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from synclave_client.commands.arguments import (
    DEFAULT_SETTINGS,
    SettingsOption,
    address_of,
    require_state,
)
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["run"]


def run(settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Run vault and gateway together and start either again when it ends. For a first try on one machine, as one user.

    In production the two run as two users under systemd (deploy/README.md).
    """
    from synclave_client.supervision import supervise
    from synclave_shared.data.modality import check_folder, load_schema

    site = SiteSettings.load(settings)
    address = address_of(site, settings)
    require_state(site)
    report = check_folder(load_schema(site.schema_file), site.data_folder)
    if not report.ok:
        raise report.error()
    me = [sys.executable, "-m"]
    commands = {
        "vault": [*me, "synclave_client.vault", "--settings", str(settings.resolve())],
        "gateway": [*me, "synclave_client.cli", "gateway", "--settings", str(settings.resolve())],
    }
    screen = Console(stderr=True)
    supervise(
        commands, logs=address.state_folder / "logs", tell=lambda text: screen.print(escape(text), soft_wrap=True)
    )
    show({"name": site.name, "stopped": True}, as_json, lambda out: out.print("Site stopped."))
