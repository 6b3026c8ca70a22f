"""The wide patient table: one row per patient, readable by people and statistics programs, and exact both ways.

Columns: ``patient_id``; the label under its own name, as text; one column 0/1 for each code or flag (its column name,
``diagnosis:106``); one column for each category (text) and number. A number stands for its public bin: writing takes a
number of the bin, reading finds the bin again, nothing recorded is null. So features -> table -> features is exact.

In an augmented training set two columns more tell real from synthetic patients; see :mod:`synclave_shared.data.origin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from synclave_shared.data.bin_values import bin_values
from synclave_shared.data.encode import bin_positions
from synclave_shared.data.faults import FaultLog, shown
from synclave_shared.data.fields import CategoryField, NumberField, SchemaField
from synclave_shared.data.origin import ALPHA, ORIGIN
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import PATIENT_ID, PatientSchema
from synclave_shared.data.source import (
    EMPTY,
    SUFFIXES,
    Source,
    TextColumn,
    columns_at_once,
    open_source,
    source_columns,
)
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.errors import DataError

__all__ = [
    "is_patient_table",
    "read_patient_table",
    "read_wide",
    "to_table",
    "wide_columns",
    "write_patient_table",
]

_BITS: Final = {"0": 0, "1": 1, "false": 0, "true": 1}


def wide_columns(schema: PatientSchema) -> list[str]:
    """Names of the columns of the schema's patient table."""
    names = [PATIENT_ID, schema.label.name]
    for group in schema.groups:
        names += group.columns if group.kind == "binary" else [group.name]
    return names


def to_table(
    schema: PatientSchema,
    features: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    ids: list[str],
    within: npt.NDArray[np.float64] | None = None,
) -> pa.Table:
    """Lay patients out as a wide table.

    Args:
        schema: the public schema.
        features: 0 or 1, uint8 [patients, schema.width]; exactly one 1 in each categorical group.
        labels: positions in ``schema.label.values``, int64 [patients].
        ids: one distinct identifier per patient.
        within: for each patient and field of numbers how far into its bin the number lies, between 0 and 1, float64
            [patients, fields of numbers]; None: in the middle.

    Raises:
        DataError: if the arrays do not fit the schema or each other.
    """
    if features.shape != (len(ids), schema.width) or labels.shape != (len(ids),):
        raise _unfit(f"features {features.shape}, labels {labels.shape} and {len(ids)} identifiers")
    if len(set(ids)) != len(ids) or "" in ids:
        raise _unfit("an identifier that is empty or occurs twice")
    if features.size and features.max() > 1:
        raise _unfit("a feature that is neither 0 nor 1")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(schema.label.values):
        raise _unfit("a label that is no position in the label's values")
    columns: dict[str, Any] = {
        PATIENT_ID: pa.array(ids, pa.string()),
        schema.label.name: _chosen(pa.array(schema.label.values, pa.string()), labels),
    }
    number = 0
    for field, group in schema.items():
        block = features[:, group.start : group.stop]
        if group.kind == "binary":
            for offset, name in enumerate(group.columns):
                columns[name] = pa.array(np.ascontiguousarray(block[:, offset]))
            continue
        if len(block) and not (block.sum(axis=1, dtype=np.int64) == 1).all():
            raise _unfit(f"a patient without exactly one value of {group.name}")
        position = block.argmax(axis=1) if len(block) else np.zeros(0, dtype=np.int64)
        if isinstance(field, NumberField):
            columns[group.name] = _numbers_of(field, position, None if within is None else within[:, number])
            number += 1
        else:
            columns[group.name] = _chosen(pa.array([value.code for value in field.values()], pa.string()), position)
    return pa.table(columns)


