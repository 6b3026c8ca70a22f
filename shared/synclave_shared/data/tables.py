"""From a site's folder (or one file) to patients, with every fault found in one pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from synclave_shared.data.encode import UNPLACED, TableRows, encode_field, encode_label
from synclave_shared.data.faults import CheckReport, FaultLog, shown
from synclave_shared.data.fields import is_number, rest_of
from synclave_shared.data.patient_table import is_patient_table, read_wide
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema, Table
from synclave_shared.data.source import EMPTY, SUFFIXES, Source, TextColumn, open_source
from synclave_shared.data.sparse_rows import SparseRows

__all__ = ["check_folder", "load_patients", "read_patients"]


def load_patients(schema: Schema, path: Path) -> PatientDataset:
    """Read a site's patients, sorted by identifier.

    Args:
        schema: the public schema.
        path: a folder with the schema's tables; or one file: the only table of a schema with one table, or a wide
            patient table.

    Raises:
        DataError: if anything does not fit the schema; it tells the first faults and the number of all.
    """
    dataset, report = read_patients(schema, path)
    if dataset is None:
        raise report.error()
    return dataset


def check_folder(schema: Schema, folder: Path) -> CheckReport:
    """Check a folder (or one file) against a schema and report everything that does not fit."""
    return read_patients(schema, folder)[1]


def read_patients(schema: Schema, path: Path) -> tuple[PatientDataset | None, CheckReport]:
    """Read and check in one pass.

    Returns:
        The patients, or None if there is any fault; and the report.
    """
    faults = FaultLog()
    rows: dict[str, int] = {}
    dataset: PatientDataset | None = None
    try:
        if path.is_file() and is_patient_table(schema, path):
            dataset = read_wide(schema, path, faults)
            rows |= {} if dataset is None else {path.name: len(dataset)}
        else:
            dataset = _read_tables(schema, path, faults, rows)
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
        patients=0 if dataset is None else len(dataset),
        rows=rows,
        label_counts=counts,
    )
    return dataset, report


def _read_tables(schema: Schema, path: Path, faults: FaultLog, rows: dict[str, int]) -> PatientDataset | None:
    sources: dict[str, Source] = {}
    for table, file in _files(schema, path, faults):
        source = open_source(file, list(schema.used_columns(table)), faults)
        if source is not None:
            sources[table.name] = source
            rows[source.file] = source.table.num_rows
    keys = {
        table.name: sources[table.name].column(table.key, table.missing_values, faults)
        for table in schema.tables
        if table.name in sources
    }
    roll = keys.get(schema.label.table)
    # Sorted, so that the data set does not depend on the order of rows in the files. Without a roll the cells are
    # checked all the same.
    patient_ids = sorted(set(roll.texts)) if roll is not None else []
    if roll is not None and not patient_ids:
        faults.add(
            file=sources[schema.label.table].file, code="no-patients", expected="at least one patient", found="none"
        )
    owners = _owners(schema, sources, keys, patient_ids, faults)
    placed = {
        table.name: TableRows(
            source=sources[table.name],
            missing_values=table.missing_values,
            patient=owners[table.name],
            order=_order(table, sources[table.name], owners[table.name], faults),
            patients=len(patient_ids),
            code=table.code,
            codes=_codes(schema, table, sources[table.name], faults),
        )
        for table in schema.tables
        if table.name in sources
    }
    label_rows = placed[schema.label.table].about(schema.label.code) if schema.label.table in placed else None
    labels = encode_label(schema.label, label_rows, faults) if label_rows is not None else None
    places: list[npt.NDArray[np.int64]] = []
    for field, group in schema.items():
        table_rows = placed[field.table].about(field.code) if field.table in placed else None
        if table_rows is not None:
            found = encode_field(field, table_rows, faults)
            # A code may be recorded a hundred times for a patient; here it is kept once.
            places.append(np.unique(found.patient * schema.width + group.start + found.column))
    if labels is None or faults.total:
        return None
    kept = np.flatnonzero(labels >= 0)
    faults.notice(file=sources[schema.label.table].file, code="left-out", count=len(patient_ids) - len(kept))
    if not len(kept):
        faults.add(
            file=sources[schema.label.table].file,
            column=schema.label.column,
            code="no-patients",
            expected="at least one patient with a label",
            found="none",
        )
        return None
    features = SparseRows.of_places(np.concatenate(places), len(patient_ids), schema.width)
    everyone = PatientDataset(features=features, labels=labels, patient_ids=patient_ids)
    return everyone if len(kept) == len(patient_ids) else everyone.select(kept)


def _files(schema: Schema, path: Path, faults: FaultLog) -> list[tuple[Table, Path]]:
    """The file of each table."""
    if path.is_file():
        if len(schema.tables) == 1 and path.suffix in SUFFIXES:
            return [(schema.tables[0], path)]
        one = "a Parquet or CSV file" if len(schema.tables) == 1 else "a folder, or a wide patient table"
        faults.add(file=path.name, code="not-found", expected=one, found=f"the file {path.name}")
        return []
    if not path.is_dir():
        faults.add(file=str(path), code="not-found", expected="a folder or a file", found="nothing")
        return []
    found: list[tuple[Table, Path]] = []
    for table in schema.tables:
        files = [path / f"{table.name}{suffix}" for suffix in SUFFIXES if (path / f"{table.name}{suffix}").is_file()]
        if len(files) == 1:
            found.append((table, files[0]))
        elif files:
            faults.add(
                file=files[0].name,
                code="two-files",
                expected=f"one file for {table.name}",
                found=f"also {files[1].name}",
            )
        else:
            expected = " or ".join(f"{table.name}{suffix}" for suffix in SUFFIXES)
            faults.add(file=table.name, code="missing-file", expected=expected, found=f"no such file in {path.name}")
    if not found and len(schema.tables) > 1:
        faults.add(file=path.name, code="empty-folder", expected="the schema's tables", found="none of them")
    names = {f"{table.name}{suffix}" for table in schema.tables for suffix in SUFFIXES}
    for stray in sorted(entry.name for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.name not in names):
        faults.notice(file=stray, code="file-not-used", count=1)
    return found


def _owners(
    schema: Schema,
    sources: dict[str, Source],
    keys: dict[str, TextColumn | None],
    patient_ids: list[str],
    faults: FaultLog,
) -> dict[str, npt.NDArray[np.int64]]:
    """For each readable table the position of each row's patient, :data:`UNPLACED` where there is none [rows]."""
    position = {patient: index for index, patient in enumerate(patient_ids)}
    owners: dict[str, npt.NDArray[np.int64]] = {}
    for table in sorted(schema.tables, key=lambda table: table.join is not None):
        source = sources.get(table.name)
        if source is None:
            continue
        owners[table.name] = np.full(source.table.num_rows, UNPLACED, dtype=np.int64)
        key = keys[table.name]
        if key is None:
            continue
        _fault_empty_keys(source, table.key, key, faults)
        lookup: dict[str, int] | None = position
        code, expected = "unknown-patient", f"a patient of table {schema.label.table}"
        if table.join is not None:
            code, expected = "unknown-key", f"a {table.join.column} of table {table.join.table}"
            target = next(other for other in schema.tables if other.name == table.join.table)
            lookup = _join_lookup(target, sources, table.join.column, owners, faults)
        if lookup is None or not patient_ids:
            continue
        owners[table.name] = _looked_up_owners(source, table.key, key, lookup, code, expected, faults)
    return owners


