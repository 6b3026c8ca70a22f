"""All figures of the report, from the measured values to drawings by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from synclave_server.evaluation import charts, dots, fidelity, plots, utility
from synclave_server.evaluation.augmentation import ALPHAS, augmentation_key
from synclave_server.evaluation.classifiers import QUICK, classifiers
from synclave_server.evaluation.comparison import Comparison
from synclave_server.evaluation.downstream import AREAS, LabelTask, label_tasks
from synclave_server.evaluation.figure import Drawing
from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.run_record import RunRecord
from synclave_server.evaluation.sites import SiteResult
from synclave_server.evaluation.targets import Target
from synclave_shared.data.schema import Schema

__all__ = ["drawings"]

MAP_CODES: Final = 32
"""Codes in the correlation maps: as many as can be read."""
MAP_MOST_COMMON: Final = 0.95
"""Codes that more patients have than this share say nothing in a correlation map."""
MOST_PANELS: Final = 3
"""Label values in the figures of augmentation."""


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
        "labels": charts.label_balance(
            schema.label.values,
            [share["real"] for share in metrics["label_balance"]],
            [share["synthetic"] for share in metrics["label_balance"]],
            f"Shares of: {schema.label.title or schema.label.name}.",
        ),
    }
    columns, _ = fidelity.compared_pairs(reference, schema.groups)
    columns = columns[real_share[columns] <= MAP_MOST_COMMON]
    columns = np.sort(columns[np.argsort(-real_share[columns], kind="stable")[:MAP_CODES]])
    if len(columns) >= 3:
        drawn |= _maps(schema, comparison, columns)
    by_key = {measure.key: measure for measure in measures}
    tasks = label_tasks(reference, schema.label.values)
    for area in AREAS:
        bars = [m for m in measures if m.section == utility.SECTION and f"_{area}[" in m.key]
        guess = {m.key: 0.5 if area == "auroc" else t.base_rate for m in bars for t in tasks if f"[{t.value}]" in m.key}
        drawn[area] = charts.utility_bars(area.upper(), bars, guess)
    return drawn | _targets(chosen, by_key) | _augmentation(tasks, by_key) | _sites(sites) | _epsilon(record)


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


def _augmentation(tasks: Sequence[LabelTask], by_key: dict[str, Measure]) -> dict[str, Drawing]:
    """One figure per area: a panel for each label value and classifier."""
    drawn = {}
    for area in AREAS:
        panels = []
        for task in tasks[:MOST_PANELS]:
            for key, name in ((key, classifiers(0)[key][0]) for key in QUICK):
                points = [(a, by_key.get(augmentation_key(key, area, task.value, a))) for a in ALPHAS]
                known = [(alpha, measure) for alpha, measure in points if measure and measure.value.value is not None]
                if len(known) == len(ALPHAS):
                    panels.append((f"{task.value}: {name}", known))
        if panels:
            drawn[f"augmented{area}"] = dots.alpha_lines(f"augmented{area}", panels, area.upper())
    return drawn


def _sites(sites: Sequence[SiteResult]) -> dict[str, Drawing]:
    """One figure per measure: its value at each site."""
    drawn = {}
    for place, measure in enumerate(sites[0].measures if sites else ()):
        rows = [(f"{site.name} ({site.patients:,})", site.measures[place]) for site in sites]
        drawn[f"site{place}"] = dots.dot_rows(
            f"site{place}",
            rows,
            measure.title,
            "",
        )
    return drawn


def _epsilon(record: RunRecord | None) -> dict[str, Drawing]:
    together: dict[charts.EpsilonCurve, list[str]] = {}
    for spend in record.sites if record else ():
        curve = charts.EpsilonCurve(
            names=(),
            rounds=spend.rounds,
            epsilon=spend.epsilon,
            before=spend.before,
            delta=spend.delta,
            budget=spend.budget,
        )
        if math.isfinite(max(spend.epsilon)):
            together.setdefault(curve, []).append(spend.site)
    if not together:
        return {}
    curves = [dataclasses.replace(curve, names=tuple(names)) for curve, names in together.items()]
    return {"epsilon": charts.epsilon_curves(curves)}


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
