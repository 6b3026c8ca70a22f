"""``synclave-site conformance``."""

from __future__ import annotations

from typing import Annotated

import typer

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit import console as frame
from synclave_shared.audit.console import JsonOption, show

__all__ = ["conformance"]


def conformance(
    plan: Annotated[
        str, typer.Argument(help="Digest of a plan, or its beginning (default: all).", metavar="[PLAN]")
    ] = "",
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Show what trainings really did: noise, clipping, selection, measured. Exit code 1 if one did not conform."""
    from synclave_client.conformance_view import conformance_document, draw_conformance
    from synclave_client.vault.conformance import ConformanceFolder

    site = SiteSettings.load(settings)
    document = conformance_document(site, ConformanceFolder(site.conformance_folder), plan)
    show(document, as_json, lambda out: draw_conformance(out, document))
    if not all(each["passed"] for each in document["plans"]):
        raise typer.Exit(frame.EXIT_ERROR)
