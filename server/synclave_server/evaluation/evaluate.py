"""Measure synthetic patients and write ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from synclave_server.evaluation import charts, disclosure, fidelity, plots, utility
from synclave_server.evaluation.comparison import MAX_PATIENTS, Comparison, Table, compare
from synclave_server.evaluation.figure import Drawing
from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.ranking import BOOTSTRAPS
from synclave_server.evaluation.report import render_report
from synclave_server.evaluation.run_record import RunRecord, read_run
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.errors import DataError

__all__ = ["FORMAT", "evaluate"]

FORMAT: Final = "synclave-evaluation/1"
"""Names the layout of ``metrics.json``."""
MAP_CODES: Final = 32
"""Codes in the correlation maps: as many as can be read."""
MAP_MOST_COMMON: Final = 0.95
"""Codes that more patients have than this share say nothing in a correlation map."""
MARKED: Final = 8
"""Deviating codes named in figure and table."""

SUMMARY: Final = ("prevalence_log_r2", "correlation_pearson", "discriminator_boosting", "tstr_boosting_auroc")
"""Measures (beginnings of their keys) that stand in for the whole report on a command line."""

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

    Returns:
        The content of ``metrics.json``.

    Raises:
        DataError: if a data set is too small or has not the schema's columns or labels, or the synthetic patients were
            sampled from another run.
        PlanError, LedgerError, SnapshotError: if ``run`` cannot be read.
    """
    told = progress or (lambda _: None)
    for name, dataset, least in (("real", real, 4), ("synthetic", synthetic, 2), ("train", train, 1)):
        if dataset is not None:
            _check(schema, name, dataset, least)
    record = None
    if run is not None:
        told("ledger")
        record = read_run(run)
        _check_origin(sampling, record)
    tables = [Table(features=d.features, labels=d.labels) for d in (real, synthetic)]
    train_table = Table(features=train.features, labels=train.labels) if train is not None else None
    comparison = compare(tables[0], tables[1], train_table, schema.groups, np.random.default_rng([seed, 0]))
    measures = [
        *fidelity.fidelity_measures(comparison, schema.groups, schema.label.name, schema.label.values, seed, told),
        *utility.utility_measures(comparison, schema.label.name, schema.label.values, seed, told),
        *disclosure.disclosure_measures(tables[0], tables[1], train_table, schema.groups, seed, told),
    ]
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
            "discriminator_patients": fidelity.DISCRIMINATOR_PATIENTS,
            "neighbour_patients": disclosure.NEIGHBOUR_PATIENTS,
            "bootstraps": BOOTSTRAPS,
        },
        "summary": {
            m.key: {"value": m.value.value, "ceiling": m.ceiling.value, "floor": m.floor.value}
            for m in measures
            if m.key.startswith(SUMMARY) and not m.key.startswith("prevalence_log_r2[")
        },
        "measures": {measure.key: measure.to_json() for measure in measures},
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
    page = render_report(
        metrics, measures, _drawings(schema, comparison, prevalences, marked, measures, metrics, record)
    )
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
    if dataset.features.max(initial=0) > 1:
        raise DataError(
            expected=f"0 and 1 in the {name} patients",
            found=str(int(dataset.features.max())),
            remedy="Read the data with load_patients.",
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
    digest.update(np.packbits(dataset.features, axis=1).tobytes())
    digest.update(dataset.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _drawings(
    schema: Schema,
    comparison: Comparison,
    prevalences: list[Any],
    marked: list[int],
    measures: list[Measure],
    metrics: dict[str, Any],
    record: RunRecord | None,
) -> dict[str, Drawing]:
    reference, synthetic = comparison.reference, comparison.synthetic
    drawn = {
        "prevalence": plots.prevalence_scatter(
            prevalences[0], prevalences[1], (len(reference), len(synthetic)), schema.titles, marked
        ),
        "labels": charts.label_balance(
            schema.label.values,
            [share["real"] for share in metrics["label_balance"]],
            [share["synthetic"] for share in metrics["label_balance"]],
            f"Shares of: {schema.label.title or schema.label.name}.",
        ),
    }
    columns, _ = fidelity.compared_pairs(reference, schema.groups)
    columns = columns[prevalences[0][columns] <= MAP_MOST_COMMON]
    columns = np.sort(columns[np.argsort(-prevalences[0][columns], kind="stable")[:MAP_CODES]])
    if len(columns) >= 3:
        drawn |= _maps(schema, comparison, columns)
    tasks = utility.tasks(reference, schema.label.values)
    for area in ("auroc", "auprc"):
        chosen = [m for m in measures if m.section == utility.SECTION and f"_{area}[" in m.key]
        guess = {
            m.key: 0.5 if area == "auroc" else t.base_rate for m in chosen for t in tasks if f"[{t.value}]" in m.key
        }
        drawn[area] = charts.utility_bars(area.upper(), chosen, guess)
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
    if together:
        drawn["epsilon"] = charts.epsilon_curves(
            [dataclasses.replace(curve, names=tuple(names)) for curve, names in together.items()]
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


def _write(path: Path, text: str) -> None:
    """Write all or nothing: a report is never half there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
