"""Synthetic notes under the names that the schema has for their columns: its own reader takes them back."""

from __future__ import annotations

from synclave_server.sampling.note_rows import unpack_note
from synclave_server.sampling.rows import DrawnPatients
from synclave_shared.data.notes.schema import NotesSchema

__all__ = ["blank_line", "note_lines"]


def blank_line(schema: NotesSchema) -> dict[str, str]:
    """Every column of a note, in their order; the identifiers stay blank, as a synthetic patient has no name."""
    table = next(table for table in schema.tables if table.name == schema.notes.table)
    own = [column for columns in schema.notes.identifiers.values() for column in columns]
    columns = [table.key, schema.label.column, table.order, schema.notes.type, schema.notes.text, *own]
    line = dict.fromkeys([column for column in columns if column is not None], "")
    return line if table.order is None else line | {table.order: "1"}


def note_lines(schema: NotesSchema, patients: DrawnPatients) -> list[dict[str, str]]:
    """One note of each patient, by column; ``patients.rows`` are those of :mod:`synclave_server.sampling.note_rows`."""
    table = next(table for table in schema.tables if table.name == schema.notes.table)
    stored = {value: text for text, value in reversed(schema.label.mapping.items())}
    blank, found = blank_line(schema), []
    for row, label, patient in zip(patients.rows, patients.labels.tolist(), patients.ids, strict=True):
        kind, text = unpack_note(row)
        value = schema.label.values[label]
        line = blank | {table.key: patient, schema.label.column: stored.get(value, value), schema.notes.text: text}
        found.append(line if schema.notes.type is None else line | {schema.notes.type: kind})
    return found
