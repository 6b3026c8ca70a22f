"""The public agreement on ICU time series: what a schema of 0/1 rows has, and a grid of time with channels on it."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from synclave_shared.canonical import FrozenModel
from synclave_shared.data.fields import CodePattern, ColumnName, SchemaField
from synclave_shared.data.schema import MAX_WIDTH, PATIENT_ID, PatientSchema, Reader, Table, TableName
from synclave_shared.data.series.channel import Channel

__all__ = ["STEP", "Grid", "Moment", "SeriesSchema", "SeriesTable", "Start", "Stay"]

STEP: Final = "step"
"""Name of the column that counts the steps of the grid, from 0, in a table of series."""


class SeriesTable(Table):
    """A table whose rows may have a time.

    Attributes:
        time: the column that tells when a row happened. Every table that a channel reads needs it.
        time_unit: how: as a number of ``seconds``, ``minutes``, ``hours`` or ``days``, or as a ``timestamp``, an ISO
            date and time.
    """

    time: ColumnName | None = None
    time_unit: Literal["seconds", "minutes", "hours", "days", "timestamp"] | None = None

    @model_validator(mode="after")
    def _unit_of_time(self) -> Self:
        if (self.time is None) != (self.time_unit is None):
            raise ValueError(f"table {self.name}: give time and time_unit together")
        return self


class Moment(FrozenModel):
    """A moment of a patient: the time of a row, such as the discharge.

    Attributes:
        table: a table with a time.
        code: in a table of events, the events that are meant; None for all rows.
    """

    table: TableName
    code: CodePattern | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return "grid"

    @property
    def columns(self) -> tuple[str, ...]:
        """No columns but those that lead to patient and time."""
        return ()


class Start(Moment):
    """The moment that is time 0, such as the admission.

    Attributes:
        combine: which of a patient's rows: the ``first`` or the ``last`` by time.
    """

    combine: Literal["first", "last"]


class Grid(FrozenModel):
    """The regular grid of time.

    Attributes:
        step_minutes: length of a step in minutes.
        steps: number of steps T, the horizon. Rows before time 0 and after the horizon are left out and counted.
        start: where time 0 is: ``zero`` where the tables' times are 0; at the patient's ``first-row``, the earliest row
            that a channel reads; or at a moment.
        end: the moment that ends the stay, the first after time 0; rows from it on are left out and counted. Without
            one the stay lasts until the last row that a channel reads.
        missing: patients without a row on the grid (or without that moment) are a ``fault``, or left out and counted
            (``leave-out``).
    """

    step_minutes: Annotated[int, Field(ge=1, le=60 * 24 * 366)]
    steps: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    start: Literal["zero", "first-row"] | Start
    end: Moment | None = None
    missing: Literal["fault", "leave-out"]


class Stay(FrozenModel):
    """Which of a patient's stays is the patient's series: an item is a patient, whatever number of stays.

    Attributes:
        table: the table that says which stays a patient has.
        column: the column that identifies a stay, named alike in this table and in every table with a time.
        order: the column of ``table`` that orders a patient's stays; None if the stay's own identifier does.
        order_form: how it orders: as a ``number``, or as ``text`` that sorts (an ISO date).
        keep: the ``first`` stay or the ``last``. Rows of the others are left out and counted.
    """

    table: TableName
    column: ColumnName
    order: ColumnName | None = None
    order_form: Literal["number", "text"] = "number"
    keep: Literal["first", "last"]


class SeriesSchema(PatientSchema):
    """The schema of ``series``: channels on a grid, and per patient the fields' columns and the label.

    Attributes:
        tables: the files of a site's folder.
        fields: what is known of a patient apart from time, in the order of its columns; may be none.
        grid: the grid of time.
        stay: which stay counts; None if a patient has one, or all rows belong to one course.
        channels: the quantities over time, in the order of the last axis of the values.
    """

    modality: Literal["series"]
    tables: Annotated[tuple[SeriesTable, ...], Field(min_length=1)]
    fields: tuple[SchemaField, ...] = ()
    grid: Grid
    stay: Stay | None = None
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _series_coherent(self) -> Self:
        taken = {PATIENT_ID, STEP, self.label.name, *(field.name for field in self.fields)}
        for channel in self.channels:
            if channel.name in taken:
                raise ValueError(f"the channel's name {channel.name} is taken")
            taken.add(channel.name)
        tables = {table.name: table for table in self.tables}
        timed: list[Channel | Moment] = [*self.channels, *self.moments]
        for reader in timed:
            if tables[reader.table].time is None:
                raise ValueError(f"{reader.name}: table {reader.table} names no time")
        units = {tables[reader.table].time_unit == "timestamp" for reader in timed}
        if len(units) == 2 or (True in units and self.grid.start == "zero"):
            raise ValueError(
                "grid: a timestamp has no zero; begin at the first row or at a moment with a timestamp too"
            )
        if self.stay is not None and self.stay.table not in tables:
            raise ValueError(f"stay: there is no table {self.stay.table}")
        if self.horizon * len(self.channels) > MAX_WIDTH:
            raise ValueError(f"more than {MAX_WIDTH} values per patient")
        return self

    @property
    def horizon(self) -> int:
        """Number of steps T of the grid."""
        return self.grid.steps

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Everything that reads a table."""
        return (*super().readers, *self.channels, *self.moments)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The moments between which a stay is."""
        start, end = self.grid.start, self.grid.end
        return (*([start] if isinstance(start, Start) else []), *([end] if end is not None else []))

    def used_columns(self, table: Table) -> tuple[str, ...]:
        """Every column of ``table`` that the schema reads, each once."""
        names = [*super().used_columns(table)]
        timed = isinstance(table, SeriesTable) and table.time is not None
        names += [table.time] if isinstance(table, SeriesTable) and table.time is not None else []
        if self.stay is not None and (timed or self.stay.table == table.name):
            names.append(self.stay.column)
        if self.stay is not None and self.stay.table == table.name and self.stay.order is not None:
            names.append(self.stay.order)
        return tuple(dict.fromkeys(names))
