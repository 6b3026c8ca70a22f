"""All figures of a report on codes, from the measured values to drawings by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from synclave_server.evaluation import dots, fidelity, plots
from synclave_server.evaluation.classifiers import QUICK, classifiers
from synclave_server.evaluation.comparison import Comparison
from synclave_server.evaluation.downstream import label_tasks
from synclave_server.evaluation.figure import Drawing
from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.outcome_drawings import outcome_drawings
from synclave_server.evaluation.run_record import RunRecord
from synclave_server.evaluation.sites import SiteResult
from synclave_server.evaluation.targets import Target
from synclave_shared.data.schema import Schema

__all__ = ["drawings"]

MAP_CODES: Final = 32
"""Codes in the correlation maps: as many as can be read."""
MAP_MOST_COMMON: Final = 0.95
"""Codes that more patients have than this share say nothing in a correlation map."""


def drawings(
    schema: Schema,
    comparison: Comparison,
    marked: list[int],
    measures: Sequence[Measure],
    chosen: Sequence[Target],
    sites: Sequence[SiteResult],
    metrics: dict[str, Any],
    record: RunRecord | None,
) -> dict[str, Drawing]:
    """Name -> figure; a figure for which there is nothing to draw is left out.

    Args:
        schema: of all data sets.
        comparison: the compared cohorts.
        marked: columns to name in the scatter plot of prevalences.
        measures: all measures of the whole comparison.
        chosen: the targets that were predicted.
        sites: measures at each site.
        metrics: content of ``metrics.json``.
        record: of the training, if known.
    """
    reference, synthetic = comparison.reference, comparison.synthetic
    real_share, synthetic_share = (t.features.mean(axis=0, dtype=np.float64) for t in (reference, synthetic))
    drawn = {
        "prevalence": plots.prevalence_scatter(
            real_share, synthetic_share, (len(reference), len(synthetic)), schema.titles, marked
        ),
    }
    columns, _ = fidelity.compared_pairs(reference, schema.groups)
    columns = columns[real_share[columns] <= MAP_MOST_COMMON]
    columns = np.sort(columns[np.argsort(-real_share[columns], kind="stable")[:MAP_CODES]])
    if len(columns) >= 3:
        drawn |= _maps(schema, comparison, columns)
    by_key = {measure.key: measure for measure in measures}
    tasks = label_tasks(reference, schema.label.values)
    outcome = outcome_drawings(schema, tasks, measures, sites, metrics, record, classifiers, QUICK)
    return drawn | outcome | _targets(chosen, by_key)


def _targets(chosen: Sequence[Target], by_key: dict[str, Measure]) -> dict[str, Drawing]:
    """One figure per classifier: its AUROC for each target."""
    drawn = {}
    for key in QUICK if chosen else ():
        name = by_key[f"target_{key}_auroc"].title.rpartition(": ")[2].rpartition(",")[0]
        rows = [(target.title, by_key[f"target_{key}_auroc[{target.name}]"]) for target in chosen]
        drawn[f"targets{key}"] = dots.dot_rows(
            f"targets{key}",
            [("Mean", by_key[f"target_{key}_auroc"]), *rows],
            f"AUROC of {name} on held-out real patients",
            f"Each row is a column predicted from all others by {name}. Thin lines: 95 % intervals.",
        )
    return drawn


def _maps(schema: Schema, comparison: Comparison, columns: Any) -> dict[str, Drawing]:
    names = [schema.titles[column] for column in columns]
    group_of = np.array([next(k for k, g in enumerate(schema.groups) if g.start <= c < g.stop) for c in columns])
    forced = np.array([schema.groups[k].kind == "categorical" for k in group_of])
    compared = ~((group_of[:, None] == group_of[None, :]) & forced[:, None]) & ~np.eye(len(columns), dtype=bool)
    real, synthetic = (
        fidelity.correlation_matrix(t.features[:, columns]) for t in (comparison.reference, comparison.synthetic)
    )
    scale = plots.correlation_scale(real, compared)
    upper = np.triu(compared, k=1)
    return {
        "real": plots.correlation_map("real", "correlations in real patients", real, compared, names, scale),
        "synthetic": plots.correlation_map(
            "synthetic", "correlations in synthetic patients", synthetic, compared, names, scale
        ),
        "difference": plots.correlation_map(
            "difference", "difference, synthetic minus real", synthetic - real, compared, names, scale
        ),
        "pairs": plots.correlation_scatter(real[upper], synthetic[upper]),
    }
