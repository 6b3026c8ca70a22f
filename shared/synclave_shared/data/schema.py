"""The public agreement on what a patient's record is: tables, fields, label, and the columns they make.

What schemas of every modality share is :class:`PatientSchema`; :class:`Schema` is that of 0/1 rows, and
:mod:`synclave_shared.data.series.schema` adds channels over time. A schema is written as TOML with vocabulary files
beside it (:mod:`synclave_shared.data.schema_file`). Loaded, it is this value with every vocabulary and mapping resolved
inside; its canonical JSON is what the digest in a training plan covers, so two sites with one digest read their data in
the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, Self

from pydantic import Field, ValidationError, model_validator

from synclave_shared.canonical import FrozenModel, canonical_bytes, sha256_hex
from synclave_shared.data.fields import (
    CategoryField,
    CodePattern,
    CodesField,
    ColumnName,
    FieldName,
    FlagField,
    NumberField,
    SchemaField,
    title_of,
)
from synclave_shared.data.schema_file import read_json, read_toml
from synclave_shared.errors import SchemaError

__all__ = [
    "MAX_WIDTH",
    "PATIENT_ID",
    "Group",
    "Join",
    "Label",
    "PatientSchema",
    "Reader",
    "Schema",
    "Table",
    "TableName",
    "explain",
]

MAX_WIDTH: Final = 50_000
"""Most columns of a schema: a batch of patients is dense in memory, and so is a row group of synthetic ones."""
PATIENT_ID: Final = "patient_id"
"""Name of the identifier in a wide patient table."""

TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class Reader(Protocol):
    """Whatever a schema reads from a table: the label, a field, a channel."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def table(self) -> str:
        """The table it is read from."""

    @property
    def code(self) -> str | None:
        """In a table of events, the events that it reads; None for all rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads, besides those that lead to the patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Neighbouring columns that belong to one field.

    Attributes:
        name: the field's name.
        kind: ``binary`` (each column by itself) or ``categorical`` (exactly one of the columns is 1).
        start, stop: the columns are ``start`` to ``stop - 1``.
        columns: their names.
    """

    name: str
    kind: Literal["binary", "categorical"]
    start: int
    stop: int
    columns: tuple[str, ...]


class Join(FrozenModel):
    """How a table without a patient column finds its patients.

    Attributes:
        table: the table that has the patient column.
        column: the key, named alike in both tables and unique in ``table`` (such as the identifier of a stay).
    """

    table: TableName
    column: ColumnName


class Table(FrozenModel):
    """One file of a site's folder: ``<name>.parquet``, ``<name>.csv`` or ``<name>.jsonl``.

    Attributes:
        name: the file's name without its ending.
        patient: the column that identifies the patient. Either this or ``join``.
        join: the way to the patient over another table.
        order: the column that orders a patient's rows.
        order_form: how it orders: as a ``number``, or as ``text`` that sorts (an ISO date).
        code: in a table of events, the column that says what a row is about.
        missing_values: texts that mean "not recorded" in this table, besides an empty cell or null.
    """

    name: TableName
    patient: ColumnName | None = None
    join: Join | None = None
    order: ColumnName | None = None
    order_form: Literal["number", "text"] = "number"
    code: ColumnName | None = None
    missing_values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.patient is None) == (self.join is None):
            raise ValueError(f"table {self.name}: give either patient or join")
        return self

    @property
    def key(self) -> str:
        """The column of this table that leads to the patient."""
        return self.patient if self.patient is not None else self.join.column if self.join is not None else ""


