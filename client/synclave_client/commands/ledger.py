"""``synclave-site checkpoint``, ``ledger`` and ``receipts``: this site's copies of ledgers, and what they prove."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["checkpoint", "ledger", "receipts"]

PlansOption = Annotated[str, typer.Option("--plan", help="Digest of the plan, or its beginning (default: every plan).")]


def checkpoint(
    plan: Annotated[str, typer.Option(help="Digest of the plan, or its beginning (default: the only plan).")] = "",
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Print the newest checkpoint of a plan's ledger that this site verified: an auditor's anchor (verify --seen)."""
    from synclave_client.ledger_view import find_ledger
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    with closing(Journal.read(site.journal_file)) as journal:
        seen = find_ledger(journal, plan)
    document = {"plan": seen.plan, "size": seen.size, "root": seen.root, "note": seen.note}
    # Byte for byte, whatever the terminal: the signatures are over these lines.
    show(document, as_json, lambda _: typer.echo(seen.note.encode("utf-8"), nl=False))


def ledger(
    plan: PlansOption = "",
    export: Annotated[
        Path | None, typer.Option(help="New folder for the one that is meant, for `synclave-audit verify`.")
    ] = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """List the ledgers of which this site keeps its own copy, or write one as a folder with the site's co-signature."""
    from synclave_client.ledger_view import draw_ledgers, ledgers_document
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    with closing(Journal.read(site.journal_file)) as journal:
        document = ledgers_document(site, journal, plan, export)
    show(document, as_json, lambda out: draw_ledgers(out, document))


def receipts(
    plan: PlansOption = "",
    export: Annotated[
        Path | None, typer.Option(help="New folder for one file per entry, for `synclave-audit receipt`.")
    ] = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """List what this site signed and where its ledgers hold it, or write the receipts that prove it to anybody."""
    from synclave_client.ledger_view import draw_receipts, receipts_document
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    with closing(Journal.read(site.journal_file)) as journal:
        document = receipts_document(site, journal, plan, export)
    show(document, as_json, lambda out: draw_receipts(out, document))
