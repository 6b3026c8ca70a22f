"""Measure synthetic patients and write ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from synclave_server.evaluation import augmentation, disclosure, fidelity, plots, utility
from synclave_server.evaluation.code_words import how_close, how_columns_are_told
from synclave_server.evaluation.comparison import Table, compare, independent_floor
from synclave_server.evaluation.document import Progress, begin, check_labels, document, publish, unfit
from synclave_server.evaluation.drawings import drawings
from synclave_server.evaluation.report import render_report
from synclave_server.evaluation.sites import code_rows, site_results, unseen, who
from synclave_server.evaluation.targets import TARGET_PATIENTS, choose_targets, target_measures
from synclave_server.evaluation.words import headline
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import CHUNK_ROWS

__all__ = ["evaluate"]

MARKED: Final = 8
"""Deviating codes named in figure and table."""

SUMMARY: Final = ("prevalence_log_r2", "correlation_pearson", "discriminator_boosting", "target_forest_auroc")
"""Measures that stand for the whole report, beside what boosting learns of the label."""


def evaluate(
    schema: Schema,
    real: PatientDataset,
    synthetic: PatientDataset,
    train: PatientDataset | None = None,
    run: Path | None = None,
    *,
    out: Path,
    seed: int = 0,
    progress: Progress | None = None,
    sampling: Mapping[str, Any] | None = None,
    targets: Sequence[str] = (),
    sites: Mapping[str, PatientDataset] | None = None,
) -> dict[str, Any]:
    """Compare ``synthetic`` with ``real`` and write ``out/metrics.json`` and ``out/report.html``.

    The result depends on the arguments only: the same data and ``seed`` give the same bytes in both files on one
    machine with one set of library versions. Both files hold exact statistics of the real patients and are **not**
    differentially private.

    Args:
        schema: describes the columns of all data sets.
        real: held-out real patients, at least four.
        synthetic: synthetic patients, at least two.
        train: the real training patients, where the caller may see them; the ceiling is then train against held-out.
            Without them the held-out patients are halved.
        run: folder of the training; adds epsilon per site and provenance.
        out: folder for the two files; made if missing.
        seed: of every split, subsample and bootstrap.
        progress: called with the name of each stage.
        sampling: provenance of the synthetic patients as the sampler wrote it. With ``run`` it must name that run's
            plan; without it the report does not tie the run's epsilon to these patients.
        targets: columns (``field:value``) to predict from the others; if none is named, a fixed rule chooses them.
        sites: held-out real patients of single sites by name, for the measures per site.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ConfigurationError: if a target is not a column of the schema.
        DataError: if a data set is too small or has not the schema's columns or labels, or the synthetic patients were
            sampled from another run.
        PlanError, LedgerError, SnapshotError: if ``run`` cannot be read.
    """
    told = progress or (lambda _: None)
    sites = sites or {}
    record = begin((real, synthetic, train), sites, partial(_check, schema), run, sampling, told)
    tables = [Table(features=d.features[:], labels=d.labels) for d in (real, synthetic)]
    train_table = Table(features=train.features[:], labels=train.labels) if train is not None else None
    comparison = compare(tables[0], tables[1], train_table, schema.groups, np.random.default_rng([seed, 0]))
    chosen = choose_targets(schema, comparison.reference, targets)
    label, values = schema.label.name, schema.label.values
    floor = independent_floor(schema.groups)
    measures = [
        *fidelity.fidelity_measures(comparison, schema.groups, label, values, seed, told),
        *utility.utility_measures(comparison, label, values, seed, told),
        *target_measures(comparison, chosen, len(values), seed, told),
        *augmentation.augmentation_measures(comparison, train_table, label, values, seed, told),
        *disclosure.disclosure_measures(tables[0], tables[1], train_table, floor, seed, told),
    ]
    seen = who(real.select(comparison.other_half) if train is None else train)
    at_sites = {name: patients.select(unseen(who(patients), seen)) for name, patients in sites.items()}
    site_tables = {name: Table(features=d.features[:], labels=d.labels) for name, d in at_sites.items()}
    by_site = site_results(comparison, site_tables, code_rows(schema.groups), label, values, seed, told)
    told("figures and report")
    prevalences = [t.features.mean(axis=0, dtype=np.float64) for t in (comparison.reference, comparison.synthetic)]
    sizes = (len(comparison.reference), len(comparison.synthetic))
    marked = plots.largest_deviations(prevalences[0], prevalences[1], sizes, MARKED)
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
            "log_floor": fidelity.log_floor(comparison.reference, comparison.synthetic),
            "rare_below": fidelity.RARE,
            "minimum_carriers": fidelity.MINIMUM_CARRIERS,
            "mmd_patients": fidelity.MMD_PATIENTS,
            "correlated_patients": fidelity.CORRELATED_PATIENTS,
            "discriminator_patients": fidelity.DISCRIMINATOR_PATIENTS,
            "targets": [target.name for target in chosen],
            "target_patients": TARGET_PATIENTS,
        },
        sampling=sampling,
        digest=_digest(synthetic),
        own={
            "largest_deviations": [
                {
                    "column": schema.columns[column],
                    "title": schema.titles[column],
                    "real": float(prevalences[0][column]),
                    "synthetic": float(prevalences[1][column]),
                }
                for column in marked
            ]
        },
    )
    drawn = drawings(schema, comparison, marked, measures, chosen, by_site, metrics, record)
    by_key = {measure.key: measure for measure in measures}
    sentences = headline(
        metrics,
        by_key,
        columns=f"{schema.width:,} columns",
        close=how_close(by_key),
        useful=how_columns_are_told(by_key),
    )
    publish(out, metrics, render_report("codes.html.j2", metrics, measures, by_site, drawn, sentences))
    return metrics


def _check(schema: Schema, name: str, dataset: PatientDataset, least: int) -> None:
    if len(dataset) >= least and dataset.features.shape[1] != schema.width:
        raise unfit(
            f"{schema.width} columns of schema {schema.name} in the {name} patients", str(dataset.features.shape[1])
        )
    check_labels(schema, name, dataset, least)


def _digest(dataset: PatientDataset) -> str:
    """SHA-256 over shape, packed features and labels: names the cohort independently of the file's format."""
    digest = hashlib.sha256(f"{dataset.features.shape}".encode())
    for start in range(0, len(dataset), CHUNK_ROWS):
        digest.update(np.packbits(dataset.features[start : start + CHUNK_ROWS], axis=1).tobytes())
    digest.update(dataset.labels.astype("<i8").tobytes())
    return digest.hexdigest()
