"""The MEDS code of each column and channel of a schema, and the schema that reads such codes back.

A field or channel that reads events under their own codes is written under those codes again; every other one, and a
field whose columns are groups that the schema's roll-up made, under its own name: ``diagnosis//108``. What is written
is exactly what :func:`written_schema` reads, so patients -> MEDS -> patients changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from synclave_shared.data.fields import CategoryField, CodesField, FlagField, NumberField, rest_of
from synclave_shared.data.schema import Label, PatientSchema, Schema, Table
from synclave_shared.data.series.channel import Channel
from synclave_shared.data.series.schema import Grid, Moment, SeriesSchema, SeriesTable, Start

__all__ = ["END", "START", "channel_codes", "column_codes", "parents", "written_schema", "written_series_schema"]

START: Final = "STAY//START"
"""Code of the event at time 0 of a series."""
END: Final = "STAY//END"
"""Code of the event that ends the stay of a series."""

_SEPARATOR: Final = "//"
AnyField = CodesField | CategoryField | FlagField | NumberField


def written_schema(schema: Schema) -> Schema:
    """The schema that reads what is written for patients of ``schema``: the same columns, from MEDS.

    Every column is a code of the vocabulary, "other" and "missing" too, so that also a synthetic patient with a
    combination that no table could give is read back as it is.
    """
    return Schema(
        modality=schema.modality,
        tables=(
            Table(name="labels", patient="subject_id"),
            Table(name="events", patient="subject_id", code="code"),
        ),
        **_written_parts(schema),
    )


def written_series_schema(schema: SeriesSchema) -> SeriesSchema:
    """The same for time series: the same columns, channels and grid. A step has one event of a channel at most.

    The stay is told by two events, :data:`START` and :data:`END`: nothing need be observed in its last step.
    """
    # A bound itself may be a little beyond it as a float32.
    read = {"table": "events", "column": "numeric_value", "missing_values": (), "mapping": {}, "outside": "clip"}
    return SeriesSchema(
        modality=schema.modality,
        tables=(
            SeriesTable(name="labels", patient="subject_id"),
            SeriesTable(name="events", patient="subject_id", code="code", time="time", time_unit="timestamp"),
        ),
        grid=Grid(
            step_minutes=schema.grid.step_minutes,
            steps=schema.grid.steps,
            start=Start(table="events", code=START, combine="first"),
            end=Moment(table="events", code=END),
            missing="fault",
        ),
        channels=tuple(
            channel.model_copy(update={**read, "code": code, "combine": "last"})
            for channel, code in zip(schema.channels, channel_codes(schema), strict=True)
        ),
        **_written_parts(schema),
    )


def _written_parts(schema: PatientSchema) -> dict[str, Any]:
    """What the schemas of all modalities that read a written dataset have."""
    fields: list[AnyField] = []
    for field, pattern in _of_fields(schema):
        where = {"name": field.name, "title": field.title, "table": "events", "code": pattern}
        values = field.values()
        if isinstance(field, CodesField):
            fields.append(
                CodesField(**where, kind="codes", columns=("code",), vocabulary=values, outside="fault", missing="none")
            )
        elif isinstance(field, CategoryField):
            fields.append(
                CategoryField(
                    **where,
                    kind="category",
                    column="code",
                    vocabulary=values,
                    combine="highest",
                    outside="fault",
                    missing="fault",
                )
            )
        elif isinstance(field, FlagField):
            yes = (_flag_text(field, pattern),)
            fields.append(
                FlagField(**where, kind="flag", column="code", true=yes, false=(), combine="any", missing="none")
            )
        else:
            read = {"table": "events", "code": pattern, "column": "numeric_value", "missing_values": (), "mapping": {}}
            fields.append(field.model_copy(update={**read, "combine": "max", "outside": "fault"}))
    return {
        "name": schema.name if schema.name.endswith("-meds") else f"{schema.name[:58]}-meds",
        "title": schema.title,
        "fields": tuple(fields),
        "label": Label(
            name=schema.label.name,
            title=schema.label.title,
            values=schema.label.values,
            table="labels",
            column="categorical_value",
            combine="any",
            missing="fault",
        ),
    }


def channel_codes(schema: SeriesSchema) -> tuple[str, ...]:
    """For each channel the code of the events that are its observations."""
    return _patterns(schema)[len(schema.fields) :]


def column_codes(schema: PatientSchema) -> tuple[str | None, ...]:
    """For each column the code of the event that stands for a one; None where a one means that there is no event."""
    codes: list[str | None] = []
    for field, pattern in _of_fields(schema):
        if isinstance(field, NumberField):
            codes += [pattern] * len(field.bins)
            codes += [None] * (len(field.values()) - len(field.bins))
        elif isinstance(field, FlagField):
            codes.append(_filled(pattern, _flag_text(field, pattern)))
        else:
            codes += [_filled(pattern, value.code) for value in field.values()]
    return tuple(codes)


def parents(schema: PatientSchema) -> dict[str, str]:
    """Source code -> the code of the group that the schema rolls it up to, of fields that read events."""
    found = {}
    for field, pattern in _of_fields(schema):
        if isinstance(field, CodesField | CategoryField) and field.code is not None and field.code.endswith("*"):
            for code, target in field.mapping.items():
                found[_filled(field.code, code)] = _filled(pattern, target)
    return found


def _of_fields(schema: PatientSchema) -> Iterator[tuple[AnyField, str]]:
    """Each field with the pattern of its events."""
    return zip(schema.fields, _patterns(schema)[: len(schema.fields)], strict=True)


def _patterns(schema: PatientSchema) -> tuple[str, ...]:
    """The pattern of the events of each field, then of each channel.

    It is the one that is read where that can be turned round, else one under the name.
    """
    channels = schema.channels if isinstance(schema, SeriesSchema) else ()
    readers: list[AnyField | Channel] = [*schema.fields, *channels]
    named = [one.name if isinstance(one, NumberField | Channel) else f"{one.name}{_SEPARATOR}*" for one in readers]
    claimed = [one.code for one in readers if one.code is not None] + named + [START, END] * bool(channels)
    return tuple(
        own if (own := _reversible(one)) and sum(_overlap(own, other) for other in claimed) == 1 else name
        for one, name in zip(readers, named, strict=True)
    )


def _reversible(field: AnyField | Channel) -> str | None:
    """The pattern that a field or channel reads, if what is written of it says which of those events there was."""
    if field.code is None:
        return None
    if isinstance(field, NumberField | Channel):
        # A total or a count is no measurement.
        measured = field.column == "numeric_value" and field.combine in ("first", "last", "min", "max", "mean")
        return field.code if measured and not field.code.endswith("*") else None
    rolled_up = not isinstance(field, FlagField) and bool(field.mapping)
    cut = isinstance(field, CodesField) and (field.path is not None or field.split is not None)
    as_code = field.columns == ("code",) and field.code.endswith("*") and not rolled_up and not cut
    return field.code if as_code else None


def _overlap(one: str, other: str) -> bool:
    """Whether a code could fit both patterns."""
    return rest_of(one.removesuffix("*"), other) is not None or rest_of(other.removesuffix("*"), one) is not None


def _flag_text(field: FlagField, pattern: str) -> str:
    return field.true[0] if pattern == field.code else "yes"


def _filled(pattern: str, text: str) -> str:
    return pattern[:-1] + text
