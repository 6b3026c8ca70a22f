"""A small invented hospital ward as a MEDS dataset, and the schema of docs/meds.md that reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
TYPES = {
    "subject_id": pa.int64(),
    "time": pa.timestamp("us"),
    "code": pa.string(),
    "numeric_value": pa.float32(),
    "text_value": pa.large_string(),
}
Event = Mapping[str, Any]


def event(subject: int, day: str | None, code: str, number: float | None = None) -> Event:
    """One event; ``day`` is an ISO date or time."""
    time = None if day is None else datetime.fromisoformat(day)
    return {"subject_id": subject, "time": time, "code": code, "numeric_value": number, "text_value": None}


POTASSIUM = "LAB//50971//mEq/L"
TRAIN: list[Event] = [
    event(11, None, "GENDER//F"),
    event(11, "1950-06-02", "MEDS_BIRTH"),
    event(11, "2020-06-01", "ADMISSION//URGENT"),
    event(11, "2020-06-01T09:00:00", POTASSIUM, 5.1),
    event(11, "2020-06-03", "ICD9CM//250.00"),
    event(11, "2020-06-03", "ICD9CM//428.0"),
    event(11, "2020-09-01", "ICD9CM//038.9"),
    event(12, None, "GENDER//M"),
    event(12, "1990-01-01", "MEDS_BIRTH"),
    event(12, "2021-02-01", POTASSIUM, 6.0),
    event(12, "2021-02-02", POTASSIUM, 3.4),
    event(12, "2021-02-02", "ICD9CM//xyz"),
    event(12, "2021-02-03", "MEDS_DEATH"),
    event(13, None, "GENDER//F"),
    event(13, "2021-05-01", "ADMISSION//ELECTIVE"),
]
HELD_OUT: list[Event] = [
    event(21, None, "GENDER//M"),
    event(21, "1980-01-01", "MEDS_BIRTH"),
    event(21, "2021-05-01", "ICD9CM//401.9"),
]
SPLITS = {11: "train", 12: "train", 13: "train", 14: "train", 21: "held_out"}
RETURNED = [
    (11, "2020-06-04", True),
    (12, "2021-02-02T12:00:00", False),
    (14, "2021-01-01", False),
    (21, "2021-06-01", True),
    (99, "2021-01-01", False),
]


def write_events(path: Path, events: Sequence[Event], types: Mapping[str, pa.DataType] = TYPES) -> None:
    """Write a shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array([row[name] for row in events]).cast(kind) for name, kind in types.items()}
    pq.write_table(pa.table(columns), path)


def write_ward(folder: Path, train: Sequence[Event] = TRAIN, held_out: Sequence[Event] = HELD_OUT) -> Path:
    """Write the dataset, in two shards; returns its folder."""
    write_events(folder / "data" / "train" / "0.parquet", train)
    write_events(folder / "data" / "held_out" / "0.parquet", held_out)
    write_splits(folder, list(SPLITS.items()))
    stated = {"dataset_name": "Ward", "dataset_version": "2", "meds_version": "0.4.0"}
    (folder / "metadata" / "dataset.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder


def write_splits(folder: Path, splits: Sequence[tuple[int, str | None]]) -> None:
    """Write the subjects' splits."""
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    columns = {
        "subject_id": pa.array([subject for subject, _ in splits], pa.int64()),
        "split": pa.array([split for _, split in splits], pa.string()),
    }
    pq.write_table(pa.table(columns), folder / "metadata" / "subject_splits.parquet")


def write_labels(path: Path, labels: Sequence[tuple[int, str, bool]] = RETURNED) -> Path:
    """Write a label file; returns its path."""
    columns = {
        "subject_id": pa.array([subject for subject, _, _ in labels], pa.int64()),
        "prediction_time": pa.array([datetime.fromisoformat(day) for _, day, _ in labels], pa.timestamp("us")),
        "boolean_value": pa.array([value for _, _, value in labels], pa.bool_()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def schema_text() -> str:
    """The schema on the page."""
    found = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "meds.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def write_ward_schema(folder: Path, text: str | None = None) -> Path:
    """Write the schema of the page, or another one, with the code files beside it; returns the schema's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ccs.csv", "icd9_to_ccs.csv"):
        (folder / name).write_bytes((ROOT / "examples" / "codes" / name).read_bytes())
    path = folder / "schema.toml"
    path.write_text(schema_text() if text is None else text, encoding="utf-8")
    return path
