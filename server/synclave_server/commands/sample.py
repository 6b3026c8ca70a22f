"""``synclave sample``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperOption

from synclave_server.commands.arguments import (
    DEFAULT_HOME,
    HomeOption,
    KeyOption,
    NetworkPrecision,
    number_of,
    screen,
)
from synclave_shared.audit.console import JsonOption, show
from synclave_shared.errors import ConfigurationError

__all__ = ["SampleCommand", "sample"]


class SampledModality(StrEnum):
    """Kinds of data that can be drawn."""

    CODES = "codes"
    SERIES = "series"
    NOTES = "notes"


class TargetBy(StrEnum):
    """Ways in which a clinical model guides."""

    INFLUENCE = "influence"
    CLASSIFIER = "classifier"


class SampleCommand(TyperCommand):
    """Help that also lists what only modules with torch and pyarrow know: they load too slowly for every command."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help with the names of all samplers and formats."""
        from synclave_server.sampling.cohort_formats import FORMATS
        from synclave_server.sampling.request import samplers_of

        of_codes = f"{', '.join(samplers_of('gaussian'))}; of masked models {', '.join(samplers_of('masked'))}"
        samplers = f"{of_codes}; of notes {', '.join(samplers_of('words'))}"
        names = {"sampler": samplers, "cohort_format": ", ".join(FORMATS)}
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name in names:
                parameter.help = f"{parameter.help} There are: {names[parameter.name]}."
        super().format_help(ctx, formatter)


def sample(
    snapshot: Annotated[Path, typer.Option(help="Snapshot folder.", metavar="DIR")],
    patients: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="How many synthetic patients.")],
    out: Annotated[Path, typer.Option(help="What to write; an interrupted command goes on with it.", metavar="OUT")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Label value for all patients or for COUNT of them; repeat (default: the measured shares).",
            metavar="NAME=VALUE[:COUNT]",
        ),
    ] = None,
    more_labels: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(help="Column that every patient has, or with =0 has not; repeat.", metavar="COLUMN[=0]"),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Name of the sampler (default: unipc; masked; of notes, confidence).", metavar="NAME"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Noise levels visited, or calls that fill notes (default: 10)."),
    ] = None,
    guidance: Annotated[str, typer.Option(help="Weight of classifier-free guidance; 0 is none.")] = "0",
    classifier_guidance: Annotated[
        str, typer.Option(help="Strength of guidance by the measured prevalences' classifier; 0 is none.")
    ] = "0",
    target: Annotated[
        Path | None,
        typer.Option(help="Series: snapshot of the influence vector of a clinical model.", metavar="DIR"),
    ] = None,
    target_by: Annotated[
        TargetBy | None,
        typer.Option(help="With --target: by its influence vector (default), or as a classifier of the label."),
    ] = None,
    guidance_strength: Annotated[
        str | None,
        typer.Option(help="With --target: how far, in deviations of what is open at a level (default: 0.05)."),
    ] = None,
    target_curvature: Annotated[
        bool,
        typer.Option("--target-curvature", help="With --target: by the step that unguided synthetic patients lack."),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Fixes all randomness; each patient has a stream.")
    ] = 0,
    precision: Annotated[
        NetworkPrecision, typer.Option(help="What the network computes in; bfloat16 is faster on most GPUs.")
    ] = NetworkPrecision.FLOAT32,
    calibrated: Annotated[
        bool, typer.Option("--calibrated/--uncalibrated", help="Codes: bring prevalences back to the measured ones.")
    ] = True,
    modality: Annotated[
        SampledModality | None, typer.Option(help="Refuse a snapshot of another modality (default: whatever it is).")
    ] = None,
    temperature: Annotated[str | None, typer.Option(help="Notes: of the words; lower is plainer (default: 1).")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Notes: only so many likeliest words (default: all).")
    ] = None,
    top_p: Annotated[
        str | None, typer.Option(help="Notes: only the likeliest words that add up to this (default: 1, all).")
    ] = None,
    codes: Annotated[
        Path | None, typer.Option(help="Notes: write about the patients of this cohort of codes.", metavar="FILE")
    ] = None,
    codes_schema: Annotated[Path | None, typer.Option(help="Its schema.", metavar="S.toml")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Notes: folder in which a published language model lies.", metavar="DIR")
    ] = None,
    cohort_format: Annotated[str, typer.Option("--format", help="Format of the output.", metavar="NAME")] = "parquet",
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda or cuda:N; repeat to share the work (default: cpu).")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Processes (default: one per GPU; on the CPU, by cores and patients)."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=2**20, help="Patients per sign of progress.")] = 256,
    run: Annotated[
        Path | None,
        typer.Option(help="Run of the snapshot: its ledger is told of the patients; needs the key.", metavar="RUN"),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw synthetic patients from a snapshot: exact label counts, the same bytes for any workers and batch size.

    Stopped or killed, the same command goes on from the last finished 16,384 patients and ends with the same bytes.
    """
    from synclave_server.preparation import coordinator_key
    from synclave_server.sample_view import notary_of, run_sample

    if target is None and (target_by is not None or guidance_strength is not None or target_curvature):
        raise ConfigurationError(
            expected="--target with --target-by, --target-curvature and --guidance-strength",
            found="no --target",
            remedy="Name the snapshot of an influence vector, or leave them away.",
        )
    if target_curvature and target_by is TargetBy.CLASSIFIER:
        raise ConfigurationError(
            expected="--target-curvature with an influence vector",
            found="--target-by classifier",
            remedy="Leave one of the two away.",
        )
    if (codes is None) != (codes_schema is None):
        raise ConfigurationError(
            expected="--codes and --codes-schema together", found="one of them", remedy="Give both, or neither."
        )
    document = run_sample(
        snapshot,
        patients,
        out=out,
        labels=[*(label or []), *(more_labels or [])],
        given=given or [],
        sampler=sampler,
        steps=steps,
        guidance=number_of(guidance, "--guidance"),
        classifier_guidance=number_of(classifier_guidance, "--classifier-guidance"),
        target=target,
        target_by=(target_by or TargetBy.INFLUENCE).value,
        target_strength=number_of(guidance_strength or "0.05", "--guidance-strength"),
        target_curvature=target_curvature,
        seed=seed,
        precision=precision.value,
        calibrated=calibrated,
        modality=None if modality is None else modality.value,
        notes={
            "temperature": None if temperature is None else number_of(temperature, "--temperature"),
            "top_k": top_k,
            "top_p": None if top_p is None else number_of(top_p, "--top-p"),
        },
        models=models,
        codes=codes,
        codes_schema=codes_schema,
        cohort_format=cohort_format,
        devices=device or ["cpu"],
        workers=workers,
        batch_size=batch_size,
        console=screen(as_json),
        notary=None if run is None else notary_of(run, coordinator_key(home, named=key), snapshot),
    )
    entry = document["ledger_entry"]
    recorded = "They are in no ledger (--run)." if entry is None else f"Entry {entry} of the ledger tells of them."
    calls = document["network_calls"]
    effort = f", {calls} network calls each" if calls else ""
    show(
        document,
        as_json,
        lambda console: console.print(
            f"{patients} synthetic patients{effort},"
            f" {document['patients_per_second']:,.0f} per second: {escape(document['out'])}. {recorded}",
            soft_wrap=True,
        ),
    )
