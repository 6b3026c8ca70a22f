"""Figures of what every kind of data has: labels, classifiers of them, sites, epsilon."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from synclave_server.evaluation import charts, dots, utility
from synclave_server.evaluation.augmentation import ALPHAS, augmentation_key
from synclave_server.evaluation.classifiers import Models
from synclave_server.evaluation.downstream import AREAS, LabelTask
from synclave_server.evaluation.figure import Drawing
from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.run_record import RunRecord
from synclave_server.evaluation.sites import SiteResult
from synclave_server.evaluation.words import COLUMNS
from synclave_shared.data.schema import PatientSchema

__all__ = ["outcome_drawings"]

MOST_PANELS: Final = 3
"""Label values in the figures of augmentation."""


def outcome_drawings(
    schema: PatientSchema,
    tasks: Sequence[LabelTask],
    measures: Sequence[Measure],
    sites: Sequence[SiteResult],
    metrics: Mapping[str, Any],
    record: RunRecord | None,
    models: Models,
    quick: Sequence[str],
    floor: str = COLUMNS,
) -> dict[str, Drawing]:
    """Name -> figure; a figure for which there is nothing to draw is left out.

    Args:
        schema: of all data sets.
        tasks: predictions of the label.
        measures: all measures of the whole comparison.
        sites: measures at each site.
        metrics: content of ``metrics.json``.
        record: of the training, if known.
        models: the classifiers of the label.
        quick: keys of those that were trained on real and added patients.
        floor: what the floor consists of.
    """
    by_key = {measure.key: measure for measure in measures}
    drawn = {
        "labels": charts.label_balance(
            schema.label.values,
            [share["real"] for share in metrics["label_balance"]],
            [share["synthetic"] for share in metrics["label_balance"]],
            f"Shares of: {schema.label.title or schema.label.name}.",
        ),
    }
    for area in AREAS:
        bars = [m for m in measures if m.section == utility.SECTION and f"_{area}[" in m.key]
        guess = {m.key: 0.5 if area == "auroc" else t.base_rate for m in bars for t in tasks if f"[{t.value}]" in m.key}
        drawn[area] = charts.utility_bars(area.upper(), bars, guess, floor=floor)
    return (
        drawn
        | augmentation_lines(tasks, by_key, models, quick, floor)
        | site_dots(sites, floor)
        | epsilon_lines(record)
    )


def augmentation_lines(
    tasks: Sequence[LabelTask],
    by_key: Mapping[str, Measure],
    models: Models,
    quick: Sequence[str],
    floor: str = COLUMNS,
) -> dict[str, Drawing]:
    """One figure per area: a panel for each label value and classifier."""
    drawn = {}
    for area in AREAS:
        panels = []
        for task in tasks[:MOST_PANELS]:
            for key, name in ((key, models(0)[key][0]) for key in quick):
                points = [(a, by_key.get(augmentation_key(key, area, task.value, a))) for a in ALPHAS]
                known = [(alpha, measure) for alpha, measure in points if measure and measure.value.value is not None]
                if len(known) == len(ALPHAS):
                    panels.append((f"{task.value}: {name}", known))
        if panels:
            drawn[f"augmented{area}"] = dots.alpha_lines(f"augmented{area}", panels, area.upper(), floor=floor)
    return drawn


def site_dots(sites: Sequence[SiteResult], floor: str = COLUMNS) -> dict[str, Drawing]:
    """One figure per measure: its value at each site."""
    drawn = {}
    for place, measure in enumerate(sites[0].measures if sites else ()):
        rows = [(f"{site.name} ({site.patients:,})", site.measures[place]) for site in sites]
        drawn[f"site{place}"] = dots.dot_rows(
            f"site{place}",
            rows,
            measure.title,
            "",
            floor=floor,
        )
    return drawn


def epsilon_lines(record: RunRecord | None) -> dict[str, Drawing]:
    """Epsilon over rounds; nothing without a finite one."""
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
