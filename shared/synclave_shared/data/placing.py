"""From a site's folder (or one file) to the rows of each table, with the patient that each row belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from synclave_shared.data.encode import UNPLACED, TableRows, encode_field, encode_label
from synclave_shared.data.faults import FaultLog, shown
from synclave_shared.data.fields import is_number, rest_of
from synclave_shared.data.schema import PatientSchema, Table
from synclave_shared.data.source import EMPTY, SUFFIXES, Source, TextColumn, open_source
from synclave_shared.data.sparse_rows import SparseRows

__all__ = ["PlacedTables", "order_ranks", "place_tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedTables:
    """The tables of a folder, as far as they can be read.

    Attributes:
        patient_ids: everyone in the label's table, sorted.
        rows: the rows of each readable table.
        files: number of rows of each file.
    """

    patient_ids: list[str]
    rows: dict[str, TableRows]
    files: dict[str, int]

    def labels(self, schema: PatientSchema, faults: FaultLog) -> npt.NDArray[np.int64] | None:
        """Each patient's label, -1 without one [patients]; None if it cannot be read."""
        rows = self.rows[schema.label.table].about(schema.label.code) if schema.label.table in self.rows else None
        return None if rows is None else encode_label(schema.label, rows, faults)

    def features(self, schema: PatientSchema, faults: FaultLog) -> SparseRows:
        """The fields' columns, 0 or 1 [patients, schema.width]."""
        places = [np.zeros(0, dtype=np.int64)]
        for field, group in schema.items():
            rows = self.rows[field.table].about(field.code) if field.table in self.rows else None
            if rows is not None:
                found = encode_field(field, rows, faults)
                # A code may be recorded a hundred times for a patient; here it is kept once.
                places.append(np.unique(found.patient * schema.width + group.start + found.column))
        return SparseRows.of_places(np.concatenate(places), len(self.patient_ids), schema.width)

    def labelled(self, schema: PatientSchema, labels: npt.NDArray[np.int64], faults: FaultLog) -> npt.NDArray[np.intp]:
        """Positions of the patients with a label; who has none is counted, and a fault if it is everybody."""
        file = self.rows[schema.label.table].source.file
        kept = np.flatnonzero(labels >= 0)
        faults.notice(file=file, code="left-out", count=len(labels) - len(kept))
        if not len(kept):
            faults.add(
                file=file,
                column=schema.label.column,
                code="no-patients",
                expected="at least one patient with a label",
                found="none",
            )
        return kept


def place_tables(schema: PatientSchema, path: Path, faults: FaultLog) -> PlacedTables:
    """Open the tables of a folder (or the one table that is a file) and find the patient of every row.

    What does not fit is recorded in ``faults``; a table that cannot be read is not among the rows.
    """
    sources: dict[str, Source] = {}
    for table, file in _files(schema, path, faults):
        source = open_source(file, list(schema.used_columns(table)), faults)
        if source is not None:
            sources[table.name] = source
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
    rows = {
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
    files = {source.file: source.table.num_rows for source in sources.values()}
    return PlacedTables(patient_ids=patient_ids, rows=rows, files=files)


def _files(schema: PatientSchema, path: Path, faults: FaultLog) -> list[tuple[Table, Path]]:
    """The file of each table."""
    if path.is_file():
        if len(schema.tables) == 1 and path.suffix in SUFFIXES:
            return [(schema.tables[0], path)]
        one = "a Parquet, CSV or JSON-lines file" if len(schema.tables) == 1 else "a folder, or a wide patient table"
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
    if not found and (path / "metadata" / "dataset.json").is_file():
        faults.add(
            file=path.name,
            code="not-imported",
            expected="tables, which synclave-site import-meds makes of a MEDS dataset",
            found="a MEDS dataset",
        )
    elif not found and len(schema.tables) > 1:
        faults.add(file=path.name, code="empty-folder", expected="the schema's tables", found="none of them")
    names = {f"{table.name}{suffix}" for table in schema.tables for suffix in SUFFIXES}
    for stray in sorted(entry.name for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.name not in names):
        faults.notice(file=stray, code="file-not-used", count=1)
    return found


def _owners(
    schema: PatientSchema,
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


def _codes(schema: PatientSchema, table: Table, source: Source, faults: FaultLog) -> TextColumn | None:
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


def order_ranks(
    source: Source,
    name: str,
    form: Literal["number", "text"],
    missing_values: tuple[str, ...],
    needed: npt.NDArray[np.bool_],
    faults: FaultLog,
) -> tuple[TextColumn, npt.NDArray[np.int64]] | None:
    """How an ordering column orders.

    Args:
        source: the file.
        name: the column.
        form: as a ``number``, or as ``text`` that sorts.
        missing_values: texts that mean "not recorded".
        needed: rows in which an empty cell is a fault [rows].
        faults: takes cells that do not order.

    Returns:
        The column, and the rank of each row, -1 where there is none [rows]; None if the column cannot be read.
    """
    column = source.column(name, missing_values, faults)
    if column is None:
        return None
    numeric = form == "number"
    wrong = [index for index, text in enumerate(column.texts) if numeric and not is_number(text)]
    unordered = np.union1d(np.flatnonzero((column.index == EMPTY) & needed), column.where(wrong))
    faults.add_rows(
        source.rows[unordered],
        file=source.file,
        column=name,
        code="bad-order",
        expected="a number" if numeric else "text that sorts",
        found=lambda i: shown(column.texts[index]) if (index := column.index[unordered[i]]) >= 0 else "nothing",
    )
    excluded = set(wrong)
    distinct = [index for index in range(len(column.texts)) if index not in excluded]
    value_of = {index: float(column.texts[index]) if numeric else column.texts[index] for index in distinct}
    rank_of = {value: rank for rank, value in enumerate(sorted(set(value_of.values())))}
    table_of_ranks = np.full(len(column.texts) + 2, -1, dtype=np.int64)
    table_of_ranks[distinct] = [rank_of[value_of[index]] for index in distinct]
    ranks: npt.NDArray[np.int64] = table_of_ranks[column.index]
    return column, ranks


def _order(
    table: Table, source: Source, owner: npt.NDArray[np.int64], faults: FaultLog
) -> npt.NDArray[np.int64] | None:
    """Rank of each row by the order column; rows it cannot order within a patient are faults."""
    if table.order is None:
        return None
    ordered = order_ranks(source, table.order, table.order_form, table.missing_values, owner >= 0, faults)
    if ordered is None:
        return np.zeros(source.table.num_rows, dtype=np.int64)
    column, rank = ordered
    rows = np.flatnonzero((owner >= 0) & (rank >= 0))
    by_patient = rows[np.lexsort((rank[rows], owner[rows]))]
    same = (owner[by_patient][1:] == owner[by_patient][:-1]) & (rank[by_patient][1:] == rank[by_patient][:-1])
    tied = by_patient[1:][same]
    faults.add_rows(
        source.rows[tied],
        file=source.file,
        column=table.order,
        code="bad-order",
        expected="an order between a patient's rows",
        found=lambda i: f"{shown(column.texts[column.index[tied[i]]])} twice for one patient",
    )
    return rank
