"""From a site's folder to patients' notes, with every fault found in one pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from synclave_shared.data.encode import TableRows
from synclave_shared.data.faults import CheckReport, FaultLog, shown
from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.origin import Origin
from synclave_shared.data.placing import place_tables
from synclave_shared.data.source import EMPTY, TextColumn
from synclave_shared.data.tables import read_checked

__all__ = ["load_notes", "read_notes"]

LONGEST_NOTE: Final = 2**20
"""Characters of a note: a book, not a note. Longer ones are faults and are not cut silently."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def load_notes(schema: NotesSchema, path: Path, origin: Origin = "real") -> NotesDataset:
    """Read a site's patients, sorted by identifier.

    Args:
        schema: the public schema.
        path: a folder with the schema's tables; or one file, if the schema has one table.
        origin: what rows with a column ``_origin`` must be marked as.

    Raises:
        DataError: if anything does not fit the schema; it tells the first faults and the number of all.
    """
    dataset, report = read_notes(schema, path, origin)
    if dataset is None:
        raise report.error()
    return dataset


def read_notes(schema: NotesSchema, path: Path, origin: Origin = "real") -> tuple[NotesDataset | None, CheckReport]:
    """Read and check in one pass.

    Returns:
        The patients, or None if there is any fault; and the report.
    """

    def read(faults: FaultLog, rows: dict[str, int]) -> NotesDataset | None:
        placed = place_tables(schema, path, faults)
        rows |= placed.files
        labels = placed.labels(schema, faults)
        table = placed.rows.get(schema.notes.table)
        found = None if table is None else _notes(schema, table, faults)
        if labels is None or found is None or table is None or faults.total:
            return None
        notes, identifiers = found
        kept = placed.labelled(schema, labels, faults)
        with_notes = np.array([patient for patient in kept if notes[patient]], dtype=np.intp)
        faults.notice(file=table.source.file, code="no-notes", count=len(kept) - len(with_notes))
        if not len(with_notes):
            expected = "at least one patient with a label and a note"
            faults.add(file=table.source.file, code="no-patients", expected=expected, found="none")
            return None
        return NotesDataset(
            notes=tuple(tuple(notes[patient]) for patient in with_notes),
            identifiers=tuple(tuple(dict.fromkeys(identifiers[patient])) for patient in with_notes),
            labels=labels[with_notes],
            patient_ids=[placed.patient_ids[patient] for patient in with_notes],
        )

    return read_checked(schema, path, read, origin)


def _notes(
    schema: NotesSchema, rows: TableRows, faults: FaultLog
) -> tuple[list[list[Note]], list[list[tuple[str, str]]]] | None:
    """Each patient's notes in order, and each patient's identifiers; None if a column cannot be read."""
    texts = rows.source.column(schema.notes.text, rows.missing_values, faults)
    kinds = None if schema.notes.type is None else rows.source.column(schema.notes.type, rows.missing_values, faults)
    own = [
        (kind, rows.source.column(name, rows.missing_values, faults))
        for kind, names in schema.notes.identifiers.items()
        for name in names
    ]
    if texts is None or (kinds is None) != (schema.notes.type is None) or any(column is None for _, column in own):
        return None
    _check_length(schema, texts, rows, faults)
    if kinds is not None:
        _check_kinds(schema, kinds, rows, faults)
    blank = {number for number, text in enumerate(texts.texts) if not _plain(text).strip()} | {EMPTY}
    empty = sum(index in blank for index in texts.index.tolist())
    faults.notice(file=rows.source.file, column=schema.notes.text, code="missing", count=empty)
    if faults.total:
        return None
    notes: list[list[Note]] = [[] for _ in range(rows.patients)]
    identifiers: list[list[tuple[str, str]]] = [[] for _ in range(rows.patients)]
    for row in _in_order(rows).tolist():
        patient = int(rows.patient[row])
        text = "" if texts.index[row] < 0 else _plain(texts.texts[texts.index[row]])
        if text.strip():
            kind = "" if kinds is None else kinds.texts[kinds.index[row]]
            notes[patient].append(Note(text=text, type=kind))
        identifiers[patient] += [
            (kind, column.texts[column.index[row]])
            for kind, column in own
            if column is not None and column.index[row] >= 0
        ]
    return notes, identifiers


def _in_order(rows: TableRows) -> npt.NDArray[np.intp]:
    """Rows of the table by its order column, or as they stand."""
    placed = np.flatnonzero(rows.patient >= 0)
    if rows.order is None:
        return placed
    order: npt.NDArray[np.intp] = placed[np.argsort(rows.order[placed], kind="stable")]
    return order


def _plain(text: str) -> str:
    """The text with one kind of line break, and a space for every other control character."""
    return _CONTROL.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def _check_length(schema: NotesSchema, texts: TextColumn, rows: TableRows, faults: FaultLog) -> None:
    long = texts.where([position for position, text in enumerate(texts.texts) if len(text) > LONGEST_NOTE])
    faults.add_rows(
        rows.source.rows[long],
        file=rows.source.file,
        column=schema.notes.text,
        code="too-long",
        expected=f"a note of at most {LONGEST_NOTE} characters",
        found=lambda i: f"{len(texts.texts[texts.index[long[i]]])}",
    )


def _check_kinds(schema: NotesSchema, kinds: TextColumn, rows: TableRows, faults: FaultLog) -> None:
    strange = kinds.where([position for position, text in enumerate(kinds.texts) if text not in schema.notes.types])
    faults.add_rows(
        rows.source.rows[strange],
        file=rows.source.file,
        column=schema.notes.type,
        code="outside-vocabulary",
        expected=f"one of the schema's types: {', '.join(schema.notes.types)}",
        found=lambda i: shown(kinds.texts[kinds.index[strange[i]]]),
    )
    faults.add_rows(
        rows.source.rows[kinds.index == EMPTY],
        file=rows.source.file,
        column=schema.notes.type,
        code="missing-value",
        expected="the note's type in every row",
        found=lambda _: "nothing",
    )
