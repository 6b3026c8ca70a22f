"""``synclave-site withdraw``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer
from rich.markup import escape

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show
from synclave_shared.errors import ConfigurationError

__all__ = ["withdraw"]


def withdraw(
    plan: Annotated[str, typer.Argument(help="Digest of the plan, or its beginning (see budget).", metavar="PLAN")],
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Leave a plan: its further rounds are refused, what it had not spent is free again, what was spent stays spent."""
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    with closing(Journal.open(site.journal_file, exclusive=False)) as journal:
        found = [spend for spend in journal.plan_spends() if spend.digest.startswith(plan) and not spend.closed]
        if len(found) != 1:
            raise ConfigurationError(
                expected="the digest of one open plan",
                found=f"{plan}, which fits {len(found)}",
                remedy="`synclave-site budget` lists the plans.",
            )
        journal.close_plan(found[0].digest)
    show(
        {"plan": found[0].digest, "name": found[0].name, "closed": True},
        as_json,
        lambda out: out.print(f"Plan {escape(found[0].name)} ({found[0].digest[:16]}) is closed at this site."),
    )