def write_patient_table(
    path: Path,
    schema: PatientSchema,
    features: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    ids: list[str],
    metadata: Mapping[str, str] | None = None,
    within: npt.NDArray[np.float64] | None = None,
) -> None:
    """Write a wide patient table as Parquet or CSV, by the ending of ``path``; whole or not at all.

    Args:
        path: where to; an existing file is replaced.
        schema: the public schema.
        features: as in :func:`to_table`.
        labels: as in :func:`to_table`.
        ids: as in :func:`to_table`.
        metadata: public notes, such as provenance, kept in a Parquet file's key-value metadata.
        within: as in :func:`to_table`.

    Raises:
        DataError: if the arrays do not fit the schema, or the ending is neither.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise _unfit(f"the ending {path.suffix!r}; use .parquet or .csv")
    notes = {"synclave.schema": schema.name, "synclave.schema_digest": schema.digest, **(metadata or {})}
    table = to_table(schema, features, labels, ids, within).replace_schema_metadata(notes)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        if path.suffix == ".csv":
            pa.csv.write_csv(table, unfinished)
        else:
            pq.write_table(table, unfinished, compression="zstd", write_page_checksum=True)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_patient_table(schema: PatientSchema, path: Path) -> PatientDataset:
    """Read a wide patient table, in the order of its rows.

    Raises:
        DataError: if anything does not fit the schema.
    """
    faults = FaultLog()
    dataset = read_wide(schema, path, faults)
    if dataset is None or faults.total:
        raise faults.report(schema=schema.name, path=path, patients=0, rows={}, label_counts={}).error()
    return dataset


def is_patient_table(schema: PatientSchema, path: Path) -> bool:
    """Whether a file is a wide patient table of the schema, judged by its column names alone.

    It is if it has all of the table's columns; and also, so that a damaged one is reported as such, if it has the
    identifier and the label and not the patient column of the schema's own table.
    """
    names = set(source_columns(path) or ()) - {ORIGIN, ALPHA} if path.suffix in SUFFIXES else set()
    if names == set(wide_columns(schema)):
        return True
    keys = {table.key for table in schema.tables}
    return {PATIENT_ID, schema.label.name} <= names and not keys & names


def read_wide(schema: PatientSchema, path: Path, faults: FaultLog) -> PatientDataset | None:
    """Read a wide patient table and record every fault; None if there is one."""
    patient_ids: list[str] = []
    labels = np.zeros(0, dtype=np.int64)
    label_values = {value: position for position, value in enumerate(schema.label.values)}
    places: list[npt.NDArray[np.int64]] = []
    names = wide_columns(schema)
    fields = _field_columns(schema)
    at_once = columns_at_once(path)
    for start in range(0, len(names), at_once):
        source = open_source(path, names[start : start + at_once], faults)
        if source is None:
            return None
        for name in names[start : start + at_once]:
            if name == PATIENT_ID:
                patient_ids = _identifiers(source, faults)
            elif name == schema.label.name:
                labels = _texts(source, name, label_values, faults)
            else:
                field, column = fields[name]
                position = _positions(source, name, field, faults)
                known = np.flatnonzero(position >= 0)
                places.append(known * schema.width + column + position[known])
    if not labels.size:
        faults.add(file=path.name, code="no-patients", expected="at least one patient", found="none")
    if faults.total:
        return None
    features = SparseRows.of_places(np.concatenate(places), len(labels), schema.width)
    return PatientDataset(features=features, labels=labels, patient_ids=patient_ids)


def _field_columns(schema: PatientSchema) -> dict[str, tuple[SchemaField, int]]:
    """Of each column of the table but the first two: its field, and its (first) column of the features."""
    return {
        name: (field, group.start + offset)
        for field, group in schema.items()
        for offset, name in enumerate(group.columns if group.kind == "binary" else [group.name])
    }


def _positions(source: Source, name: str, field: SchemaField, faults: FaultLog) -> npt.NDArray[np.int64]:
    """Which of its columns of the features each cell of a table's column sets, -1 for none [rows]."""
    if isinstance(field, NumberField):
        return _numbers(source, name, field, faults)
    if isinstance(field, CategoryField):
        return _texts(source, name, {value.code: position for position, value in enumerate(field.values())}, faults)
    return _texts(source, name, _BITS, faults) - 1


