"""Reading a MEDS dataset piece by piece, with every promise of the standard checked on the way.

The code columns, the times and the subjects' order are what the tables made from it rest on; the first thing that is
not as the standard says ends the reading, named by file and row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synclave_shared.data.meds.layout import DATA_FOLDER, DATASET_FILE, EVENTS, LABELS, SPLITS, SPLITS_FILE
from synclave_shared.errors import DataError

__all__ = ["NEVER", "EventBatch", "MedsDataset", "read_labels"]

BATCH_ROWS: Final = 1 << 17
"""Most events in memory at a time: a few megabytes."""
NEVER: Final = -(2**63)
"""Stands for "no time", as numpy's NaT does."""
MAX_DATASET_FILE_BYTES: Final = 1 << 20
"""Largest ``dataset.json``: it has a dozen short entries."""
_OPTIONAL: Final = ("numeric_value", "text_value", *LABELS.names[2:])


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """Neighbouring events of one file.

    Attributes:
        table: subject_id, time, code and the columns that were asked for; numbers as float64.
        starts: first row of each subject's run of events in this batch; int64 [runs], rising from 0.
        subjects: the subject of each run; int64 [runs].
        numbers: number of each event within its subject's record, from 1; int64 [rows].
        times: microseconds since 1970, or the smallest int64 where there is no time; int64 [rows].
    """

    table: pa.Table
    starts: npt.NDArray[np.int64]
    subjects: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MedsDataset:
    """A dataset in a folder.

    Attributes:
        folder: where it stands.
        name, version: as its ``dataset.json`` states them; empty if it does not.
        shards: the files with events, in the order of their paths.
    """

    folder: Path
    name: str
    version: str
    shards: tuple[Path, ...]

    @classmethod
    def open(cls, folder: Path) -> MedsDataset:
        """Find a dataset's files; no event is read yet.

        Raises:
            DataError: if the folder is not a MEDS dataset.
        """
        shards = tuple(sorted((folder / DATA_FOLDER).rglob("*.parquet")))
        if not shards:
            raise DataError(
                expected=f"a MEDS dataset: a folder with {DATA_FOLDER}/**/*.parquet",
                found=f"no such file in {folder}" if folder.is_dir() else f"no folder {folder}",
                remedy="Give the folder that has data and metadata in it.",
            )
        stated = _stated(folder / DATASET_FILE)
        return cls(
            folder=folder,
            name=str(stated.get("dataset_name") or ""),
            version=str(stated.get("dataset_version") or ""),
            shards=shards,
        )

    def splits(self) -> dict[int, str] | None:
        """The split of each subject; None if the dataset has no splits.

        Raises:
            DataError: if the file is damaged, or a subject is in it twice.
        """
        path = self.folder / SPLITS_FILE
        if not path.exists():
            return None
        split_of: dict[int, str] = {}
        for table, first_row in _tables(path, SPLITS, ()):
            splits: list[Any] = table["split"].to_pylist()
            for row, subject in enumerate(table["subject_id"].to_numpy().tolist(), start=first_row):
                if subject in split_of:
                    _refuse(path, row, "each subject once", f"subject {subject} again", "Keep one split per subject.")
                split_of[subject] = splits[row - first_row]
        return split_of

    def batches(self, columns: Sequence[str]) -> Iterator[EventBatch]:
        """All events, file by file.

        Args:
            columns: what is read besides subject_id, time and code. Those that the standard lets a file leave out are
                absent where they are left out; every file must have the others.

        Raises:
            DataError: if a file is damaged or not as the standard says: a column missing or of another type, an event
                without subject or code, a subject in two places, events out of the order of time.
        """
        seen: set[int] = set()
        for shard in self.shards:
            subject, number, latest = None, 0, NEVER
            for table, first_row in _tables(shard, EVENTS, columns):
                subjects = table["subject_id"].to_numpy()
                begins = np.append(True, subjects[1:] != subjects[:-1])
                starts = np.flatnonzero(begins).astype(np.int64)
                continued = subject is not None and subjects[0] == subject
                for run, start in enumerate(starts.tolist()):
                    own = int(subjects[start])
                    if own in seen and not (run == 0 and continued):
                        _refuse(
                            *(shard, first_row + start),
                            "all events of a subject together, in one file",
                            f"subject {own} again",
                            "Sort the events by subject and time, and keep each subject in one file.",
                        )
                    seen.add(own)
                times = _microseconds(table["time"])
                carried = (number, latest) if continued else (0, NEVER)
                running = _latest_so_far(times, starts, carried[1])
                backwards = np.flatnonzero((times != NEVER) & (times < running))
                if len(backwards):
                    _refuse(
                        *(shard, first_row + int(backwards[0])),
                        "a subject's events in the order of time",
                        f"an event of subject {subjects[backwards[0]]} before the one above it",
                        "Sort the events by subject and time.",
                    )
                lengths = np.diff(np.append(starts, len(subjects)))
                numbers = np.arange(1, len(subjects) + 1, dtype=np.int64) - np.repeat(starts, lengths)
                numbers[: lengths[0]] += carried[0]
                yield EventBatch(table=table, starts=starts, subjects=subjects[starts], numbers=numbers, times=times)
                subject, number = int(subjects[-1]), int(numbers[-1])
                latest = max(int(running[-1]), int(times[-1]))


