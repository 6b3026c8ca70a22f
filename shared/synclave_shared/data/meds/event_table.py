"""The one pass over a dataset's events: which become rows, what they tell of a subject, and why others are left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from synclave_shared.data.meds.dataset import NEVER, EventBatch
from synclave_shared.data.meds.layout import BIRTH, DEATH, EVENTS
from synclave_shared.data.meds.reading import MedsReading
from synclave_shared.data.meds.selection import ALWAYS, Selection
from synclave_shared.errors import DataError

__all__ = ["EventTable", "Life", "complete"]

ROW_GROUP_ROWS: Final = 1 << 18
"""Events per row group of the table of events: bounds memory."""


@dataclass(slots=True)
class Life:
    """What is known of a chosen subject: times in microseconds since 1970, :data:`NEVER` for none; events written."""

    birth: int = NEVER
    first: int = NEVER
    last: int = NEVER
    died: bool = False
    events: int = 0


class EventTable:
    """Takes events batch by batch, writes those that the schema reads and counts the others.

    Args:
        reading: what the schema reads.
        selection: whose events are taken.
        path: the file to write; none is written for a schema without a table of events.

    Attributes:
        lives: what is known of each chosen subject with events.
        read, written: numbers of events.
        births_and_deaths: events that are not rows but are used for the table of subjects.
        left_out: reason -> number of events.
    """

    def __init__(self, reading: MedsReading, selection: Selection, path: Path) -> None:
        self._reading, self._selection, self._path = reading, selection, path
        self._read_codes: dict[str, bool] = {}
        self._waiting: list[pa.Table] = []
        self._layout: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self.lives: dict[int, Life] = {}
        self.read = self.written = self.births_and_deaths = 0
        self.left_out: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            if self._writer is None and self._reading.events is not None:
                self._add(complete(pa.table({}), self._reading.events, EVENTS))
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def unread(self) -> Counter[str]:
        """First part of a code (before ``//``) -> number of events that no field reads."""
        heads: Counter[str] = Counter()
        for code, number in self._unread.items():
            if number:
                heads[code.partition("//")[0]] += number
        return heads

    def take(self, batch: EventBatch) -> None:
        """Take the next events of the dataset.

        Raises:
            DataError: if a column has another type than in earlier files.
        """
        rows = batch.table.num_rows
        self.read += rows
        limits = [self._selection.limit(subject) for subject in batch.subjects.tolist()]
        lengths = np.diff(np.append(batch.starts, rows))
        chosen = np.repeat([limit is not None for limit in limits], lengths)
        limit_of = np.repeat(np.array([ALWAYS if limit is None else limit for limit in limits]), lengths)
        late = chosen & (batch.times > limit_of)
        self.left_out["their-events"] += rows - int(chosen.sum())
        self.left_out["after-prediction"] += int(late.sum())
        early = chosen & ~late
        encoded = batch.table["code"].combine_chunks().dictionary_encode()
        codes: list[Any] = encoded.dictionary.to_pylist()
        index = encoded.indices.to_numpy()
        births = np.array([code == BIRTH for code in codes])[index]
        deaths = np.array([code == DEATH for code in codes])[index]
        kept = early & self._reads(codes)[index]
        unread = early & ~kept
        if self._reading.subjects is not None:
            self.births_and_deaths += int((unread & (births | deaths)).sum())
            unread &= ~(births | deaths)
        self.left_out["not-read"] += int(unread.sum())
        self._unread.update(dict(zip(codes, np.bincount(index[unread], minlength=len(codes)).tolist(), strict=True)))
        self._live(batch, early, kept, limits, births, deaths)
        if self._reading.events is not None:
            self._write(batch, kept)

    def _reads(self, codes: list[str]) -> npt.NDArray[np.bool_]:
        for code in codes:
            if code not in self._read_codes:
                self._read_codes[code] = self._reading.reads(code)
        return np.array([self._read_codes[code] for code in codes], dtype=bool)

    def _live(
        self,
        batch: EventBatch,
        early: npt.NDArray[np.bool_],
        kept: npt.NDArray[np.bool_],
        limits: list[int | None],
        births: npt.NDArray[np.bool_],
        deaths: npt.NDArray[np.bool_],
    ) -> None:
        """Take the subjects' births, deaths, first and last events from those that are ``early`` enough."""
        timed = early & (batch.times != NEVER)
        others = timed & ~births
        first = np.minimum.reduceat(np.where(others, batch.times, ALWAYS), batch.starts).tolist()
        last = np.maximum.reduceat(np.where(others, batch.times, NEVER), batch.starts).tolist()
        birth = np.maximum.reduceat(np.where(timed & births, batch.times, NEVER), batch.starts).tolist()
        died = np.logical_or.reduceat(early & deaths, batch.starts).tolist()
        events = np.add.reduceat(kept.astype(np.int64), batch.starts).tolist()
        for run, subject in enumerate(batch.subjects.tolist()):
            if limits[run] is None:
                continue
            life = self.lives.setdefault(subject, Life())
            if life.first == NEVER and first[run] != ALWAYS:
                life.first = first[run]
            life.last = max(life.last, last[run])
            life.birth = max(life.birth, birth[run])
            life.died = life.died or died[run]
            life.events += events[run]

    def _write(self, batch: EventBatch, kept: npt.NDArray[np.bool_]) -> None:
        table = batch.table.append_column("event", pa.array(batch.numbers)).filter(pa.array(kept))
        self._add(complete(table, self._reading.events or (), EVENTS))

    def _add(self, table: pa.Table) -> None:
        if self._layout is None:
            self._layout = table.schema.remove_metadata()
            self._writer = pq.ParquetWriter(self._path, self._layout, compression="zstd", write_page_checksum=True)
        table = table.replace_schema_metadata()
        if table.schema != self._layout:
            raise _mixed(self._layout, table.schema)
        self._waiting.append(table)
        self.written += table.num_rows
        if sum(part.num_rows for part in self._waiting) >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is not None and self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


def complete(table: pa.Table, columns: tuple[str, ...], layout: pa.Schema) -> pa.Table:
    """The ``columns`` of a table, empty ones for those that the standard allows to be absent."""
    for name in columns:
        if name not in table.column_names:
            kind = layout.field(name).type if name in layout.names else pa.null()
            kind = pa.float64() if pa.types.is_float32(kind) else kind
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    return table.select(list(columns))


def _mixed(one: pa.Schema, other: pa.Schema) -> DataError:
    names = [name for name in one.names if one.field(name).type != other.field(name).type]
    return DataError(
        expected=f"column {names[0]} of one type in all files: {one.field(names[0]).type}",
        found=str(other.field(names[0]).type),
        remedy="Write the column in one type; types other than the standard's are not guessed.",
    )
