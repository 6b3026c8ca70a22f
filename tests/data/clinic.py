"""A small invented clinic with every kind of field, and a patient-by-patient encoder that serves as slow truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from synclave_shared.data.fields import CategoryField, CodesField, FlagField, NumberField
from synclave_shared.data.schema import Schema

SCHEMA_TOML = """
name = "clinic"
modality = "codes"

[[table]]
name = "stays"
patient = "person"
order = "number"
missing_values = ["?"]

[[table]]
name = "events"
join = { table = "stays", column = "stay" }

[label]
name = "died"
values = ["no", "yes"]
table = "stays"
column = "status"
mapping = { "home" = "no", "transfer" = "no", "dead" = "yes" }
combine = "any"
missing = "leave-out"

[[field]]
name = "sex"
kind = "category"
table = "stays"
column = "sex"
vocabulary = ["f", "m"]
combine = "first"
outside = "fault"
missing = "own-category"

[[field]]
name = "severity"
kind = "category"
table = "stays"
column = "severity"
form = "number"
mapping = { "1" = "mild", "2" = "severe" }
vocabulary = ["mild", "severe"]
combine = "highest"
outside = "other"
missing = "own-category"

[[field]]
name = "surgery"
kind = "flag"
table = "stays"
column = "surgery"
true = ["Y"]
false = ["N"]
combine = "last"
missing = "none"

[[field]]
name = "days"
kind = "number"
table = "stays"
column = "days"
unit = "days"
minimum = 0
maximum = 30
edges = [1, 3, 7]
integer = true
combine = "sum"
outside = "clip"
missing = "own-category"

[[field]]
name = "potassium"
kind = "number"
table = "stays"
column = "potassium"
missing_values = ["-1"]
unit = "mmol/L"
minimum = 1.5
maximum = 9
edges = [3.5, 5.1]
integer = false
mapping = { "> 9" = 9 }
combine = "last"
outside = "fault"
missing = "own-category"

[[field]]
name = "stay_count"
kind = "number"
table = "stays"
column = "stay"
unit = "stays"
minimum = 1
maximum = 9
edges = [2, 4]
integer = true
combine = "count"
outside = "clip"
missing = "fault"

[[field]]
name = "event_count"
kind = "number"
table = "events"
column = "stay"
unit = "events"
minimum = 0
maximum = 5
edges = [1, 2]
integer = true
combine = "count"
outside = "clip"
missing = "fault"

[[field]]
name = "pain"
kind = "number"
table = "events"
column = "pain"
unit = "points"
minimum = 0
maximum = 10
edges = [4, 7]
integer = true
combine = "min"
outside = "fault"
missing = "own-category"

[[field]]
name = "diagnosis"
kind = "codes"
table = "events"
columns = ["code_1", "code_2"]
split = ";"
form = "icd9"
ignore = ["none", "Z.*"]
mapping_file = "rollup.csv"
vocabulary_file = "groups.csv"
outside = "other"
missing = "own-category"

[[field]]
name = "procedure"
kind = "codes"
table = "events"
columns = ["procedure"]
path = { separator = "|", levels = 2 }
vocabulary = ["lung|scope", "lung|tube", "skin|graft"]
outside = "fault"
missing = "none"
"""

ROLLUP = {"038": "sepsis", "0389": "sepsis", "428": "heart failure", "4280": "heart failure", "V58": "aftercare"}
GROUPS = {"sepsis": "Septicaemia", "heart failure": "Heart failure, any", "aftercare": ""}

STAYS = {
    "person": ["p1", "p1", "p2", "p3"],
    "number": [2, 1, 1, 1],
    "stay": [11, 12, 21, 31],
    "status": ["home", "dead", "transfer", "home"],
    "sex": ["m", "f", None, "m"],
    "severity": ["1", "2.0", "7", None],
    "surgery": ["N", "Y", "Y", None],
    "days": [2, 5, 40, None],
    "potassium": ["4.0", "5.1", "> 9", "-1"],
}
EVENTS = {
    "stay": [11, 12, 12, 21],
    "code_1": ["38.9", "V58.0;428", "none", None],
    "code_2": [None, "Z99", "999", None],
    "pain": [9, 8, 7, 3],
    "procedure": ["lung|scope|long", None, "skin|graft", "lung|tube"],
}


def write_schema(folder: Path, text: str = SCHEMA_TOML) -> Path:
    """Write the clinic's schema with its two code files; returns the schema's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rollup = "".join(f"{code},{target}\n" for code, target in ROLLUP.items())
    (folder / "rollup.csv").write_text(f"code,target\n{rollup}", encoding="utf-8")
    groups = "".join(f'{code},"{title}"\n' for code, title in GROUPS.items())
    (folder / "groups.csv").write_text(f"code,title\n{groups}", encoding="utf-8")
    path = folder / "schema.toml"
    path.write_text(text, encoding="utf-8")
    return path


