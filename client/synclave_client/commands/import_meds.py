"""``synclave-site import-meds``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_shared.audit.console import JsonOption, show

__all__ = ["import_meds"]


def import_meds(
    dataset: Annotated[Path, typer.Argument(help="MEDS dataset: the folder with data and metadata.", metavar="MEDS")],
    schema: Annotated[Path, typer.Option(help="Schema that reads MEDS (docs/meds.md).", metavar="S.toml")],
    out: Annotated[Path, typer.Option(help="New folder for the tables that the schema reads.", metavar="DIR")],
    labels: Annotated[
        Path | None, typer.Option(help="Label file, or folder of them, if the schema reads labels.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only subjects of this split (default: all).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a MEDS dataset into the tables that a schema reads; what it does not read is counted. Sends nothing."""
    from synclave_client.import_view import draw_import
    from synclave_shared.data.meds import importing
    from synclave_shared.data.modality import load_schema

    report = importing.import_meds(dataset, load_schema(schema), out, split=split, labels=labels)
    show(report.to_dict(), as_json, lambda console: draw_import(console, report, schema))