def _looked_up_owners(
    source: Source,
    column: str,
    key: TextColumn,
    lookup: dict[str, int],
    code: str,
    expected: str,
    faults: FaultLog,
) -> npt.NDArray[np.int64]:
    """Patient position of each row by its key; keys that are not in ``lookup`` are faults."""
    stranger = UNPLACED - 1
    # The two places after the texts are reached by FAULTY (-2) and EMPTY (-1).
    owner_of = np.array([lookup.get(text, stranger) for text in key.texts] + [UNPLACED] * 2, dtype=np.int64)
    owner = owner_of[key.index]
    strangers = np.flatnonzero(owner == stranger)
    faults.add_rows(
        source.rows[strangers],
        file=source.file,
        column=column,
        code=code,
        expected=expected,
        found=lambda i: shown(key.texts[key.index[strangers[i]]]),
    )
    owner[strangers] = UNPLACED
    return owner


def _fault_empty_keys(source: Source, column: str, key: TextColumn, faults: FaultLog) -> None:
    faults.add_rows(
        source.rows[key.index == EMPTY],
        file=source.file,
        column=column,
        code="null-key",
        expected="a key in every row",
        found=lambda _: "nothing",
    )


def _join_lookup(
    target: Table, sources: dict[str, Source], column: str, owners: dict[str, npt.NDArray[np.int64]], faults: FaultLog
) -> dict[str, int] | None:
    """Key -> patient position, from the table that has both; a key that is empty or occurs twice is a fault."""
    source = sources.get(target.name)
    key = source.column(column, target.missing_values, faults) if source is not None else None
    if source is None or key is None:
        return None
    owner = owners[target.name]
    _fault_empty_keys(source, column, key, faults)
    twice = np.flatnonzero(key.occurrences() > 1).tolist()
    if twice:
        rows = key.where(twice)
        faults.add_rows(
            source.rows[rows],
            file=source.file,
            column=column,
            code="duplicate-key",
            expected=f"each {column} once",
            found=lambda i: shown(key.texts[key.index[rows[i]]]),
        )
    known = np.flatnonzero(key.index >= 0)
    return {key.texts[index]: int(owner[row]) for index, row in zip(key.index[known], known, strict=True)}


