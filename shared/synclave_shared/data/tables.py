"""From a site's folder (or one file) to patients, with every fault found in one pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from synclave_shared.data.faults import CheckReport, FaultLog
from synclave_shared.data.origin import Origin, check_origin
from synclave_shared.data.patient_table import is_patient_table, read_wide
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.placing import PlacedTables, place_tables
from synclave_shared.data.schema import PatientSchema, Schema

__all__ = ["check_folder", "load_patients", "read_checked", "read_patients"]


def load_patients(schema: Schema, path: Path, origin: Origin = "real") -> PatientDataset:
    """Read a site's patients, sorted by identifier.

    Args:
        schema: the public schema.
        path: a folder with the schema's tables; or one file: the only table of a schema with one table, or a wide
            patient table.
        origin: what rows with a column ``_origin`` must be marked as.

    Raises:
        DataError: if anything does not fit the schema; it tells the first faults and the number of all.
    """
    dataset, report = read_patients(schema, path, origin)
    if dataset is None:
        raise report.error()
    return dataset


def check_folder(schema: Schema, folder: Path) -> CheckReport:
    """Check a folder (or one file) against a schema and report everything that does not fit."""
    return read_patients(schema, folder)[1]


def read_patients(schema: Schema, path: Path, origin: Origin = "real") -> tuple[PatientDataset | None, CheckReport]:
    """Read and check in one pass.

    Returns:
        The patients, or None if there is any fault; and the report.
    """

    def read(faults: FaultLog, rows: dict[str, int]) -> PatientDataset | None:
        if path.is_file() and is_patient_table(schema, path):
            dataset = read_wide(schema, path, faults)
            rows |= {} if dataset is None else {path.name: len(dataset)}
            return dataset
        placed = place_tables(schema, path, faults)
        rows |= placed.files
        return _encoded(schema, placed, faults)

    return read_checked(schema, path, read, origin)


class _Labelled(Protocol):
    @property
    def labels(self) -> npt.NDArray[np.int64]: ...


Dataset = TypeVar("Dataset", bound=_Labelled)


def read_checked(
    schema: PatientSchema,
    path: Path,
    read: Callable[[FaultLog, dict[str, int]], Dataset | None],
    origin: Origin,
) -> tuple[Dataset | None, CheckReport]:
    """Read a data set of any modality and report what there was.

    Args:
        schema: the public schema.
        path: what is read.
        read: does it; takes the log of faults, and a dictionary for the rows of each file.
        origin: what rows with a column ``_origin`` must be marked as.

    Returns:
        The data set, or None if there is any fault; and the report.
    """
    faults = FaultLog()
    rows: dict[str, int] = {}
    dataset: Dataset | None = None
    try:
        dataset = read(faults, rows)
        check_origin(path, origin, faults)
    except PermissionError as error:
        faults.add(
            file=str(path),
            code="not-found",
            expected="a folder this user may read",
            found=error.strerror or "no access",
        )
    if faults.total:
        dataset = None
    counts = {}
    if dataset is not None:
        numbers = np.bincount(dataset.labels, minlength=len(schema.label.values)).tolist()
        counts = dict(zip(schema.label.values, numbers, strict=True))
    report = faults.report(
        schema=schema.name,
        path=path,
        patients=0 if dataset is None else len(dataset.labels),
        rows=rows,
        label_counts=counts,
    )
    return dataset, report


def _encoded(schema: Schema, placed: PlacedTables, faults: FaultLog) -> PatientDataset | None:
    labels = placed.labels(schema, faults)
    features = placed.features(schema, faults)
    if labels is None or faults.total:
        return None
    kept = placed.labelled(schema, labels, faults)
    if not len(kept):
        return None
    everyone = PatientDataset(features=features, labels=labels, patient_ids=placed.patient_ids)
    return everyone if len(kept) == len(everyone) else everyone.select(kept)
