"""The two tables of a series cohort, such as a synthetic one, readable by people and statistics programs.

``patients``: one row per patient, as the wide patient table of the schema's fields and label. ``series``: one row per
patient and step of the stay, with ``patient_id``, ``step`` from 0, and one column for each channel in its unit, null
where nothing was observed. A number that was observed is exact to the rounding of a float32 both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synclave_shared.data.faults import FaultLog, shown
from synclave_shared.data.new_folder import new_folder
from synclave_shared.data.origin import ALPHA, ORIGIN
from synclave_shared.data.patient_table import read_wide, to_table, wide_columns
from synclave_shared.data.schema import PATIENT_ID, Label
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.encode import encode_series
from synclave_shared.data.series.schema import STEP, Grid, SeriesSchema, SeriesTable
from synclave_shared.data.source import SUFFIXES, open_source, source_columns
from synclave_shared.errors import DataError

__all__ = [
    "PATIENTS",
    "SERIES",
    "is_series_cohort",
    "read_cohort",
    "recorded",
    "series_columns",
    "series_table",
    "write_cohort",
]

PATIENTS: Final = "patients"
"""Name of the table of patients."""
SERIES: Final = "series"
"""Name of the table of their series."""


def series_columns(schema: SeriesSchema) -> list[str]:
    """Names of the columns of the table of series."""
    return [PATIENT_ID, STEP, *(channel.name for channel in schema.channels)]


def series_table(schema: SeriesSchema, dataset: SeriesDataset) -> pa.Table:
    """Lay series out as a table: the steps of each patient's stay, one after the other.

    Raises:
        DataError: if the data set does not have the schema's steps and channels.
    """
    if dataset.values.shape[1:] != (schema.horizon, len(schema.channels)):
        raise _unfit(f"series of shape {dataset.values.shape}")
    patient, step = np.nonzero(np.arange(schema.horizon) < dataset.lengths[:, None])
    columns: dict[str, Any] = {
        PATIENT_ID: pa.array(dataset.patient_ids, pa.string()).take(pa.array(patient, pa.int64())),
        STEP: pa.array(step, pa.int32()),
    }
    for position, channel in enumerate(schema.channels):
        unobserved = dataset.observed[patient, step, position] == 0
        columns[channel.name] = pa.array(channel.unscaled(dataset.values[patient, step, position]), mask=unobserved)
    return pa.table(columns)


def recorded(schema: SeriesSchema, dataset: SeriesDataset) -> SeriesDataset:
    """Patients whose values are whole steps of the channels' resolutions, as a hospital would have recorded them."""
    values = np.stack(
        [channel.recorded(dataset.values[:, :, place]) for place, channel in enumerate(schema.channels)], axis=-1
    )
    return replace(dataset, values=np.where(dataset.observed, values, np.float32(0.0)))