def _codes(schema: Schema, table: Table, source: Source, faults: FaultLog) -> TextColumn | None:
    """What each row of a table of events is about; rows about nothing are faults, rows that no field reads counted."""
    codes = source.column(table.code, table.missing_values, faults) if table.code is not None else None
    if table.code is None or codes is None:
        return None
    faults.add_rows(
        source.rows[codes.index == EMPTY],
        file=source.file,
        column=table.code,
        code="missing-value",
        expected="a code in every row",
        found=lambda _: "nothing",
    )
    patterns = schema.patterns(table)
    unread = [
        position
        for position, text in enumerate(codes.texts)
        if not any(pattern is None or rest_of(text, pattern) is not None for pattern in patterns)
    ]
    faults.notice(file=source.file, column=table.code, code="not-read", count=len(codes.where(unread)))
    return codes


def _order(
    table: Table, source: Source, owner: npt.NDArray[np.int64], faults: FaultLog
) -> npt.NDArray[np.int64] | None:
    """Rank of each row by the order column; rows it cannot order within a patient are faults."""
    if table.order is None:
        return None
    column = source.column(table.order, table.missing_values, faults)
    if column is None:
        return np.zeros(source.table.num_rows, dtype=np.int64)
    where = {"file": source.file, "column": table.order, "code": "bad-order"}
    numeric = table.order_form == "number"
    wrong = [index for index, text in enumerate(column.texts) if numeric and not is_number(text)]
    unordered = np.union1d(np.flatnonzero((column.index == EMPTY) & (owner >= 0)), column.where(wrong))
    faults.add_rows(
        source.rows[unordered],
        **where,
        expected="a number" if numeric else "text that sorts",
        found=lambda i: shown(column.texts[index]) if (index := column.index[unordered[i]]) >= 0 else "nothing",
    )
    excluded = set(wrong)
    distinct = [index for index in range(len(column.texts)) if index not in excluded]
    value_of = {index: float(column.texts[index]) if numeric else column.texts[index] for index in distinct}
    rank_of = {value: rank for rank, value in enumerate(sorted(set(value_of.values())))}
    table_of_ranks = np.full(len(column.texts) + 2, -1, dtype=np.int64)
    table_of_ranks[distinct] = [rank_of[value_of[index]] for index in distinct]
    rank = table_of_ranks[column.index]
    rows = np.flatnonzero((owner >= 0) & (rank >= 0))
    by_patient = rows[np.lexsort((rank[rows], owner[rows]))]
    same = (owner[by_patient][1:] == owner[by_patient][:-1]) & (rank[by_patient][1:] == rank[by_patient][:-1])
    tied = by_patient[1:][same]
    faults.add_rows(
        source.rows[tied],
        **where,
        expected="an order between a patient's rows",
        found=lambda i: f"{shown(column.texts[column.index[tied[i]]])} twice for one patient",
    )
    return rank