def read_labels(path: Path) -> pa.Table:
    """Read a MEDS label file, or all of a folder with such files.

    Returns:
        The labels, with those columns of :data:`LABELS` that any file has; numbers as float64.

    Raises:
        DataError: if there is none, or one is damaged or not as the standard says.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    pieces = [table for file in files for table, _ in _tables(file, LABELS, LABELS.names[2:])]
    if not pieces:
        raise DataError(
            expected="a MEDS label file with at least one label, or a folder with such files",
            found=f"none at {path}",
            remedy="Give the file or folder that your labelling tool wrote.",
        )
    return pa.concat_tables(pieces, promote_options="permissive")


def _tables(path: Path, layout: pa.Schema, columns: Sequence[str]) -> Iterator[tuple[pa.Table, int]]:
    """The rows of a file in pieces that are not empty, each with the number of its first row, from 1."""
    needed = [field.name for field in layout if field.name not in _OPTIONAL]
    with _opened(path) as file:
        names = list(file.schema_arrow.names)
        wanted = [name for name in dict.fromkeys([*needed, *columns]) if name not in _OPTIONAL or name in names]
        for name in wanted:
            if names.count(name) != 1:
                old = " Older datasets, with patient_id, must be brought to MEDS 0.3 or newer first."
                raise DataError(
                    expected=f"one column {name} in {path}",
                    found=f"the columns {', '.join(names[:12])}",
                    remedy="Write the file as MEDS says." + (old if "patient_id" in names else ""),
                )
        row = 1
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            if batch.num_rows:
                yield _typed(path, pa.Table.from_batches([batch]).select(wanted), layout, row), row
            row += batch.num_rows


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            expected=f"a Parquet file at {path}",
            found=(str(error).splitlines() or [type(error).__name__])[0][:300],
            remedy="Copy or write the file again.",
        ) from None


def _typed(path: Path, table: pa.Table, layout: pa.Schema, first_row: int) -> pa.Table:
    """The piece with the columns of ``layout`` in the standard's types; cells that must not be empty are not."""
    for position, name in enumerate(table.column_names):
        if name not in layout.names:
            continue
        field = layout.field(name)
        column = table.column(name)
        if not _fits(column.type, field):
            raise DataError(
                expected=f"column {name} of type {field.type} in {path}",
                found=str(column.type),
                remedy="Write the column in the type that MEDS states.",
            )
        if pa.types.is_float32(field.type):
            column = _decimals(column)
        else:
            # Nanoseconds are the one precision beyond the standard's that programs write by themselves.
            nanoseconds = pa.types.is_timestamp(column.type) and column.type.unit == "ns"
            column = column.cast(field.type, safe=not nanoseconds)
        table = table.set_column(position, name, column)
        empty = column.is_null().to_numpy() & (not field.nullable)
        if name == "code" and not empty.any():
            empty = pc.binary_length(column).to_numpy() == 0
        if empty.any():
            _refuse(
                *(path, first_row + int(empty.argmax())),
                f"a {name} in every row",
                "nothing",
                "Leave the row out or complete it.",
            )
    return table


def _fits(stored: pa.DataType, field: pa.Field[Any]) -> bool:
    """Whether a column means the same in the standard's type, whatever program wrote it."""
    wanted = field.type
    if pa.types.is_null(stored):
        return field.nullable
    if pa.types.is_timestamp(wanted):
        return pa.types.is_timestamp(stored) and stored.tz is None
    if pa.types.is_float32(wanted):
        return pa.types.is_float32(stored) or pa.types.is_float64(stored)
    if pa.types.is_string(wanted) or pa.types.is_large_string(wanted):
        kind = stored.value_type if pa.types.is_dictionary(stored) else stored
        return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(stored == wanted)


def _decimals(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Numbers as float64 with the same shortest decimal form: 5.1 stored as float32 is 5.1, not 5.099999904."""
    if not pa.types.is_float32(column.type):
        return column.cast(pa.float64())
    distinct, index = np.unique(column.to_numpy(), return_inverse=True)
    values = distinct.astype(str).astype(np.float64)[index]
    # "Not a number" and "not recorded" stay two things: the schema says what the first means.
    return pa.chunked_array([pa.array(values, pa.float64(), mask=column.is_null().to_numpy(), from_pandas=False)])


def _microseconds(times: pa.ChunkedArray[Any]) -> npt.NDArray[np.int64]:
    return times.to_numpy().astype("datetime64[us]").astype(np.int64)


def _latest_so_far(times: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], before: int) -> npt.NDArray[np.int64]:
    """For each event the latest time above it in its subject's record; ``before`` is that of an earlier batch [rows].

    Times of one subject need to be compared only with the last one above that is known: a record that is in order so
    far has its latest time there.
    """
    known = np.where(times != NEVER, np.arange(len(times)), -1)
    begins = np.zeros(len(times), dtype=np.int64)
    begins[starts] = starts
    last_known = np.maximum.accumulate(np.append(-1, known[:-1]))
    start_of = np.maximum.accumulate(begins)
    latest = np.where(last_known >= start_of, times[last_known], NEVER)
    first_run = start_of == 0
    latest[first_run & (latest == NEVER)] = before
    return latest


def _stated(path: Path) -> dict[str, Any]:
    """What ``dataset.json`` says; nothing if there is no such file."""
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            stated = json.loads(file.read(MAX_DATASET_FILE_BYTES))
    except (OSError, ValueError) as error:
        stated = str(error)
    if not isinstance(stated, dict):
        raise DataError(
            expected=f"a JSON object in {path}", found=str(stated)[:200], remedy="Correct the file or remove it."
        )
    return stated


def _refuse(path: Path, row: int, expected: str, found: str, remedy: str) -> NoReturn:
    raise DataError(expected=f"{expected} ({path}, row {row})", found=found, remedy=remedy)
