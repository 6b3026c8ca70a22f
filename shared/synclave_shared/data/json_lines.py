"""Reading a file of JSON lines: one object for each row, its keys the columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synclave_shared.data.faults import FaultLog, shown

__all__ = ["json_columns", "read_json_lines"]


def json_columns(path: Path) -> list[str]:
    """Every key that occurs, in order; lines that are no objects are passed over."""
    return list(dict.fromkeys(key for _, row in _rows(path, FaultLog()) for key in row))


def read_json_lines(
    path: Path, wanted: list[str], faults: FaultLog
) -> tuple[pa.Table, list[str], npt.NDArray[np.int64]]:
    """The wanted columns as texts, the names of all, and for each row the number of its line.

    A key that a line lacks is a cell in which nothing is recorded; a blank line is no row.
    """
    names: dict[str, None] = {}
    cells: dict[str, list[bytes | None]] = {name: [] for name in wanted}
    lines: list[int] = []
    for line, row in _rows(path, faults):
        names |= dict.fromkeys(row)
        lines.append(line)
        for name in wanted:
            value = row.get(name)
            if isinstance(value, dict | list):
                faults.add(
                    file=path.name,
                    row=line,
                    column=name,
                    code="wrong-type",
                    expected="a text or a number",
                    found=shown(json.dumps(value)),
                )
                value = None
            cells[name].append(_bytes(value))
    present = [name for name in wanted if name in names]
    table = pa.table(
        {name: pa.array(cells[name], pa.large_binary()) for name in present}
        or {"": pa.nulls(len(lines), pa.large_binary())}
    )
    return table, list(names), np.array(lines, dtype=np.int64)


def _rows(path: Path, faults: FaultLog) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (UnicodeDecodeError, ValueError, RecursionError) as error:
                _no_object(path, number, str(error), faults)
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                _no_object(path, number, type(row).__name__, faults)


def _no_object(path: Path, number: int, found: str, faults: FaultLog) -> None:
    faults.add(file=path.name, row=number, code="bad-line", expected="one JSON object in UTF-8", found=found[:200])


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    # A half of a character pair, which JSON can write, has no UTF-8: it is found as a wrong encoding in its cell.
    return (value if isinstance(value, str) else repr(value)).encode("utf-8", "surrogatepass")
