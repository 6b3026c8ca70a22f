"""``synclave-site budget``."""

from __future__ import annotations

from contextlib import closing

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["budget"]


def budget(settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Show what was spent, what accepted plans may still spend, and what is left, by the composition of everything."""
    from synclave_client.budget_view import budget_document, draw_budget
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    with closing(Journal.read(site.journal_file)) as journal:
        document = budget_document(site, journal)
    show(document, as_json, lambda out: draw_budget(out, document))
