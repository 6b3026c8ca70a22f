"""Reading one Parquet, CSV or JSON-lines file, column by column, as text over a dictionary of distinct values.

Every value becomes text, whatever its stored type, so that a schema's rules mean the same for all of them. Rules
are then applied to the few distinct values of a column instead of to its many rows.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from synclave_shared.canonical import decimal_text
from synclave_shared.data.faults import SHOWN_CHARACTERS, FaultLog
from synclave_shared.data.json_lines import json_columns, read_json_lines

__all__ = ["EMPTY", "FAULTY", "SUFFIXES", "Source", "TextColumn", "columns_at_once", "open_source", "source_columns"]

EMPTY: Final = -1
"""Index of a cell in which nothing is recorded."""
FAULTY: Final = -2
"""Index of a cell that could not be read; its fault is recorded."""
SUFFIXES: Final = (".parquet", ".csv", ".jsonl")
"""Endings of files that can be read."""
MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
"""Longest header line of a CSV file: a wide table of 50,000 columns has about 2 MB."""
MAX_WHOLE_FLOAT: Final = 2**53
"""Up to here a floating-point number that is whole is exactly that integer."""
CELLS_AT_ONCE: Final = 2**27
"""Cells of a wide table that are in memory together: 128 MiB of 0 and 1."""

_KINDS: Final = {".csv": "CSV", ".jsonl": "JSON-lines"}
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextColumn:
    """A column as positions in its distinct texts.

    Attributes:
        index: for each row the position in ``texts``, or :data:`EMPTY`, or :data:`FAULTY`; int64 [rows].
        texts: the distinct texts.
    """

    index: npt.NDArray[np.int64]
    texts: tuple[str, ...]

    def where(self, positions: list[int]) -> npt.NDArray[np.intp]:
        """Rows (from 0) whose text stands at one of ``positions``."""
        wanted = np.zeros(len(self.texts) + 2, dtype=bool)
        wanted[positions] = True
        return np.flatnonzero(wanted[self.index])

    def occurrences(self) -> npt.NDArray[np.int64]:
        """How many rows have each text [texts]."""
        return np.bincount(self.index[self.index >= 0], minlength=len(self.texts)).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An open file.

    Attributes:
        file: its name, as faults show it.
        table: the columns that were asked for and are there.
        rows: for each row of ``table`` its number in the file, counted from 1; int64 [rows].
    """

    file: str
    table: pa.Table
    rows: npt.NDArray[np.int64]

    def column(self, name: str, empty: tuple[str, ...], faults: FaultLog) -> TextColumn | None:
        """One column as text; null, the empty text and the texts in ``empty`` mean that nothing is recorded.

        Returns:
            The column, or None if it is not there or cannot be read (the fault is recorded, or was at opening).
        """
        # By Arrow's own index: a list of 20,000 names, made for each of as many columns, would take minutes.
        place = self.table.schema.get_field_index(name)
        if place < 0:
            return None
        encoded = _encoded(self.table.column(place))
        if encoded is None:
            faults.add(
                file=self.file,
                column=name,
                code="wrong-type",
                expected="text, numbers, yes/no values or dates",
                found=str(self.table.column(place).type),
            )
            return None
        raw_index, distinct = encoded
        texts: list[str] = []
        target = np.empty(len(distinct) + 1, dtype=np.int64)
        target[-1] = EMPTY
        known: dict[str, int] = {}
        broken: dict[str, list[int]] = {"wrong-encoding": [], "not-a-number": []}
        for position, value in enumerate(distinct):
            text = _text(value)
            if text is None:
                target[position] = FAULTY
                broken["wrong-encoding"].append(position)
            elif text == "" or text in empty:
                target[position] = EMPTY
            elif isinstance(value, float) and not math.isfinite(value):
                # Not taken for "nothing recorded" unless the schema says so: nothing is guessed.
                target[position] = FAULTY
                broken["not-a-number"].append(position)
            else:
                target[position] = known.setdefault(text, len(texts))
                if known[text] == len(texts):
                    texts.append(text)
        for code, positions in broken.items():
            self._fault_values(name, code, np.flatnonzero(np.isin(raw_index, positions)), raw_index, distinct, faults)
        return TextColumn(index=target[raw_index], texts=tuple(texts))

    def numbers(self, name: str, faults: FaultLog) -> npt.NDArray[np.float64] | None:
        """A column of floating-point numbers without the way over text, for columns of which every value is another.

        Returns:
            The numbers as :meth:`column` would tell them, NaN where there is none [rows]; None if the column is not
            there or of another type.
        """
        if name not in self.table.column_names or not pa.types.is_floating(self.table.column(name).type):
            return None
        column = self.table.column(name)
        numbers = column.to_numpy().astype(np.float64)
        recorded = pc.is_valid(column).to_numpy()
        broken = np.flatnonzero(recorded & ~np.isfinite(numbers))
        faults.add_rows(
            self.rows[broken],
            file=self.file,
            column=name,
            code="not-a-number",
            expected="a finite number",
            found=lambda i: repr(float(numbers[broken[i]])),
        )
        return np.where(np.isfinite(numbers), numbers, np.nan)

    def _fault_values(
        self,
        name: str,
        code: str,
        rows: npt.NDArray[np.intp],
        raw_index: npt.NDArray[np.int64],
        distinct: list[Any],
        faults: FaultLog,
    ) -> None:
        faults.add_rows(
            self.rows[rows],
            file=self.file,
            column=name,
            code=code,
            expected="text in UTF-8" if code == "wrong-encoding" else "a finite number",
            found=lambda i: repr(distinct[raw_index[rows[i]]])[:SHOWN_CHARACTERS],
        )


