"""Writers of synthetic notes, under the names that the schema has for its columns: its own reader takes them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synclave_server.sampling.note_rows import unpack_note
from synclave_server.sampling.rows import synthetic_id
from synclave_shared.data.notes.schema import NotesSchema

__all__ = ["NotesLinesWriter", "NotesParquetWriter"]


def _lines(
    schema: NotesSchema, rows: NDArray[np.uint8], labels: NDArray[np.int64], numbers: NDArray[np.int64]
) -> list[dict[str, str]]:
    """One note of each patient, by column."""
    table = next(table for table in schema.tables if table.name == schema.notes.table)
    stored = {value: text for text, value in reversed(schema.label.mapping.items())}
    own = [column for columns in schema.notes.identifiers.values() for column in columns]
    found = []
    for row, label, number in zip(rows, labels.tolist(), numbers.tolist(), strict=True):
        kind, text = unpack_note(row)
        value = schema.label.values[label]
        line = {table.key: synthetic_id(number), schema.label.column: stored.get(value, value)}
        if table.order is not None:
            line[table.order] = "1"
        if schema.notes.type is not None:
            line[schema.notes.type] = kind
        found.append(line | {schema.notes.text: text} | dict.fromkeys(own, ""))
    return found


class NotesParquetWriter:
    """A Parquet file, a row for each note.

    Args:
        path: the file.
        schema: the public schema.
        notes: key-value metadata.
    """

    def __init__(self, path: Path, schema: NotesSchema, notes: Mapping[str, str]) -> None:
        self._path, self._schema = path, schema
        self._columns = self._table(np.zeros((0, 1), np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._notes = dict(notes)

    def __enter__(self) -> Self:
        columns = self._columns.schema.with_metadata(self._notes)
        self._file = pq.ParquetWriter(self._path, columns, compression="zstd", write_page_checksum=True)
        return self

    def write(
        self,
        features: NDArray[np.uint8],
        labels: NDArray[np.int64],
        numbers: NDArray[np.int64],
        within: NDArray[np.float64] | None = None,
    ) -> None:
        """Add a row group; ``features`` are rows of :mod:`synclave_server.sampling.note_rows`."""
        self._file.write_table(self._table(features, labels, numbers).replace_schema_metadata(self._notes))

    def _table(self, features: NDArray[np.uint8], labels: NDArray[np.int64], numbers: NDArray[np.int64]) -> pa.Table:
        names = list(_lines(self._schema, np.zeros((1, 1), np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))[0])
        lines = _lines(self._schema, features, labels, numbers)
        return pa.table({name: pa.array([line[name] for line in lines], pa.string()) for name in names})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class NotesLinesWriter:
    """A file of JSON lines, one for each note; provenance is beside it.

    Args:
        path: the file.
        schema: the public schema.
        notes: not kept: a line has no place for them.
    """

    def __init__(self, path: Path, schema: NotesSchema, notes: Mapping[str, str]) -> None:
        self._path, self._schema = path, schema

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8")
        return self

    def write(
        self,
        features: NDArray[np.uint8],
        labels: NDArray[np.int64],
        numbers: NDArray[np.int64],
        within: NDArray[np.float64] | None = None,
    ) -> None:
        """Add lines; the arguments are those of :class:`NotesParquetWriter`."""
        for line in _lines(self._schema, features, labels, numbers):
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
