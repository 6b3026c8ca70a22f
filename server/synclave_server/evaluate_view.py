"""``synclave evaluate``: files in, the few measures that matter most on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import load_patients

__all__ = ["draw_evaluation", "draw_headline", "draw_sites", "headline", "run_evaluation"]

HEADLINE: Final = (
    "prevalence_r2",
    "prevalence_log_r2",
    "rare_code_mass",
    "correlation_pearson",
    "discriminator_boosting",
    "target_logistic_auroc",
    "target_forest_auroc",
)
"""Measures shown on the screen, besides every train-on-synthetic one; the report has all."""


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The measures for the screen: value, ceiling and floor of each."""
    return {
        key: {part: measure[part] for part in ("title", "value", "ceiling", "floor")}
        for key, measure in metrics["measures"].items()
        if key in HEADLINE or key.startswith("tstr")
    }


def draw_headline(measures: Mapping[str, Any], console: Console) -> None:
    """The same as a table."""
    table = Table(
        title="How close, on held-out patients (ceiling: other real patients; floor: independent columns)",
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
    real: Path,
    synthetic: Path,
    train: Path | None,
    run: Path | None,
    *,
    out: Path,
    seed: int,
    targets: Sequence[str],
    sites: Mapping[str, Path],
    console: Console,
) -> dict[str, Any]:
    """Load, compare, write; returns paths and headline measures.

    Raises:
        ConfigurationError: if a target is not a column of the schema.
        SchemaError, DataError: if something cannot be read.
        PlanError, LedgerError, SnapshotError: if the run folder cannot be used.
    """
    from synclave_server.evaluation.evaluate import evaluate
    from synclave_server.sampling.provenance import read_provenance

    schema = Schema.load(schema_path)
    with console.status("reading") as status:
        tables = [load_patients(schema, path) for path in (real, synthetic)]
        training = None if train is None else load_patients(schema, train)
        metrics = evaluate(
            schema,
            tables[0],
            tables[1],
            training,
            run,
            out=out,
            seed=seed,
            progress=lambda stage: status.update(escape(stage)),
            sampling=read_provenance(synthetic),
            targets=targets,
            sites={name: load_patients(schema, path) for name, path in sites.items()},
        )
    return {
        "report": str((out / "report.html").resolve()),
        "metrics": str((out / "metrics.json").resolve()),
        "measures": headline(metrics),
        "site_spread": metrics["site_spread"],
    }


def draw_evaluation(document: Mapping[str, Any], console: Console) -> None:
    """What came out, and what to open."""
    draw_headline(document["measures"], console)
    draw_sites(document["site_spread"], console)
    console.print(f"Open {document['report']}", soft_wrap=True, highlight=False)
