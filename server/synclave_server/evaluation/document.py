"""What every evaluation says, whatever the kind of its data: the checks before it, ``metrics.json``, and two files."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.augmentation import ALPHAS, AUGMENTED_PATIENTS
from synclave_server.evaluation.calibration import CALIBRATION_BINS
from synclave_server.evaluation.comparison import MAX_PATIENTS, Comparison
from synclave_server.evaluation.disclosure import MEMBER_PATIENTS, NEIGHBOUR_PATIENTS
from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.ranking import BOOTSTRAPS
from synclave_server.evaluation.run_record import RunRecord, read_run
from synclave_server.evaluation.sites import SiteResult, spread
from synclave_shared.data.schema import PatientSchema
from synclave_shared.errors import DataError

__all__ = ["FORMAT", "Patients", "Progress", "begin", "check_labels", "check_origin", "document", "publish", "unfit"]

FORMAT: Final = "synclave-evaluation/1"
"""Names the layout of ``metrics.json``."""
TAUGHT: Final = "tstr_boosting_auroc["
"""Begins the keys of what boosting learns of the label; they are always in the summary."""

Progress = Callable[[str], None]
"""Is told what is being measured."""


class Patients(Protocol):
    """A data set of any modality."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Position of each patient's value among the schema's label values [N]."""

    def __len__(self) -> int:
        """Number of patients N."""


P = TypeVar("P", bound=Patients)


def begin(
    cohorts: tuple[P, P, P | None],
    sites: Mapping[str, P],
    check: Callable[[str, P, int], None],
    run: Path | None,
    sampling: Mapping[str, Any] | None,
    told: Progress,
) -> RunRecord | None:
    """What comes before every evaluation: the data sets are checked, and the run is read.

    Args:
        cohorts: the real, synthetic and training patients.
        sites: held-out real patients of single sites, by name.
        check: raises if the patients of this name do not fit the schema, or are fewer than so many.
        run: folder of the run that the model comes from.
        sampling: how the synthetic patients were made; None if nobody knows.
        told: is told what is being done.

    Raises:
        DataError: if a data set does not fit, or the synthetic patients were sampled from another run.
        PlanError, LedgerError, SnapshotError: if ``run`` cannot be read.
    """
    expected = [*zip(("real", "synthetic", "train"), cohorts, (4, 2, 1), strict=True)]
    for name, patients, least in [*expected, *((f"site {site}", own, 1) for site, own in sites.items())]:
        if patients is not None:
            check(name, patients, least)
    if run is None:
        return None
    told("ledger")
    record = read_run(run)
    check_origin(sampling, record)
    return record


def check_labels(schema: PatientSchema, name: str, patients: Patients, least: int) -> None:
    """Raise a :class:`DataError` if the ``name`` patients are fewer than ``least`` or have other labels."""
    values = len(schema.label.values)
    if len(patients) < least:
        raise DataError(
            expected=f"at least {least} {name} patients", found=str(len(patients)), remedy="Evaluate on more patients."
        )
    if patients.labels.min() < 0 or patients.labels.max() >= values:
        raise unfit(
            f"labels from 0 to {values - 1} in the {name} patients",
            f"{patients.labels.min()} to {patients.labels.max()}",
        )


def unfit(expected: str, found: str) -> DataError:
    """The error about a data set that is not of the schema."""
    return DataError(expected=expected, found=found, remedy="Read all data sets with the same schema.")


