"""The public agreement on clinical notes: where their texts stand, and how much of a patient's notes counts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synclave_shared.canonical import FrozenModel
from synclave_shared.data.fields import ColumnName, SchemaField
from synclave_shared.data.schema import PatientSchema, Reader, TableName

__all__ = ["Identifier", "NotesSchema", "NotesTable"]


Identifier = Literal["names", "relatives", "doctors", "dates", "mrns", "numbers", "phones", "emails", "addresses"]
"""Kinds of identifiers in a patient's own record; a date is written as ISO 8601 has it."""


class NotesTable(FrozenModel):
    """The ``[notes]`` table of a schema: a row of it is a note.

    Attributes:
        table: the table with the notes; its order column, if it has one, orders a patient's.
        text: the column with the text.
        type: the column that says what kind of note it is; None: not known.
        types: the kinds there are.
        identifiers: columns of the table with identifiers of the patient, by what they are. The site gives them to its
            own detector, so that they are found in the text, and to nobody else.
        language: of the texts.
        tokens: length of a chunk in tokens, special ones included. A longer note is cut into several.
        chunks: most chunks of a patient, over all notes; what comes after them is left out.
    """

    table: TableName
    text: ColumnName
    type: ColumnName | None = None
    types: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] = ()
    identifiers: dict[Identifier, tuple[ColumnName, ...]] = Field(default_factory=dict)
    language: Literal["en", "es"] = "en"
    tokens: Annotated[int, Field(ge=32, le=512)] = 256
    chunks: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _kinds_of_notes(self) -> Self:
        if (self.type is None) != (not self.types):
            raise ValueError("notes: give type and types together")
        if len(set(self.types)) != len(self.types):
            raise ValueError("notes: a type occurs twice")
        return self

    @property
    def name(self) -> str:
        """What messages call it."""
        return "notes"

    @property
    def code(self) -> str | None:
        """All rows are notes."""
        return None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns read from the table."""
        own = [column for columns in self.identifiers.values() for column in columns]
        return tuple(dict.fromkeys((self.text, *([self.type] if self.type else []), *own)))


class NotesSchema(PatientSchema):
    """The schema of ``notes``: a patient's texts and the label.

    Attributes:
        fields: none; what else is known of a patient belongs to a schema of codes.
        notes: where the texts are.
    """

    modality: Literal["notes"]
    fields: Annotated[tuple[SchemaField, ...], Field(max_length=0)] = ()
    notes: NotesTable

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Everything that reads a table."""
        return (*super().readers, self.notes)