def write_cohort(
    folder: Path, schema: SeriesSchema, dataset: SeriesDataset, metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``patients.parquet`` and ``series.parquet`` into a new folder, which is there whole or not at all.

    Args:
        folder: where to; it must not exist.
        schema: the public schema.
        dataset: the patients.
        metadata: public notes, such as provenance, kept in the files' key-value metadata.

    Raises:
        DataError: if the data set does not fit the schema.
        ConfigurationError: if the folder exists.
    """
    notes = {"synclave.schema": schema.name, "synclave.schema_digest": schema.digest, **(metadata or {})}
    patients = to_table(schema, dataset.static, dataset.labels, dataset.patient_ids)
    series = series_table(schema, dataset)
    with new_folder(folder) as unfinished:
        for name, table in ((PATIENTS, patients), (SERIES, series)):
            path = unfinished / f"{name}.parquet"
            pq.write_table(table.replace_schema_metadata(notes), path, compression="zstd", write_page_checksum=True)


def is_series_cohort(schema: SeriesSchema, path: Path) -> bool:
    """Whether a folder holds the two tables of a series cohort of the schema.

    It does if their columns are a cohort's; and also, so that a damaged one is reported as such, if the schema's own
    tables are not called like that.
    """
    files = {name: _file(path, name) for name in (PATIENTS, SERIES)}
    if None in files.values():
        return False
    columns = {name: _columns(file) for name, file in files.items() if file is not None}
    return columns == _cohort_columns(schema) or not columns.keys() <= {table.name for table in schema.tables}


def read_cohort(schema: SeriesSchema, folder: Path, faults: FaultLog, files: dict[str, int]) -> SeriesDataset | None:
    """Read the two tables of a series cohort, patients in the order of their table; None if there is any fault.

    Args:
        schema: the public schema.
        folder: where they are.
        faults: takes what does not fit.
        files: takes the number of rows of each file.
    """
    patients, series = _file(folder, PATIENTS), _file(folder, SERIES)
    for name, expected in _cohort_columns(schema).items():
        _check_columns(_file(folder, name), expected, faults)
    people = read_wide(schema, patients, faults) if patients is not None else None
    if people is None or series is None:
        return None
    _check_steps(series, schema.horizon, faults)
    courses = encode_series(_as_written(schema), folder, faults, files, [])
    if courses is None or faults.total:
        return None
    place = {patient: position for position, patient in enumerate(courses.patient_ids)}
    courses = courses.select(np.array([place[patient] for patient in people.patient_ids], dtype=np.intp))
    return SeriesDataset(
        values=courses.values,
        observed=courses.observed,
        lengths=courses.lengths,
        static=people.features[:],
        labels=people.labels,
        patient_ids=people.patient_ids,
    )


def _cohort_columns(schema: SeriesSchema) -> dict[str, set[str]]:
    return {PATIENTS: set(wide_columns(schema)), SERIES: set(series_columns(schema))}


def _check_columns(file: Path | None, expected: set[str], faults: FaultLog) -> None:
    """Record columns too many; those that are missing are recorded by who reads them."""
    if file is None:
        return
    for name in sorted(_columns(file) - expected):
        faults.add(file=file.name, column=name, code="unknown-column", expected="a series cohort", found="one more")


def _columns(file: Path) -> set[str]:
    return set(source_columns(file) or ()) - {ORIGIN, ALPHA}


def _as_written(schema: SeriesSchema) -> SeriesSchema:
    """The schema that reads the series of a cohort: a step of the grid per row, each channel in its column."""
    label = schema.label
    rules: dict[str, Any] = {
        "table": SERIES,
        "code": None,
        "combine": "last",
        "outside": "fault",
        "mapping": {},
        "missing_values": (),
    }
    return SeriesSchema(
        name=schema.name,
        modality="series",
        tables=(
            SeriesTable(name=PATIENTS, patient=PATIENT_ID),
            # As the order column no step may occur twice for a patient.
            SeriesTable(name=SERIES, patient=PATIENT_ID, order=STEP, time=STEP, time_unit="minutes"),
        ),
        label=Label(
            name=label.name, values=label.values, table=PATIENTS, column=label.name, combine="any", missing="fault"
        ),
        grid=Grid(step_minutes=1, steps=schema.horizon, start="zero", missing="fault"),
        channels=tuple(channel.model_copy(update={**rules, "column": channel.name}) for channel in schema.channels),
    )


def _check_steps(file: Path, horizon: int, faults: FaultLog) -> None:
    source = open_source(file, [STEP], FaultLog())
    column = None if source is None else source.column(STEP, (), FaultLog())
    if source is None or column is None:
        return
    allowed = {str(step) for step in range(horizon)}
    wrong = column.where([position for position, text in enumerate(column.texts) if text not in allowed])
    faults.add_rows(
        source.rows[wrong],
        file=source.file,
        column=STEP,
        code="out-of-bounds",
        expected=f"a whole number from 0 to {horizon - 1}",
        found=lambda i: shown(column.texts[column.index[wrong[i]]]),
    )


def _file(folder: Path, name: str) -> Path | None:
    """The one file of a table; None if there is none, or two."""
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()]
    return files[0] if len(files) == 1 else None


def _unfit(found: str) -> DataError:
    return DataError(
        expected="series that fit the schema", found=found, remedy="Use a data set made for this very schema."
    )
