"""MEDS as a source of time series: the imported table of events, with its timestamps, is a long table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synclave_shared.data.meds.importing import import_meds
from synclave_shared.data.series.reading import read_series
from synclave_shared.data.series.schema import SeriesSchema

from .ward import POTASSIUM, event, write_events, write_labels

EVENTS = [
    event(1, None, "GENDER//F"),
    event(1, "1950-06-02", "MEDS_BIRTH"),
    event(1, "2020-05-31T20:00:00", POTASSIUM, 3.0),
    event(1, "2020-06-01T08:10:00", "ADMISSION//URGENT"),
    event(1, "2020-06-01T09:00:00", POTASSIUM, 5.0),
    event(1, "2020-06-01T09:09:59", POTASSIUM, 4.0),
    event(1, "2020-06-01T09:10:00", "PULSE", 80),
    event(1, "2020-06-01T11:00:00", POTASSIUM, 9.5),
    event(1, "2020-06-01T12:00:00", "SOMETHING ELSE"),
    event(2, None, "GENDER//M"),
    event(2, "2021-02-01", "ADMISSION//URGENT"),
    event(2, "2021-02-01T01:30:00", "PULSE", 60),
]


def make_schema(start: Any, label: dict[str, Any], labels: bool = False) -> SeriesSchema:
    events = {"name": "events", "patient": "subject_id", "order": "event", "code": "code"}
    tables = [{**events, "time": "time", "time_unit": "timestamp"}, {"name": "subjects", "patient": "subject_id"}]
    one = {"table": "events", "column": "numeric_value", "combine": "mean", "outside": "drop", "unit": ""}
    return SeriesSchema.model_validate(
        {
            "name": "ward-hours",
            "modality": "series",
            "tables": [*tables, *([{"name": "labels", "patient": "subject_id"}] if labels else [])],
            "label": {"values": ["no", "yes"], "combine": "any", "missing": "fault", **label},
            "fields": [
                {
                    "name": "gender",
                    "kind": "category",
                    "table": "events",
                    "code": "GENDER//*",
                    "column": "code",
                    "vocabulary": [{"code": "F"}, {"code": "M"}],
                    "combine": "last",
                    "outside": "fault",
                    "missing": "own-category",
                }
            ],
            "grid": {"step_minutes": 60, "steps": 3, "start": start, "missing": "fault"},
            "channels": [
                {**one, "name": "potassium", "code": POTASSIUM, "minimum": 1, "maximum": 9},
                {**one, "name": "pulse", "code": "PULSE", "minimum": 20, "maximum": 300},
            ],
        }
    )


DIED = {"name": "died", "table": "subjects", "column": "died", "mapping": {"true": "yes", "false": "no"}}
ADMISSION = {"table": "events", "code": "ADMISSION//*", "combine": "first"}


@pytest.mark.parametrize(
    ("start", "potassium", "pulse", "lengths", "skipped"),
    [
        # From the admission: the value before it is counted, 4.5 is the mean of the first hour.
        (ADMISSION, {(0, 0): 4.5}, {(0, 1): 80, (1, 1): 60}, [3, 2], {"before-start": 1}),
        # From the first value, twelve hours before: nothing else is within three hours.
        ("first-row", {(0, 0): 3}, {(1, 0): 60}, [3, 1], {"after-horizon": 4}),
    ],
)
def test_imported_events_are_a_series(
    tmp_path: Path,
    start: Any,
    potassium: dict[tuple[int, int], float],
    pulse: dict[tuple[int, int], float],
    lengths: list[int],
    skipped: dict[str, int],
) -> None:
    write_events(tmp_path / "meds" / "data" / "0.parquet", EVENTS)
    schema = make_schema(start, DIED)
    imported = import_meds(tmp_path / "meds", schema, tmp_path / "tables")
    assert imported.unread["SOMETHING ELSE"] == 1
    dataset, report = read_series(schema, tmp_path / "tables")
    assert dataset is not None, report.faults
    for position, expected in enumerate((potassium, pulse)):
        values = schema.channels[position].unscaled(dataset.values[:, :, position])
        seen = np.argwhere(dataset.observed[:, :, position]).tolist()
        found = {(patient, step): values[patient, step] for patient, step in seen}
        assert found == pytest.approx(expected, abs=1e-4)
    assert dataset.lengths.tolist() == lengths
    assert dataset.static.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert {notice.code: notice.count for notice in report.notices} == skipped
    dropped = {count.name: count.dropped for count in report.channels}
    assert dropped == {"potassium": 1 if start == ADMISSION else 0, "pulse": 0}


def test_events_after_the_prediction_time_are_not_in_the_series(tmp_path: Path) -> None:
    write_events(tmp_path / "meds" / "data" / "0.parquet", EVENTS)
    labels = write_labels(
        tmp_path / "labels.parquet", [(1, "2020-06-01T09:05:00", True), (2, "2021-02-01T05:00:00", False)]
    )
    label = {"name": "died", "table": "labels", "column": "boolean_value", "mapping": {"true": "yes", "false": "no"}}
    schema = make_schema(ADMISSION, label, labels=True)
    import_meds(tmp_path / "meds", schema, tmp_path / "tables", labels=labels)
    dataset, report = read_series(schema, tmp_path / "tables")
    assert dataset is not None, report.faults
    assert schema.channels[0].unscaled(dataset.values[0, :1, 0]) == pytest.approx([5], abs=1e-4)
    assert dataset.observed[0].tolist() == [[1, 0], [0, 0], [0, 0]]
    assert dataset.lengths.tolist() == [1, 2]
    assert dataset.labels.tolist() == [1, 0]
