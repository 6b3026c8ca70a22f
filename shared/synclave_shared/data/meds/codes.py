"""The MEDS code of each column of a schema, and the schema that reads such codes back.

A field that reads events under their own codes is written under those codes again; every other field, and one whose
columns are groups that the schema's roll-up made, under its own name: ``diagnosis//108``. What is written is exactly
what :func:`written_schema` reads, so patients -> MEDS -> patients changes nothing.
"""

from __future__ import annotations

from typing import Final

from synclave_shared.data.fields import CategoryField, CodesField, FlagField, NumberField, rest_of
from synclave_shared.data.schema import Label, Schema, Table

__all__ = ["column_codes", "parents", "written_schema"]

_SEPARATOR: Final = "//"
AnyField = CodesField | CategoryField | FlagField | NumberField


def written_schema(schema: Schema) -> Schema:
    """The schema that reads what is written for patients of ``schema``: the same columns, from MEDS.

    Every column is a code of the vocabulary, "other" and "missing" too, so that also a synthetic patient with a
    combination that no table could give is read back as it is.
    """
    fields: list[AnyField] = []
    for field, pattern in zip(schema.fields, _patterns(schema), strict=True):
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
    return Schema(
        name=schema.name if schema.name.endswith("-meds") else f"{schema.name[:58]}-meds",
        modality=schema.modality,
        title=schema.title,
        tables=(
            Table(name="labels", patient="subject_id"),
            Table(name="events", patient="subject_id", code="code"),
        ),
        fields=tuple(fields),
        label=Label(
            name=schema.label.name,
            title=schema.label.title,
            values=schema.label.values,
            table="labels",
            column="categorical_value",
            combine="any",
            missing="fault",
        ),
    )


def column_codes(schema: Schema) -> tuple[str | None, ...]:
    """For each column the code of the event that stands for a one; None where a one means that there is no event."""
    codes: list[str | None] = []
    for field, pattern in zip(schema.fields, _patterns(schema), strict=True):
        if isinstance(field, NumberField):
            codes += [pattern] * len(field.bins)
            codes += [None] * (len(field.values()) - len(field.bins))
        elif isinstance(field, FlagField):
            codes.append(_filled(pattern, _flag_text(field, pattern)))
        else:
            codes += [_filled(pattern, value.code) for value in field.values()]
    return tuple(codes)


def parents(schema: Schema) -> dict[str, str]:
    """Source code -> the code of the group that the schema rolls it up to, of fields that read events."""
    found = {}
    for field, pattern in zip(schema.fields, _patterns(schema), strict=True):
        if isinstance(field, CodesField | CategoryField) and field.code is not None and field.code.endswith("*"):
            for code, target in field.mapping.items():
                found[_filled(field.code, code)] = _filled(pattern, target)
    return found


def _patterns(schema: Schema) -> tuple[str, ...]:
    """The pattern of each field's events: the one it reads where that can be turned round, else under its name."""
    named = [field.name if isinstance(field, NumberField) else f"{field.name}{_SEPARATOR}*" for field in schema.fields]
    claimed = [field.code for field in schema.fields if field.code is not None] + named
    return tuple(
        own if (own := _reversible(field)) and sum(_overlap(own, other) for other in claimed) == 1 else name
        for field, name in zip(schema.fields, named, strict=True)
    )


def _reversible(field: AnyField) -> str | None:
    """The pattern that the field reads, if a column of the field says which of its events there was."""
    if field.code is None:
        return None
    if isinstance(field, NumberField):
        # A total or a count is no measurement.
        measured = field.column == "numeric_value" and field.combine in ("first", "last", "min", "max")
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
