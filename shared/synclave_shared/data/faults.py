"""What is wrong with a site's data, place by place, for the data steward who will put it right.

Faults name cells and may show their content: they stay at the site. Of a fault that repeats, the first places are
listed and all are counted, so that a folder with a million wrong cells gives a readable report and an exact number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from synclave_shared.errors import DataError

__all__ = [
    "FAULT_CODES",
    "LISTED_PER_PLACE",
    "NOTICE_CODES",
    "ChannelCount",
    "CheckReport",
    "Fault",
    "FaultLog",
    "Notice",
    "shown",
]

LISTED_PER_PLACE: Final = 20
"""Faults of one kind in one column that are listed; more are counted only."""
LISTED_IN_ALL: Final = 2000
"""Faults that are listed over all columns."""
LISTED_IN_ERROR: Final = 20
"""Faults written out in an error message."""
SHOWN_CHARACTERS: Final = 80
"""Longest piece of a cell that a fault shows."""

FAULT_CODES: Final = {
    "not-found": "there is no such folder or file, or this user may not read it",
    "empty-folder": "the folder has none of the schema's tables",
    "missing-file": "a table of the schema has no file",
    "not-imported": "the folder is a MEDS dataset and no folder of tables",
    "two-files": "a table is there in two kinds of file",
    "unreadable-file": "the file is damaged or not of the kind its ending says",
    "ragged-row": "a CSV row with more or fewer cells than the header",
    "bad-line": "a line of a JSON-lines file that is no JSON object",
    "duplicate-column": "two columns have the same name",
    "missing-column": "a column of the schema is not in the file",
    "unknown-column": "a column of a series cohort that the schema does not name",
    "wrong-type": "the column holds values that are neither text nor numbers nor dates",
    "wrong-encoding": "text that is not UTF-8",
    "no-patients": "not one patient is left",
    "null-key": "a row without patient (or without the key that leads to the patient)",
    "unknown-key": "the key leads to no patient",
    "unknown-patient": "the patient is not in the label's table",
    "duplicate-key": "a key that must be unique occurs twice",
    "duplicate-patient": "a patient occurs twice in a patient table",
    "missing-value": "nothing is recorded where the schema asks for a value",
    "outside-vocabulary": "a code that is not in the public vocabulary",
    "not-a-number": "no finite number, or no whole one where one is needed",
    "out-of-bounds": "a number outside its public bounds",
    "bad-order": "the order column does not order the patient's rows",
    "bad-time": "no time, or not written as the schema says",
    "no-series": "a patient without a row on the grid of time",
    "too-long": "a note of more characters than any note has",
    "wrong-origin": "a synthetic patient where only real ones may be, or a real one where only synthetic ones may",
}
"""Closed vocabulary of faults: code -> what it means."""

NOTICE_CODES: Final = {
    "counted-as-other": "codes outside the vocabulary, kept in the column 'other'",
    "ignored": "codes that the schema leaves out on purpose",
    "clipped": "numbers moved to the nearest public bound",
    "missing": "empty cells",
    "not-read": "events with codes that no field reads",
    "left-out": "patients without a label",
    "no-series": "patients without a row on the grid of time",
    "no-notes": "patients without a note",
    "other-stay": "rows of a stay that is not kept",
    "before-start": "rows before time 0 of the grid",
    "after-end": "rows after the end of the stay",
    "after-horizon": "rows after the horizon of the grid",
    "file-not-used": "a file that no table of the schema names",
}
"""What the schema's own rules did to the data: nothing happens silently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One place that does not fit the schema.

    Attributes:
        file: the file's name.
        row: data row, counted from 1 without the header; None if the fault is not in a row.
        column: the column's name, or None.
        code: one of :data:`FAULT_CODES`.
        expected, found: what would have been right, and what is there.
    """

    file: str
    row: int | None
    column: str | None
    code: str
    expected: str
    found: str

    def __str__(self) -> str:
        place = self.file
        if self.row is not None:
            place += f", row {self.row}"
        if self.column is not None:
            place += f", column {self.column}"
        return f"{place}: {self.code}: expected {self.expected}; found {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """How often a rule of the schema was applied.

    Attributes:
        file, column: where; column is None for a whole file or for patients.
        code: one of :data:`NOTICE_CODES`.
        count: number of cells, codes, patients or files.
    """

    file: str
    column: str | None
    code: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCount:
    """What became of one channel's values on the grid.

    Attributes:
        name: the channel.
        values: values read on the grid.
        dropped: values (or a step's sums) out of bounds that count as not observed.
        clipped: values (or a step's sums) moved to the nearest bound.
        observed: steps of patients in the data set with an observation.
        steps: all steps of patients in the data set, within their stays.
    """

    name: str
    values: int
    dropped: int
    clipped: int
    observed: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """Everything found in one pass over a folder. It describes private data and stays at the site.

    Attributes:
        schema: name of the schema.
        path: what was read.
        faults: the listed faults.
        fault_count: number of all faults, listed or not.
        fault_counts: (file, column, code) -> number.
        patients: number of patients.
        rows: file -> number of data rows.
        label_counts: label value -> number of patients; empty while there are faults.
        notices: what the schema's rules did.
        channels: of time series, what became of each channel; empty while there are faults.
    """

    schema: str
    path: str
    faults: tuple[Fault, ...]
    fault_count: int
    fault_counts: dict[tuple[str, str | None, str], int]
    patients: int
    rows: dict[str, int]
    label_counts: dict[str, int]
    notices: tuple[Notice, ...]
    channels: tuple[ChannelCount, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is not one fault."""
        return self.fault_count == 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": self.schema,
            "path": self.path,
            "ok": self.ok,
            "patients": self.patients,
            "rows": self.rows,
            "label_counts": self.label_counts,
            "fault_count": self.fault_count,
            "fault_counts": [
                {"file": file, "column": column, "code": code, "count": count}
                for (file, column, code), count in self.fault_counts.items()
            ],
            "faults": [asdict(fault) for fault in self.faults],
            "notices": [asdict(notice) for notice in self.notices],
            "channels": [asdict(channel) for channel in self.channels],
        }

    def error(self) -> DataError:
        """The error that stands for the faults of this report."""
        lines = [str(fault) for fault in self.faults[:LISTED_IN_ERROR]]
        more = self.fault_count - len(lines)
        if more > 0:
            lines.append(f"and {more} more")
        return DataError(
            expected=f"data that fits the schema {self.schema} in {self.path}",
            found=f"{self.fault_count} faults:\n" + "\n".join(lines),
            remedy="Correct the data, or agree on another schema; synclave-site check-data lists every fault.",
        )


@dataclass(slots=True)
class FaultLog:
    """Collects faults and notices during one pass."""

    listed: list[Fault] = field(default_factory=list)
    counts: Counter[tuple[str, str | None, str]] = field(default_factory=Counter)
    noticed: Counter[tuple[str, str | None, str]] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Number of all faults."""
        return self.counts.total()

    def add(
        self,
        *,
        file: str,
        code: str,
        expected: str,
        found: str,
        column: str | None = None,
        row: int | None = None,
        count: int = 1,
    ) -> None:
        """Record one fault, or ``count`` faults that one line tells together."""
        if self._room(file, column, code):
            self.listed.append(Fault(file=file, row=row, column=column, code=code, expected=expected, found=found))
        self.counts[file, column, code] += count

    def add_rows(
        self,
        rows: npt.NDArray[np.int64],
        *,
        file: str,
        code: str,
        expected: str,
        found: Callable[[int], str],
        column: str | None = None,
    ) -> None:
        """Record the same kind of fault in many rows.

        Args:
            rows: data rows, counted from 1 [k].
            file: the file's name.
            code: one of :data:`FAULT_CODES`.
            expected: what would have been right.
            found: the text for the i-th of ``rows``; asked for the listed ones only.
            column: the column's name, or None.
        """
        if not len(rows):
            return
        for position, row in enumerate(rows[: self._room(file, column, code)].tolist()):
            self.listed.append(
                Fault(file=file, row=row, column=column, code=code, expected=expected, found=found(position))
            )
        self.counts[file, column, code] += len(rows)

    def _room(self, file: str, column: str | None, code: str) -> int:
        return max(0, min(LISTED_PER_PLACE - self.counts[file, column, code], LISTED_IN_ALL - len(self.listed)))

    def notice(self, *, file: str, code: str, count: int, column: str | None = None) -> None:
        """Record that a rule of the schema was applied ``count`` times."""
        if count:
            self.noticed[file, column, code] += count

    def report(
        self, *, schema: str, path: Path, patients: int, rows: dict[str, int], label_counts: dict[str, int]
    ) -> CheckReport:
        """The report of everything recorded."""
        return CheckReport(
            schema=schema,
            path=str(path),
            faults=tuple(self.listed),
            fault_count=self.total,
            fault_counts=dict(self.counts),
            patients=patients,
            rows=rows,
            label_counts=label_counts,
            notices=tuple(
                Notice(file=file, column=column, code=code, count=count)
                for (file, column, code), count in self.noticed.items()
            ),
        )


def shown(text: str) -> str:
    """A cell's content as a fault shows it: quoted, control characters escaped, cut if long."""
    if len(text) > SHOWN_CHARACTERS:
        return f"{text[:SHOWN_CHARACTERS]!r}... ({len(text)} characters)"
    return repr(text)
