"""``synclave-site afford``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["afford"]


def afford(
    patients: Annotated[int, typer.Option(min=1, help="Public, rounded number of patients, as in plans.")],
    rounds: Annotated[
        list[int] | None, typer.Option(min=1, max=10_000, help="Number of rounds; repeat (default: 5, 20, 50).")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Steps of a round.")] = 20,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Expected patients in a step; repeat (default: 1, 4 and 17 % of them)."),
    ] = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Show which trainings still fit into what is left: rounds against batch, and the noise that each needs."""
    from synclave_client.afford_view import afford_document, draw_afford
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    with closing(Journal.read(site.journal_file)) as journal:
        document = afford_document(
            site, journal, patients=patients, steps_per_round=steps, rounds=rounds or (), batches=batch or ()
        )
    show(document, as_json, lambda out: draw_afford(out, document))