def check_origin(sampling: Mapping[str, Any] | None, record: RunRecord) -> None:
    """Refuse to state the epsilon of one run for patients of another."""
    plan = None if sampling is None else sampling.get("plan_digest")
    if plan is not None and plan != record.plan.digest:
        raise DataError(
            expected=f"synthetic patients of the run's plan {record.plan.digest[:16]}",
            found=f"patients sampled from a snapshot of plan {str(plan)[:16]}",
            remedy="Give the run folder of the training they come from, or none.",
        )
    target = {} if sampling is None else sampling.get("request", {})
    if target.get("target") is not None and float(target.get("target_strength", 0)):
        # Clinical model and influence vector were paid for too: one run's epsilon would be too small.
        raise DataError(
            expected="patients that one run alone has to do with, if the report shall state its epsilon",
            found=f"patients guided by a clinical model, {str(target['target'])[:16]}",
            remedy="Leave --run out; what all runs together cost a site is shown by `synclave-site budget`.",
        )


def document(
    schema: PatientSchema,
    comparison: Comparison,
    cohorts: tuple[Patients, Patients, Patients | None],
    measures: Sequence[Measure],
    summary: Collection[str],
    sites: Sequence[SiteResult],
    record: RunRecord | None,
    *,
    seed: int,
    settings: Mapping[str, Any],
    sampling: Mapping[str, Any] | None,
    digest: str,
    libraries: Sequence[str] = (),
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``metrics.json``, all of it plain values.

    Args:
        schema: of all data sets.
        comparison: what was compared.
        cohorts: the real, synthetic and training patients as they were given.
        measures: all measures of the whole comparison.
        summary: keys of those that stand for the rest, beside what boosting learns of the label.
        sites: measures at each site.
        record: of the training, if known.
        seed: of the evaluation.
        settings: thresholds of this kind of data.
        sampling: provenance of the synthetic patients.
        digest: SHA-256 of the synthetic patients.
        libraries: packages whose version matters besides the usual ones.
        own: what only this kind of data has; ``schema`` is added to what is said of the schema.
    """
    real, synthetic, train = cohorts
    shares = [np.bincount(d.labels, minlength=len(schema.label.values)) / len(d) for d in (real, synthetic)]
    metrics = {
        "format": FORMAT,
        "schema": {
            "name": schema.name,
            "modality": schema.modality,
            "title": schema.title,
            "digest": schema.digest,
            "columns": schema.width,
            "label": schema.label.name,
            "label_title": schema.label.title,
            "label_values": list(schema.label.values),
            **own.get("schema", {}),
        },
        "cohorts": {
            "real": len(real),
            "synthetic": len(synthetic),
            "train": len(train) if train is not None else None,
            "reference": len(comparison.reference),
            "compared": len(comparison.synthetic),
            "halved": comparison.split,
        },
        "settings": {
            "seed": seed,
            "most_patients": MAX_PATIENTS,
            **settings,
            "augmented_patients": AUGMENTED_PATIENTS,
            "alphas": list(ALPHAS),
            "calibration_bins": CALIBRATION_BINS,
            "neighbour_patients": NEIGHBOUR_PATIENTS,
            "member_patients": MEMBER_PATIENTS,
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
            if m.key in summary or m.key.startswith(TAUGHT)
        },
        "measures": {measure.key: measure.to_json() for measure in measures},
        "sites": {site.name: site.to_json() for site in sites},
        "site_spread": spread(sites),
        "label_balance": [
            {"value": value, "real": float(shares[0][place]), "synthetic": float(shares[1][place])}
            for place, value in enumerate(schema.label.values)
        ],
        **{key: value for key, value in own.items() if key != "schema"},
        "privacy": record.to_json() if record else None,
        "sampling": dict(sampling) if sampling is not None else None,
        "synthetic_digest": digest,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("synclave", "numpy", "scikit-learn", "matplotlib", *libraries)},
        },
    }
    return dict(json.loads(_text(metrics)))


def publish(out: Path, metrics: Mapping[str, Any], page: str) -> None:
    """Write ``metrics.json`` and ``report.html`` into the folder ``out``, which is made if missing."""
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "metrics.json", _text(metrics))
    _write(out / "report.html", page)


def _text(metrics: Mapping[str, Any]) -> str:
    return json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _write(path: Path, text: str) -> None:
    """Write all or nothing: a report is never half there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