class Label(FrozenModel):
    """The outcome, one value per patient.

    The label's table is the roll of patients: who is not in it is not in the data set.

    Attributes:
        name: its name in tables and on the command line.
        values: its values; a patient's label is a position in this tuple.
        table, column: where it stands.
        code: in a table of events, the events that tell it; None for all rows.
        mapping: stored text -> value; empty if the stored texts are the values. Any other text is a fault.
        combine: ``any``: of the values in a patient's rows, the one that stands last in ``values``; or the value of
            the ``first`` or ``last`` row by the table's order column.
        missing: an empty cell is a ``fault``, or says nothing (``leave-out``): patients of whom no row says anything
            are left out, and the report counts them.
    """

    name: FieldName
    title: str = ""
    values: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(min_length=2)]
    table: TableName
    column: ColumnName
    code: CodePattern | None = None
    mapping: dict[str, str] = Field(default_factory=dict)
    combine: Literal["any", "first", "last"]
    missing: Literal["fault", "leave-out"]

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if len(set(self.values)) != len(self.values):
            raise ValueError("label: a value occurs twice")
        strangers = sorted(set(self.mapping.values()) - set(self.values))
        if strangers:
            raise ValueError(f"label: the mapping leads to {strangers[0]!r}, which is not one of the values")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns read from the table."""
        return (self.column,)

    def position(self, text: str) -> int | None:
        """Position of the value that the stored ``text`` means; None if it means none."""
        value = self.mapping.get(text) if self.mapping else text
        return self.values.index(value) if value in self.values else None


class PatientSchema(FrozenModel):
    """Tables, fields and label, with all vocabularies resolved: what every modality's schema has.

    Attributes:
        name: its name in plans and reports.
        modality: what the items are.
        tables: the files of a site's folder.
        fields: the quantities of a patient that know no time, in the order of their columns.
        label: the outcome.
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    modality: str
    title: str = ""
    tables: Annotated[tuple[Table, ...], Field(min_length=1)]
    fields: tuple[SchemaField, ...]
    label: Label

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        for what, names in (
            ("table", [table.name for table in self.tables]),
            ("field", [field.name for field in self.fields]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} name occurs twice")
        if self.label.name in {PATIENT_ID, *(field.name for field in self.fields)}:
            raise ValueError(f"the label's name {self.label.name} is taken")
        if PATIENT_ID in {field.name for field in self.fields}:
            raise ValueError(f"{PATIENT_ID} is reserved and cannot be a field")
        tables = {table.name: table for table in self.tables}
        for table in self.tables:
            if table.join is not None:
                target = tables.get(table.join.table)
                if target is None or target.patient is None:
                    raise ValueError(f"table {table.name}: join leads to no table with a patient column")
        label_table = tables.get(self.label.table)
        if label_table is None or label_table.patient is None:
            raise ValueError("label: its table must be one of the tables, with a patient column of its own")
        for reader in self.readers:
            of_reader = tables.get(reader.table)
            if of_reader is None:
                raise ValueError(f"{reader.name}: there is no table {reader.table}")
            if reader.code is not None and of_reader.code is None:
                raise ValueError(f"{reader.name}: code needs a table with a code column; {reader.table} names none")
        for ordered in (self.label, *self.fields):
            if getattr(ordered, "combine", None) in ("first", "last") and tables[ordered.table].order is None:
                raise ValueError(f"{ordered.name}: first and last need an order column in table {ordered.table}")
        if len(self.columns) > MAX_WIDTH:
            raise ValueError(f"more than {MAX_WIDTH} columns")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("two columns have the same name")
        return self

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Everything that reads a table."""
        return (self.label, *self.fields)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The columns of each field, in order."""
        groups = []
        start = 0
        for field in self.fields:
            columns = tuple(f"{field.name}:{value.code}" for value in field.values())
            kind: Literal["binary", "categorical"] = (
                "binary" if isinstance(field, CodesField | FlagField) else "categorical"
            )
            groups.append(Group(name=field.name, kind=kind, start=start, stop=start + len(columns), columns=columns))
            start += len(columns)
        return tuple(groups)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, such as ``diagnosis:106``."""
        return tuple(column for group in self.groups for column in group.columns)

    @property
    def width(self) -> int:
        """Number of columns that the fields make."""
        return len(self.columns)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """For each column, what it means in words: ``Diagnosis: Cardiac dysrhythmias``."""
        return tuple(
            field.title or field.name
            if isinstance(field, FlagField)
            else f"{field.title or field.name}: {title_of(field.values())[value.code]}"
            for field in self.fields
            for value in field.values()
        )

    def used_columns(self, table: Table) -> tuple[str, ...]:
        """Every column of ``table`` that the schema reads, each once."""
        names = [table.key, *(name for name in (table.order, table.code) if name is not None)]
        names += [other.join.column for other in self.tables if other.join and other.join.table == table.name]
        names += [column for reader in self.readers if reader.table == table.name for column in reader.columns]
        return tuple(dict.fromkeys(names))

    def patterns(self, table: Table) -> tuple[str | None, ...]:
        """For everything that reads ``table``, the codes that it reads; None for all rows."""
        return tuple(reader.code for reader in self.readers if reader.table == table.name)

    def items(self) -> Iterator[tuple[CodesField | CategoryField | FlagField | NumberField, Group]]:
        """Each field with its columns."""
        return zip(self.fields, self.groups, strict=True)

    def to_json_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785), complete in itself."""
        return canonical_bytes(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: covers every vocabulary, mapping, bound and rule."""
        return sha256_hex(self.to_json_bytes())

    @classmethod
    def from_json_bytes(cls, data: bytes) -> Self:
        """Read back what :meth:`to_json_bytes` wrote; no other form is accepted, so that a digest has one meaning.

        Raises:
            SchemaError: if the bytes are no schema or not in canonical form.
        """
        try:
            schema = cls.model_validate_json(data)
        except ValidationError as error:
            raise _refused(explain(error)) from None
        if schema.to_json_bytes() != data:
            raise _refused("the same schema in another form")
        return schema

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a schema from its TOML file, or from the canonical JSON of an earlier one (ending ``.json``).

        Raises:
            SchemaError: if it, or a vocabulary file it names, cannot be used.
        """
        if path.suffix == ".json":
            return cls.from_json_bytes(read_json(path))
        try:
            return cls.model_validate(read_toml(path))
        except ValidationError as error:
            raise SchemaError(
                expected=f"a schema in {path}",
                found=explain(error),
                remedy="Correct the file; docs/schema.md describes every setting.",
            ) from None


class Schema(PatientSchema):
    """The schema of ``codes``: one 0/1 row per patient, made of the fields' columns."""

    modality: Literal["codes"]
    fields: Annotated[tuple[SchemaField, ...], Field(min_length=1)]


def explain(error: ValidationError) -> str:
    """One line naming each faulty setting and what is wrong with it."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'the whole'}: {fault['msg']}" for fault in error.errors()
    )


def _refused(found: str) -> SchemaError:
    return SchemaError(
        expected="the canonical JSON of a schema", found=found, remedy="Write it again with Schema.to_json_bytes."
    )
