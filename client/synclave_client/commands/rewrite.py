"""``synclave-site rewrite``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["rewrite"]


class NotesForm(StrEnum):
    """How notes are written."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class FillPrecision(StrEnum):
    """What the network computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def rewrite(
    notes: Annotated[Path, typer.Argument(help="Folder or file with the notes.", metavar="NOTES")],
    schema: Annotated[Path, typer.Option(help="Schema of the notes (TOML).", metavar="S.toml")],
    model: Annotated[Path, typer.Option(help="Language model: a run, a public or a published model.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="New folder for the notes and provenance.json.", metavar="DIR")],
    ratio: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the other words that is written anew.")] = 0.5,
    keep_entities: Annotated[
        float, typer.Option(min=0, max=1, help="Share of clinical entities and numbers that is kept.")
    ] = 1.0,
    temperature: Annotated[float, typer.Option(min=0, help="Of the draws; higher is more varied.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Only so many likeliest words; 0: all.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1, help="Only the likeliest words up to this probability.")
    ] = 0.95,
    calls: Annotated[int, typer.Option(min=1, max=32, help="Calls of the network for a try of a note.")] = 10,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="Site whose rules and kept key count; without it, surrogates differ from call to call.",
            metavar="SITE.toml",
        ),
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="Text file of strings that no rewriting may hold, one a line.", metavar="FILE")
    ] = None,
    form: Annotated[NotesForm, typer.Option("--format", help="Of the file of notes.")] = NotesForm.JSONL,
    precision: Annotated[
        FillPrecision, typer.Option(help="What the network computes in; bfloat16 is faster on many machines.")
    ] = FillPrecision.FLOAT32,
    as_json: JsonOption = False,
) -> None:
    """Rewrite real notes: identifiers replaced, entities kept, other words anew. The result STAYS IN THE HOSPITAL."""
    from synclave_client.rewriting import read_canaries, rewrite_folder
    from synclave_shared.text.fill_words import Drawing
    from synclave_shared.text.rewrite import RewriteSettings

    screen = Console(stderr=True)
    document = rewrite_folder(
        notes,
        schema,
        model,
        out,
        settings=RewriteSettings(ratio=ratio, keep_entities=keep_entities),
        drawing=Drawing(calls=calls, temperature=temperature, top_k=top_k, top_p=top_p, precision=precision.value),
        site=None if settings is None else SiteSettings.load(settings),
        canaries=() if canaries is None else read_canaries(canaries),
        form=form.value,
        progress=lambda done, of: screen.print(f"{done} of {of} patients"),
    )

    def draw(console: Console) -> None:
        console.print(
            f"{document['written']} of {document['notes']} notes rewritten: {escape(str(out))}", soft_wrap=True
        )
        if document["linkage_top1"] is not None:
            console.print(f"Traced to their source by TF-IDF: {document['linkage_top1']:.1%}.")
        for one in document["refused"]:
            console.print(f"Refused: patient {escape(one['patient'])}, note {one['note']} ({one['reason']}).")
        if document["without_text"]:
            console.print(f"Rows without text: {document['without_text']}.")
        console.print(f"[bold]{document['statement']}[/bold]")

    show(document, as_json, draw)
