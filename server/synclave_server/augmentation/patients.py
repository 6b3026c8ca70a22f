"""What enlarging a training set must know of each kind of data: how it is read, learnt from and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synclave_server.evaluation.classifiers import QUICK, Models, classifiers
from synclave_server.evaluation.comparison import Table
from synclave_server.evaluation.series.classifiers import QUICK_OF_SERIES, series_classifiers
from synclave_server.evaluation.series.courses import courses
from synclave_shared.data.patient_table import to_table
from synclave_shared.data.patients import PatientDataset, together
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.dataset import together as series_together
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import PATIENTS, SERIES, series_table
from synclave_shared.data.tables import load_patients

__all__ = ["Patients", "PatientsOfKind", "of_codes", "of_series"]

Patients = TypeVar("Patients", PatientDataset, SeriesDataset)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientsOfKind(Generic[Patients]):
    """One kind of data.

    Attributes:
        load: reads patients from a file or folder; raises a DataError.
        join: patients of several files as one data set; raises a ValueError if one is in two of them.
        table: patients as classifiers see them.
        models: the classifiers.
        keys: those of them that are fast enough to be trained dozens of times.
        tables: patients as the tables of a cohort by their names, the table of patients first; takes where in its bin
            each number lies, see :func:`~synclave_shared.data.patient_table.to_table`.
        folder: whether those tables are files in a folder, or one file.
    """

    load: Callable[[Path], Patients]
    join: Callable[[Sequence[Patients]], Patients]
    table: Callable[[Patients], Table]
    models: Models
    keys: Sequence[str]
    tables: Callable[[Patients, NDArray[np.float64]], Mapping[str, pa.Table]]
    folder: bool


def of_codes(schema: Schema) -> PatientsOfKind[PatientDataset]:
    """Patients as rows of a wide patient table."""
    return PatientsOfKind(
        load=lambda path: load_patients(schema, path),
        join=together,
        table=lambda dataset: Table(features=dataset.features[:], labels=dataset.labels),
        models=classifiers,
        keys=QUICK,
        tables=lambda dataset, within: {
            PATIENTS: to_table(schema, dataset.features[:], dataset.labels, dataset.patient_ids, within)
        },
        folder=False,
    )


def of_series(schema: SeriesSchema) -> PatientsOfKind[SeriesDataset]:
    """Patients as the two tables of a series cohort."""
    return PatientsOfKind(
        load=lambda path: load_series(schema, path),
        join=series_together,
        table=courses,
        models=series_classifiers,
        keys=QUICK_OF_SERIES,
        tables=lambda dataset, within: {
            PATIENTS: to_table(schema, dataset.static, dataset.labels, dataset.patient_ids, within),
            SERIES: series_table(schema, dataset),
        },
        folder=True,
    )
