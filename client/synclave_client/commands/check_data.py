"""``synclave-site check-data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit.console import JsonOption, show

__all__ = ["check_data"]


def check_data(
    folder: Annotated[Path, typer.Argument(help="Folder with the patients' tables.", metavar="DIR")],
    schema: Annotated[Path, typer.Option(help="Schema to check against (TOML).", metavar="S.toml")],
    as_json: JsonOption = False,
) -> None:
    """Check a folder of tables against a schema and name every fault by file, row and column. Sends nothing."""
    from synclave_client.check_view import draw_report
    from synclave_shared.data.modality import check_folder, load_schema

    loaded = load_schema(schema)
    report = check_folder(loaded, folder)
    show(report.to_dict(), as_json, lambda out: draw_report(out, loaded, report))
    if not report.ok:
        raise typer.Exit(1)
