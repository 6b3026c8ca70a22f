"""A small invented intensive care unit: a schema of every kind of channel, and a row-by-row encoder as slow truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from synclave_shared.data.series.channel import Channel
from synclave_shared.data.series.schema import SeriesSchema

DOCUMENT: dict[str, Any] = {
    "name": "icu",
    "modality": "series",
    "tables": [
        {"name": "people", "patient": "person"},
        {"name": "chart", "patient": "person", "time": "minute", "time_unit": "minutes"},
    ],
    "label": {
        "name": "died",
        "values": ["no", "yes"],
        "table": "people",
        "column": "died",
        "combine": "any",
        "missing": "fault",
    },
    "fields": [
        {
            "name": "sex",
            "kind": "category",
            "table": "people",
            "column": "sex",
            "vocabulary": [{"code": "f"}, {"code": "m"}],
            "combine": "highest",
            "outside": "fault",
            "missing": "own-category",
        }
    ],
    "grid": {"step_minutes": 60, "steps": 4, "start": "zero", "missing": "fault"},
    "channels": [],
}
PEOPLE = {"person": ["p", "q"], "died": ["no", "yes"], "sex": ["f", "m"]}


def channel(name: str = "pulse", **settings: Any) -> dict[str, Any]:
    """A channel of the chart, from 0 to 100."""
    return {
        "name": name,
        "table": "chart",
        "column": name,
        "unit": "1/min",
        "minimum": 0,
        "maximum": 100,
        "combine": "mean",
        "outside": "drop",
        **settings,
    }


def make_schema(*channels: dict[str, Any], chart: Mapping[str, Any] | None = None, **settings: Any) -> SeriesSchema:
    """The unit's schema; ``settings`` replace parts of the document, of the grid what they name."""
    document = {**DOCUMENT, **settings, "channels": list(channels) or [channel()]}
    document["grid"] = {**DOCUMENT["grid"], **settings.get("grid", {})}
    people, own = document["tables"][:2]
    document["tables"] = [people, {**own, **(chart or {})}, *document["tables"][2:]]
    return SeriesSchema.model_validate(document)


def write(folder: Path, chart: Mapping[str, Any], suffix: str = ".parquet", **tables: Mapping[str, Any]) -> Path:
    """Write the chart, the people and other tables; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in {"people": PEOPLE, "chart": chart, **tables}.items():
        table = pa.table(dict(columns))
        if suffix == ".csv":
            pa.csv.write_csv(table, folder / f"{name}.csv")
        else:
            pq.write_table(table, folder / f"{name}.parquet")
    return folder


Cells = dict[tuple[str, int], float]


def slow_truth(one: Channel, step_minutes: int, steps: int, rows: Sequence[tuple[str, float, float | None]]) -> Cells:
    """What a channel shows, from rows of (patient, minute from 0, value): (patient, step) -> value in its unit."""
    low, high = float(one.minimum), float(one.maximum)
    cells: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for patient, minute, value in rows:
        step = math.floor(minute / step_minutes)
        if value is None or not 0 <= step < steps:
            continue
        if one.combine != "sum" and not low <= value <= high:
            if one.outside == "drop":
                continue
            value = min(max(value, low), high)
        cells.setdefault((patient, step), []).append((minute, value))
    shown: Cells = {}
    for place, pairs in cells.items():
        pairs.sort()
        values = [value for _, value in pairs]
        rules = {"mean": sum(values) / len(values), "sum": sum(values), "min": min(values), "max": max(values)}
        number = {**rules, "first": values[0], "last": values[-1]}[one.combine]
        if not low <= number <= high:
            if one.outside == "drop":
                continue
            number = min(max(number, low), high)
        shown[place] = number
    return shown


def scaled(one: Channel, value: float) -> float:
    """A value between its bounds as -1 to 1, by the definition."""
    low, high = float(one.minimum), float(one.maximum)
    if one.transform == "log":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float(np.float32(2 * (value - low) / (high - low) - 1))