def source_columns(path: Path) -> list[str] | None:
    """Names of the columns of a file, None if it cannot be read."""
    try:
        if path.suffix == ".csv":
            return _csv_header(path)
        if path.suffix == ".jsonl":
            return json_columns(path)
        return list(pq.read_schema(path).names)
    except _UNREADABLE:
        return None


def columns_at_once(path: Path) -> int:
    """How many columns of a file should be read together, so that a wide one does not fill the memory.

    Other files than Parquet are read as a whole: their columns cannot be found without reading all the others.
    """
    if path.suffix != ".parquet":
        return sys.maxsize
    try:
        return max(1, CELLS_AT_ONCE // max(1, pq.read_metadata(path).num_rows))
    except _UNREADABLE:
        return sys.maxsize  # whoever opens it will say why


def open_source(path: Path, wanted: list[str], faults: FaultLog) -> Source | None:
    """Read the ``wanted`` columns of a file.

    Returns:
        The open file with those columns that are there (missing ones are recorded as faults), or None if it cannot
        be read at all.
    """
    try:
        match path.suffix:
            case ".csv":
                table, names, rows = _open_csv(path, wanted, faults)
            case ".jsonl":
                table, names, rows = read_json_lines(path, wanted, faults)
            case _:
                table, names, rows = _open_parquet(path, wanted)
    except _UNREADABLE as error:
        faults.add(
            file=path.name,
            code="unreadable-file",
            expected=f"a {_KINDS.get(path.suffix, 'Parquet')} file",
            found=str(error).splitlines()[0][:300] if str(error) else type(error).__name__,
        )
        return None
    count = Counter(names)
    for name in wanted:
        times = count[name]
        if times != 1:
            faults.add(
                file=path.name,
                column=name,
                code="duplicate-column" if times else "missing-column",
                expected=f"one column {name}",
                found=f"{times} columns of that name" if times else f"{len(names)} others",
            )
    return Source(file=path.name, table=table, rows=rows)


def _open_parquet(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str], npt.NDArray[np.int64]]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = list(file.schema_arrow.names)
        count = Counter(names)
        present = [name for name in wanted if count[name] == 1]
        table = file.read(columns=present)
        rows = file.metadata.num_rows
    # A column "a.b" would also select a field b inside a struct a; keep exactly what was asked for.
    read = set(table.column_names)
    table = table.select([name for name in present if name in read])
    return table, names, np.arange(1, rows + 1, dtype=np.int64)


def _csv_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES + 1)
    if len(line) > MAX_HEADER_BYTES:
        raise ValueError(f"the first line has more than {MAX_HEADER_BYTES} bytes")
    if not line.strip():
        raise ValueError("the file does not begin with a header")
    try:
        return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"the header cannot be read: {error}") from None


def _open_csv(path: Path, wanted: list[str], faults: FaultLog) -> tuple[pa.Table, list[str], npt.NDArray[np.int64]]:
    names = _csv_header(path)
    count = Counter(names)
    present = [name for name in wanted if count[name] == 1]
    read = present or names[:1]
    ragged: list[int] = []

    def ragged_row(row: pa.csv.InvalidRow) -> Literal["skip", "error"]:
        if row.number is None:  # Arrow has no numbers when it reads in parallel; here it does not.
            return "error"
        data_row = row.number - 1  # Arrow counts the header as row 1.
        ragged.append(data_row)
        expected, found = f"{row.expected_columns} cells", f"{row.actual_columns} cells"
        faults.add(file=path.name, row=data_row, code="ragged-row", expected=expected, found=found)
        return "skip"

    table = pa.csv.read_csv(
        path,
        # One thread, because only then Arrow knows the numbers of ragged rows.
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=_csv_block_size(path)),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=ragged_row),
        # Bytes, not text: a wrong encoding is then found in its cell instead of failing the file.
        convert_options=pa.csv.ConvertOptions(
            check_utf8=False,
            include_columns=read,
            column_types=dict.fromkeys(read, pa.binary()),
            strings_can_be_null=False,
        ),
    )
    every = np.arange(1, table.num_rows + len(ragged) + 1, dtype=np.int64)
    return table, names, np.delete(every, np.array(ragged, dtype=np.int64) - 1)


def _csv_block_size(path: Path) -> int:
    """Arrow needs a whole row in one block; at least 8 MiB, and the whole file if it is smaller than 64 MiB."""
    return min(max(path.stat().st_size + 1, 8 << 20), 64 << 20)


def _encoded(column: pa.ChunkedArray[Any]) -> tuple[npt.NDArray[np.int64], list[Any]] | None:
    """Positions [rows] (-1 for null) in the list of distinct values; None for types that are no plain value."""
    kind = column.type
    try:
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
            kind = column.type
        if pa.types.is_null(kind):
            return np.full(len(column), -1, dtype=np.int64), []
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            column = column.cast(pa.large_binary())
        elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            column = column.cast(pa.string()).cast(pa.large_binary())
        elif not (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
        ):
            return None
        encoded: Any = column.dictionary_encode().unify_dictionaries().combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0)
        index = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return index, encoded.dictionary.to_pylist()
    except pa.ArrowException:
        return None


def _text(value: Any) -> str | None:
    """The text of a stored value; None for bytes that are not UTF-8. Whole floats are written as integers."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return str(int(value)) if value.is_integer() and abs(value) <= MAX_WHOLE_FLOAT else repr(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    return str(value)