def write_tables(
    folder: Path, stays: Mapping[str, Any] = STAYS, events: Mapping[str, Any] = EVENTS, suffix: str = ".parquet"
) -> Path:
    """Write the clinic's two tables; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in (("stays", stays), ("events", events)):
        table = pa.table(dict(columns))
        if suffix == ".csv":
            pa.csv.write_csv(table, folder / f"{name}.csv")
        else:
            pq.write_table(table, folder / f"{name}.parquet")
    return folder


Row = Mapping[str, str | None]


def text_rows(table: pa.Table) -> list[Row]:
    """Rows of a table with every value as text, whole floats as integers."""

    def text(value: Any) -> str | None:
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return None if value is None else str(value)

    return [{name: text(value) for name, value in row.items()} for row in table.to_pylist()]


def slow_truth(schema: Schema, tables: Mapping[str, Sequence[Row]]) -> dict[str, tuple[list[int], str]]:
    """Encode patient by patient and row by row: identifier -> (features, label). Only for data without faults."""
    by_name = {table.name: table for table in schema.tables}

    def owner(table_name: str, row: Row) -> str | None:
        table = by_name[table_name]
        if table.patient is not None:
            return row[table.patient]
        assert table.join is not None
        target = by_name[table.join.table]
        assert target.patient is not None
        matches = [other for other in tables[target.name] if other[table.join.column] == row[table.join.column]]
        return matches[0][target.patient]

    result = {}
    for patient in sorted({str(owner(schema.label.table, row)) for row in tables[schema.label.table]}):
        rows_of = {
            name: sorted(
                (row for row in rows if owner(name, row) == patient),
                key=lambda row, order=by_name[name].order: 0.0 if order is None else float(str(row[order])),
            )
            for name, rows in tables.items()
        }

        def values(field: Any, column: str, rows_of: Mapping[str, list[Row]] = rows_of) -> list[str]:
            empty = {None, "", *by_name[field.table].missing_values, *getattr(field, "missing_values", ())}
            return [value for row in rows_of[field.table] if (value := row[column]) not in empty and value is not None]

        label_texts = values(schema.label, schema.label.column)
        if not label_texts:
            continue
        positions = [schema.label.values.index(schema.label.mapping.get(text, text)) for text in label_texts]
        pick = {"any": max, "first": lambda some: some[0], "last": lambda some: some[-1]}
        label = schema.label.values[pick[schema.label.combine](positions)]
        features: list[int] = []
        for field in schema.fields:
            features += _slow_field(field, {column: values(field, column) for column in field.columns})
        result[patient] = (features, label)
    return result


def _slow_field(
    field: CodesField | CategoryField | FlagField | NumberField, texts: Mapping[str, list[str]]
) -> list[int]:
    columns = [0] * len(field.values())
    if isinstance(field, CodesField):
        for cell in (cell for cells in texts.values() for cell in cells):
            for code in field.codes_of(cell):
                if not field.is_ignored(code):
                    position = field.position(code)
                    columns[len(field.vocabulary) if position is None else position] = 1
        if field.missing == "own-category":
            columns[-1] = int(not any(texts.values()))
        return columns
    cells = texts[field.column]
    if isinstance(field, FlagField):
        yes = [text in field.true for text in cells]
        columns[0] = int(bool(yes) and {"any": any(yes), "first": yes[0], "last": yes[-1]}[field.combine])
        return columns
    if isinstance(field, CategoryField):
        found = [len(field.vocabulary) if (at := field.position(text)) is None else at for text in cells]
        if not found:
            columns[-1] = 1
        else:
            columns[{"first": found[0], "last": found[-1], "highest": max(found)}[field.combine]] = 1
        return columns
    if field.combine == "count":
        number: float | None = len(cells)
    else:
        numbers = [float(field.mapping[text]) if text in field.mapping else float(text) for text in cells]
        rule: Any = {"first": lambda n: n[0], "last": lambda n: n[-1], "min": min, "max": max, "sum": sum}
        number = rule[field.combine](numbers) if numbers else None
    if number is None:
        columns[-1] = 1
    else:
        number = min(max(number, float(field.minimum)), float(field.maximum))
        columns[sum(number >= float(edge) for edge in field.edges)] = 1
    return columns
