"""``synclave evaluate``: files in, the few measures that matter most on the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_shared.data.modality import AnySchema, load_schema
from synclave_shared.data.notes.dataset import NotesDataset
from synclave_shared.data.notes.dataset import together as notes_together
from synclave_shared.data.notes.reading import load_notes
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.patients import PatientDataset, together
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.dataset import together as series_together
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.tables import load_patients
from synclave_shared.errors import ConfigurationError, DataError

__all__ = ["draw_evaluation", "draw_headline", "draw_sites", "headline", "joined", "run_evaluation"]

Cohort = TypeVar("Cohort", PatientDataset, SeriesDataset, NotesDataset)

HEADLINE: Final = (
    "prevalence_r2",
    "prevalence_log_r2",
    "rare_code_mass",
    "wasserstein",
    "observed_mae",
    "autocorrelation_mae",
    "correlation_pearson",
    "discriminator_boosting",
    "next_step_mae",
    "self_bleu",
    "word_surprise",
    "entity_overlap[problem]",
    "entity_overlap[drug]",
    "discriminator_pairs",
    "type_accuracy",
    "linked_to_training",
    "copied_training",
    "identifiers_training",
    "target_logistic_auroc",
    "target_forest_auroc",
)
"""Measures shown on the screen, those that the kind of data has, besides the areas of every train-on-synthetic one;
the report has all."""


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The measures for the screen: value, ceiling and floor of each."""
    return {
        key: {part: measure[part] for part in ("title", "value", "ceiling", "floor")}
        for key, measure in metrics["measures"].items()
        if key in HEADLINE or (key.startswith("tstr") and "_au" in key)
    }


def draw_headline(measures: Mapping[str, Any], console: Console) -> None:
    """The same as a table."""
    table = Table(
        title="How close, on held-out patients (ceiling: other real patients; floor: independent columns or words)",
        title_justify="left",
    )
    table.add_column("measure")
    for heading in ("synthetic", "ceiling", "floor"):
        table.add_column(heading, justify="right")
    for measure in measures.values():
        numbers = [
            "not defined" if measure[part] is None else f"{measure[part]:.3f}" for part in ("value", "ceiling", "floor")
        ]
        table.add_row(escape(measure["title"]), *numbers)
    console.print(table)


def draw_sites(spread: Mapping[str, Any], console: Console) -> None:
    """How much the measures vary over sites, a line each; nothing without sites."""
    from synclave_server.evaluation.sites import spread_text

    if spread:
        console.print("Over sites, on the held-out patients of each:")
    for found in spread.values():
        console.print(f"  {escape(spread_text(found))}", soft_wrap=True, highlight=False)


def run_evaluation(
    schema_path: Path,
    real: Sequence[Path],
    synthetic: Path,
    train: Sequence[Path],
    run: Path | None,
    *,
    out: Path,
    seed: int,
    targets: Sequence[str],
    sites: Mapping[str, Path],
    console: Console,
) -> dict[str, Any]:
    """Load, compare, write; returns paths and headline measures. The schema says what kind of data it is.

    Raises:
        ConfigurationError: if a target is not a column of the schema, or its kind of data has no targets.
        SchemaError, DataError: if something cannot be read.
        PlanError, LedgerError, SnapshotError: if the run folder cannot be used.
    """
    from synclave_server.sampling.provenance import read_provenance

    schema = load_schema(schema_path)
    with console.status("reading") as status:
        common: dict[str, Any] = {
            "out": out,
            "seed": seed,
            "progress": lambda stage: status.update(escape(stage)),
            "sampling": read_provenance(synthetic),
        }
        if isinstance(schema, SeriesSchema):
            metrics = _evaluated_series(schema, real, synthetic, train, run, targets, sites, common)
        elif isinstance(schema, NotesSchema):
            metrics = _evaluated_notes(schema, real, synthetic, train, run, targets, sites, common)
        else:
            metrics = _evaluated_codes(schema, real, synthetic, train, run, targets, sites, common)
    return {
        "report": str((out / "report.html").resolve()),
        "metrics": str((out / "metrics.json").resolve()),
        "measures": headline(metrics),
        "site_spread": metrics["site_spread"],
    }


def _evaluated_codes(
    schema: Schema,
    real: Sequence[Path],
    synthetic: Path,
    train: Sequence[Path],
    run: Path | None,
    targets: Sequence[str],
    sites: Mapping[str, Path],
    common: Mapping[str, Any],
) -> dict[str, Any]:
    from synclave_server.evaluation.evaluate import evaluate

    return evaluate(
        schema,
        joined(together, [load_patients(schema, path) for path in real]),
        load_patients(schema, synthetic, "synthetic"),
        joined(together, [load_patients(schema, path) for path in train]) if train else None,
        run,
        targets=targets,
        sites={name: load_patients(schema, path) for name, path in sites.items()},
        **common,
    )


def _evaluated_series(
    schema: SeriesSchema,
    real: Sequence[Path],
    synthetic: Path,
    train: Sequence[Path],
    run: Path | None,
    targets: Sequence[str],
    sites: Mapping[str, Path],
    common: Mapping[str, Any],
) -> dict[str, Any]:
    from synclave_server.evaluation.series.evaluate import evaluate_series

    if targets:
        raise _no_targets(schema, targets, "time series", "their label and their next step")
    return evaluate_series(
        schema,
        joined(series_together, [load_series(schema, path) for path in real]),
        load_series(schema, synthetic, "synthetic"),
        joined(series_together, [load_series(schema, path) for path in train]) if train else None,
        run,
        sites={name: load_series(schema, path) for name, path in sites.items()},
        **common,
    )


def _evaluated_notes(
    schema: NotesSchema,
    real: Sequence[Path],
    synthetic: Path,
    train: Sequence[Path],
    run: Path | None,
    targets: Sequence[str],
    sites: Mapping[str, Path],
    common: Mapping[str, Any],
) -> dict[str, Any]:
    from synclave_server.evaluation.notes.evaluate import evaluate_notes

    if targets:
        raise _no_targets(schema, targets, "notes", "their label and their type")
    return evaluate_notes(
        schema,
        joined(notes_together, [load_notes(schema, path) for path in real]),
        load_notes(schema, synthetic, "synthetic"),
        joined(notes_together, [load_notes(schema, path) for path in train]) if train else None,
        run,
        sites={name: load_notes(schema, path) for name, path in sites.items()},
        **common,
    )


def _no_targets(schema: AnySchema, targets: Sequence[str], what: str, instead: str) -> ConfigurationError:
    return ConfigurationError(
        expected=f"no --target with schema {schema.name}, which is of {what}",
        found=", ".join(targets),
        remedy=f"Leave --target out: {what} are judged by predicting {instead}.",
    )


def joined(join: Callable[[Sequence[Cohort]], Cohort], parts: Sequence[Cohort]) -> Cohort:
    """The patients of several files or folders."""
    try:
        return join(parts) if len(parts) > 1 else parts[0]
    except ValueError:
        raise DataError(
            expected="every patient in one of the files given",
            found="an identifier that is in two of them",
            remedy="Give every file once; make identifiers distinct where hospitals number their patients alike.",
        ) from None


def draw_evaluation(document: Mapping[str, Any], console: Console) -> None:
    """What came out, and what to open."""
    draw_headline(document["measures"], console)
    draw_sites(document["site_spread"], console)
    console.print(f"Open {document['report']}", soft_wrap=True, highlight=False)