def _identifiers(source: Source, faults: FaultLog) -> list[str]:
    column = source.column(PATIENT_ID, (), faults)
    if column is None:
        return []
    where = {"file": source.file, "column": PATIENT_ID}
    empty = source.rows[column.index == EMPTY]
    faults.add_rows(empty, **where, code="null-key", expected="an identifier", found=lambda _: "nothing")
    twice = column.where(np.flatnonzero(column.occurrences() > 1).tolist())
    faults.add_rows(
        source.rows[twice],
        **where,
        code="duplicate-patient",
        expected="one row per patient",
        found=lambda i: shown(column.texts[column.index[twice[i]]]),
    )
    return [column.texts[index] for index in column.index.tolist() if index >= 0]


def _texts(source: Source, name: str, values: Mapping[str, int], faults: FaultLog) -> npt.NDArray[np.int64]:
    """What each row of a column means by ``values``; -1 and a fault where it means nothing [rows]."""
    column = source.column(name, (), faults)
    if column is None:
        return np.full(source.table.num_rows, -1, dtype=np.int64)
    meaning = np.array([values.get(text, -1) for text in column.texts] + [-1, -1], dtype=np.int64)[column.index]
    expected = f"one of {', '.join(list(values)[:12])}"
    _fault_meaningless(source, name, column, np.flatnonzero(meaning < 0), expected, faults)
    return meaning


def _numbers(source: Source, name: str, field: NumberField, faults: FaultLog) -> npt.NDArray[np.int64]:
    """Bin of each row of a number's column; -1 and a fault where there is none [rows]."""
    column = source.column(name, (), faults)
    if column is None:
        return np.full(source.table.num_rows, -1, dtype=np.int64)
    missing = len(field.bins) if field.missing == "own-category" else -1
    numbers = [field.number(text) for text in column.texts]
    inside = [number is not None and float(field.minimum) <= number <= float(field.maximum) for number in numbers]
    values = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    positions = np.where(np.array(inside, dtype=bool), bin_positions(field, values), -1)
    # The two places after the texts are reached by FAULTY (-2) and EMPTY (-1).
    meaning: npt.NDArray[np.int64] = np.append(positions, [-1, missing]).astype(np.int64)[column.index]
    expected = f"{'a whole number' if field.integer else 'a number'} from {field.minimum} to {field.maximum}"
    _fault_meaningless(source, name, column, np.flatnonzero(meaning < 0), expected, faults)
    return meaning


def _fault_meaningless(
    source: Source, name: str, column: TextColumn, rows: npt.NDArray[np.intp], expected: str, faults: FaultLog
) -> None:
    for index_is_empty, code in ((True, "missing-value"), (False, "outside-vocabulary")):
        some = rows[(column.index[rows] == EMPTY) == index_is_empty]
        some = some if index_is_empty else some[column.index[some] >= 0]
        faults.add_rows(
            source.rows[some],
            file=source.file,
            column=name,
            code=code,
            expected=expected,
            found=lambda i, some=some, empty=index_is_empty: (  # type: ignore[misc]
                "nothing" if empty else shown(column.texts[column.index[some[i]]])
            ),
        )


def _chosen(values: pa.Array[Any], position: npt.NDArray[np.int64]) -> pa.Array[Any]:
    """``values[position]`` [rows]."""
    return values.take(pa.array(position, pa.int64()))


def _numbers_of(
    field: NumberField, position: npt.NDArray[np.int64], within: npt.NDArray[np.float64] | None
) -> pa.Array[Any]:
    """A number for each patient's bin, null for "not recorded"."""
    values = bin_values(field, position, within)
    return pa.array(values, pa.float64(), from_pandas=True).cast(pa.int64() if field.integer else pa.float64())


def _unfit(found: str) -> DataError:
    return DataError(
        expected="patients that fit the schema", found=found, remedy="Use arrays made for this very schema."
    )
