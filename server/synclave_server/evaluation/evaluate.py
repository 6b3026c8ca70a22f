"""Measure synthetic patients and write ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from synclave_server.evaluation import augmentation, disclosure, fidelity, plots, utility
from synclave_server.evaluation.comparison import MAX_PATIENTS, Table, compare
from synclave_server.evaluation.drawings import drawings
from synclave_server.evaluation.ranking import BOOTSTRAPS
from synclave_server.evaluation.report import render_report
from synclave_server.evaluation.run_record import RunRecord, read_run
from synclave_server.evaluation.sites import site_results, spread, unseen
from synclave_server.evaluation.targets import TARGET_PATIENTS, choose_targets, target_measures
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import CHUNK_ROWS
from synclave_shared.errors import DataError

__all__ = ["FORMAT", "evaluate"]

FORMAT: Final = "synclave-evaluation/1"
"""Names the layout of ``metrics.json``."""
MARKED: Final = 8
"""Deviating codes named in figure and table."""

SUMMARY: Final = ("prevalence_log_r2", "correlation_pearson", "discriminator_boosting", "target_forest_auroc")
"""Measures that stand for the whole report, beside what boosting learns of the label."""

Progress = Callable[[str], None]
"""Is told what is being measured."""


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
    expected = [("real", real, 4), ("synthetic", synthetic, 2), ("train", train, 1)]
    for name, dataset, least in [*expected, *((f"site {site}", patients, 1) for site, patients in sites.items())]:
        if dataset is not None:
            _check(schema, name, dataset, least)
    record = None
    if run is not None:
        told("ledger")
        record = read_run(run)
        _check_origin(sampling, record)
    tables = [Table(features=d.features[:], labels=d.labels) for d in (real, synthetic)]
    train_table = Table(features=train.features[:], labels=train.labels) if train is not None else None
    comparison = compare(tables[0], tables[1], train_table, schema.groups, np.random.default_rng([seed, 0]))
    chosen = choose_targets(schema, comparison.reference, targets)
    label, values = schema.label.name, schema.label.values
    measures = [
        *fidelity.fidelity_measures(comparison, schema.groups, label, values, seed, told),
        *utility.utility_measures(comparison, label, values, seed, told),
        *target_measures(comparison, chosen, len(values), seed, told),
        *augmentation.augmentation_measures(comparison, train_table, label, values, seed, told),
        *disclosure.disclosure_measures(tables[0], tables[1], train_table, schema.groups, seed, told),
    ]
    seen = real.select(comparison.other_half) if train is None else train
    at_sites = {name: unseen(patients, seen) for name, patients in sites.items()}
    site_tables = {name: Table(features=d.features[:], labels=d.labels) for name, d in at_sites.items()}
    by_site = site_results(comparison, site_tables, schema.groups, label, values, seed, told)
    told("figures and report")
    prevalences = [t.features.mean(axis=0, dtype=np.float64) for t in (comparison.reference, comparison.synthetic)]
    sizes = (len(comparison.reference), len(comparison.synthetic))
    marked = plots.largest_deviations(prevalences[0], prevalences[1], sizes, MARKED)
    metrics = {
        "format": FORMAT,
        "schema": {
            "name": schema.name,
            "title": schema.title,
            "digest": schema.digest,
            "columns": schema.width,
            "label": schema.label.name,
            "label_title": schema.label.title,
            "label_values": list(schema.label.values),
        },
        "cohorts": {
            "real": len(real),
            "synthetic": len(synthetic),
            "train": len(train) if train is not None else None,
            "reference": sizes[0],
            "compared": sizes[1],
            "halved": comparison.split,
        },
        "settings": {
            "seed": seed,
            "most_patients": MAX_PATIENTS,
            "log_floor": fidelity.log_floor(comparison.reference, comparison.synthetic),
            "rare_below": fidelity.RARE,
            "minimum_carriers": fidelity.MINIMUM_CARRIERS,
            "mmd_patients": fidelity.MMD_PATIENTS,
            "correlated_patients": fidelity.CORRELATED_PATIENTS,
            "discriminator_patients": fidelity.DISCRIMINATOR_PATIENTS,
            "neighbour_patients": disclosure.NEIGHBOUR_PATIENTS,
            "targets": [target.name for target in chosen],
            "target_patients": TARGET_PATIENTS,
            "augmented_patients": augmentation.AUGMENTED_PATIENTS,
            "alphas": list(augmentation.ALPHAS),
            "bootstraps": BOOTSTRAPS,
        },
        "summary": {
            m.key: {
                "value": m.value.value,
                "ceiling": m.ceiling.value,
                "floor": m.floor.value,
                "of_ceiling": m.of_ceiling,
            }
            for m in measures
            if m.key in SUMMARY or m.key.startswith("tstr_boosting_auroc[")
        },
        "measures": {measure.key: measure.to_json() for measure in measures},
        "sites": {site.name: site.to_json() for site in by_site},
        "site_spread": spread(by_site),
        "label_balance": _label_balance(schema, real, synthetic),
        "largest_deviations": [
            {
                "column": schema.columns[column],
                "title": schema.titles[column],
                "real": float(prevalences[0][column]),
                "synthetic": float(prevalences[1][column]),
            }
            for column in marked
        ],
        "privacy": record.to_json() if record else None,
        "sampling": dict(sampling) if sampling is not None else None,
        "synthetic_digest": _digest(synthetic),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("synclave", "numpy", "scikit-learn", "matplotlib")},
        },
    }
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    metrics = json.loads(text)
    drawn = drawings(schema, comparison, marked, measures, chosen, by_site, metrics, record)
    page = render_report(metrics, measures, by_site, drawn)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "metrics.json", text)
    _write(out / "report.html", page)
    return dict(metrics)


def _check_origin(sampling: Mapping[str, Any] | None, record: RunRecord) -> None:
    """Refuse to state the epsilon of one run for patients of another."""
    plan = None if sampling is None else sampling.get("plan_digest")
    if plan is not None and plan != record.plan.digest:
        raise DataError(
            expected=f"synthetic patients of the run's plan {record.plan.digest[:16]}",
            found=f"patients sampled from a snapshot of plan {str(plan)[:16]}",
            remedy="Give the run folder of the training they come from, or none.",
        )


def _check(schema: Schema, name: str, dataset: PatientDataset, least: int) -> None:
    values = len(schema.label.values)
    if len(dataset) < least:
        raise DataError(
            expected=f"at least {least} {name} patients", found=str(len(dataset)), remedy="Evaluate on more patients."
        )
    if dataset.features.shape[1] != schema.width:
        raise DataError(
            expected=f"{schema.width} columns of schema {schema.name} in the {name} patients",
            found=str(dataset.features.shape[1]),
            remedy="Read all data sets with the same schema.",
        )
    if dataset.labels.min() < 0 or dataset.labels.max() >= values:
        raise DataError(
            expected=f"labels from 0 to {values - 1} in the {name} patients",
            found=f"{dataset.labels.min()} to {dataset.labels.max()}",
            remedy="Read all data sets with the same schema.",
        )


def _label_balance(schema: Schema, real: PatientDataset, synthetic: PatientDataset) -> list[dict[str, Any]]:
    shares = [np.bincount(d.labels, minlength=len(schema.label.values)) / len(d) for d in (real, synthetic)]
    return [
        {"value": value, "real": float(shares[0][place]), "synthetic": float(shares[1][place])}
        for place, value in enumerate(schema.label.values)
    ]


def _digest(dataset: PatientDataset) -> str:
    """SHA-256 over shape, packed features and labels: names the cohort independently of the file's format."""
    digest = hashlib.sha256(f"{dataset.features.shape}".encode())
    for start in range(0, len(dataset), CHUNK_ROWS):
        digest.update(np.packbits(dataset.features[start : start + CHUNK_ROWS], axis=1).tobytes())
    digest.update(dataset.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    """Write all or nothing: a report is never half there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
