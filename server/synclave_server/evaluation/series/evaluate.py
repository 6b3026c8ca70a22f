"""Measure synthetic time series and write ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from synclave_server.evaluation import augmentation, disclosure, fidelity
from synclave_server.evaluation.comparison import Comparison, oppose
from synclave_server.evaluation.document import Progress, begin, check_labels, document, publish, unfit
from synclave_server.evaluation.report import render_report
from synclave_server.evaluation.series import likeness
from synclave_server.evaluation.series.classifiers import QUICK_OF_SERIES, series_classifiers
from synclave_server.evaluation.series.courses import courses, independent_courses, nearness
from synclave_server.evaluation.series.drawings import SHOWN_PATIENTS, series_drawings
from synclave_server.evaluation.series.fidelity import (
    CORRELATED_PATIENTS,
    compared_channels,
    fidelity_of_series,
    series_rows,
)
from synclave_server.evaluation.series.recurrent import RECURRENT_PATIENTS
from synclave_server.evaluation.series.words import how_close_series
from synclave_server.evaluation.sites import site_results, unseen
from synclave_server.evaluation.utility import utility_measures
from synclave_server.evaluation.words import headline
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["evaluate_series"]

SUMMARY: Final = (
    "wasserstein",
    "observed_mae",
    "autocorrelation_mae",
    "correlation_pearson",
    "discriminator_boosting",
    "next_step_mae",
)
"""Measures that stand for the whole report, beside what boosting learns of the label."""


def evaluate_series(
    schema: SeriesSchema,
    real: SeriesDataset,
    synthetic: SeriesDataset,
    train: SeriesDataset | None = None,
    run: Path | None = None,
    *,
    out: Path,
    seed: int = 0,
    progress: Progress | None = None,
    sampling: Mapping[str, Any] | None = None,
    sites: Mapping[str, SeriesDataset] | None = None,
) -> dict[str, Any]:
    """:func:`~synclave_server.evaluation.evaluate.evaluate` for time series; there are no targets to name.

    The report shows the courses of a few single real patients; like ``metrics.json`` it is **not** differentially
    private.

    Raises:
        DataError: if a data set is too small or has not the schema's steps, channels, columns or labels, or the
            synthetic patients were sampled from another run.
        PlanError, LedgerError, SnapshotError: if ``run`` cannot be read.
    """
    told = progress or (lambda _: None)
    sites = sites or {}
    record = begin((real, synthetic, train), sites, partial(_check, schema), run, sampling, told)
    tables = [courses(real), courses(synthetic)]
    train_table = courses(train) if train is not None else None
    floor = independent_courses(schema.groups)
    comparison = oppose(tables[0], tables[1], train_table, floor, np.random.default_rng([seed, 0]))
    label, values = schema.label.name, schema.label.values
    measures = [
        *fidelity_of_series(comparison, seed, told),
        *utility_measures(comparison, label, values, seed, told, series_classifiers),
        *augmentation.augmentation_measures(
            comparison, train_table, label, values, seed, told, series_classifiers, QUICK_OF_SERIES
        ),
        *disclosure.disclosure_measures(tables[0], tables[1], train_table, floor, seed, told, nearness(tables[0])),
    ]
    seen = _who(real.select(comparison.other_half) if train is None else train)
    at_sites = {name: courses(patients.select(unseen(_who(patients), seen))) for name, patients in sites.items()}
    by_site = site_results(comparison, at_sites, series_rows, label, values, seed, told, series_classifiers)
    told("figures and report")
    metrics = document(
        schema,
        comparison,
        (real, synthetic, train),
        measures,
        SUMMARY,
        by_site,
        record,
        seed=seed,
        settings={
            "minimum_patients": likeness.MINIMUM_PATIENTS,
            "minimum_pairs": likeness.MINIMUM_PAIRS,
            "correlated_patients": CORRELATED_PATIENTS,
            "lags": likeness.lags_of(schema.horizon),
            "discriminator_patients": fidelity.DISCRIMINATOR_PATIENTS,
            "recurrent_patients": RECURRENT_PATIENTS,
            "shown_patients": SHOWN_PATIENTS,
        },
        sampling=sampling,
        digest=_digest(synthetic),
        libraries=("torch",),
        own={
            "schema": {
                "channels": len(schema.channels),
                "steps": schema.horizon,
                "step_minutes": schema.grid.step_minutes,
            },
            "channels": _channels(schema, comparison),
        },
    )
    drawn = series_drawings(schema, comparison, measures, by_site, metrics, record, np.random.default_rng([seed, 7]))
    by_key = {measure.key: measure for measure in measures}
    sentences = headline(
        metrics,
        by_key,
        columns=f"{len(schema.channels)} channels at {schema.horizon} steps",
        close=how_close_series(by_key),
    )
    publish(out, metrics, render_report("series.html.j2", metrics, measures, by_site, drawn, sentences))
    return metrics


def _check(schema: SeriesSchema, name: str, dataset: SeriesDataset, least: int) -> None:
    shape = (schema.horizon, len(schema.channels), schema.width)
    if len(dataset) >= least and (*dataset.values.shape[1:], dataset.static.shape[1]) != shape:
        raise unfit(
            "{} steps, {} channels and {} static columns of schema {} in the {} patients".format(
                *shape, schema.name, name
            ),
            "{}, {} and {}".format(*dataset.values.shape[1:], dataset.static.shape[1]),
        )
    check_labels(schema, name, dataset, least)


def _channels(schema: SeriesSchema, comparison: Comparison) -> list[dict[str, Any]]:
    """Of each channel, in its unit: means, standard deviations and shares observed, and its Wasserstein distances."""
    cohorts = {"real": comparison.reference.features, "synthetic": comparison.synthetic.features}
    compared = compared_channels(comparison.reference.features)
    distances, ceilings = (
        dict(zip(compared, likeness.value_distances(cohorts["real"], table.features, compared)[0], strict=True))
        for table in (comparison.synthetic, comparison.other_real)
    )
    rows = []
    for place, channel in enumerate(schema.channels):
        row: dict[str, Any] = {"channel": channel.name, "title": channel.title or channel.name, "unit": channel.unit}
        for name, features in cohorts.items():
            values = channel.unscaled(likeness.observed_values(features, place))
            row[name] = {
                "mean": float(values.mean()) if len(values) else None,
                "deviation": float(values.std()) if len(values) else None,
                "observed": float(features["observed"][:, :, place].sum() / features["length"].sum()),
            }
        row["wasserstein"] = float(distances[place]) if place in distances else None
        row["wasserstein_ceiling"] = float(ceilings[place]) if place in ceilings else None
        rows.append(row)
    return rows


def _who(dataset: SeriesDataset) -> list[Hashable]:
    """Identifier and all data of each patient [N]."""
    parts: Sequence[Any] = (dataset.values, dataset.observed, dataset.static, dataset.lengths, dataset.labels)
    return [(patient, *(part[place].tobytes() for part in parts)) for place, patient in enumerate(dataset.patient_ids)]


def _digest(dataset: SeriesDataset) -> str:
    """SHA-256 over shapes and contents, identifiers left out: names the cohort independently of the files' format."""
    digest = hashlib.sha256(f"{dataset.values.shape}{dataset.static.shape}".encode())
    for part, kind in (
        (dataset.values, "<f4"),
        (dataset.observed, "u1"),
        (dataset.lengths, "<i8"),
        (dataset.static, "u1"),
        (dataset.labels, "<i8"),
    ):
        digest.update(np.ascontiguousarray(part, dtype=kind).tobytes())
    return digest.hexdigest()
