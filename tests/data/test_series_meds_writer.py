"""Synthetic time series as MEDS: valid for other programs, and read back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synclave_shared.data.meds.codes import END, START, channel_codes, written_series_schema
from synclave_shared.data.meds.importing import import_meds
from synclave_shared.data.meds.series_writer import SeriesMedsWriter
from synclave_shared.data.meds.writer import SCHEMA_FILE
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import recorded
from synclave_shared.errors import DataError

from .test_series_meds import ADMISSION, DIED, make_schema
from .ward import POTASSIUM, ROOT


def schemas() -> list[Path]:
    """Every example's schema of time series."""
    found = [
        path for path in sorted((ROOT / "examples").glob("*/schema*.toml")) if 'modality = "series"' in path.read_text()
    ]
    assert found
    return found


def invent(schema: SeriesSchema, patients: int, seed: int) -> SeriesDataset:
    """Patients without any sense, the second of whom has nothing observed and the third only in the first step."""
    rng = np.random.default_rng(seed)
    shape = (patients, schema.horizon, len(schema.channels))
    lengths = rng.integers(1, schema.horizon + 1, patients)
    inside = np.less(np.arange(schema.horizon), lengths[:, None])[:, :, None]
    observed = ((rng.random(shape) < 0.3) & inside).astype(np.uint8)
    observed[1], observed[2, 1:] = 0, 0
    static = np.zeros((patients, schema.width), np.uint8)
    for group in schema.groups:
        width = group.stop - group.start
        if group.kind == "binary":
            static[:, group.start : group.stop] = rng.random((patients, width)) < 0.4
        else:
            static[np.arange(patients), group.start + rng.integers(0, width, patients)] = 1
    # Bounds themselves too.
    values = np.where(rng.random(shape) < 0.1, rng.choice([-1.0, 1.0], shape), rng.uniform(-1, 1, shape))
    return recorded(
        schema,
        SeriesDataset(
            values=np.where(observed, values, 0).astype(np.float32),
            observed=observed,
            lengths=lengths,
            static=static,
            labels=rng.integers(0, len(schema.label.values), patients),
            patient_ids=[str(number) for number in range(patients)],
        ),
    )


def written(folder: Path, schema: SeriesSchema, dataset: SeriesDataset) -> np.ndarray:
    """Write in shards of seven; returns the patients' numbers."""
    numbers = np.cumsum(np.random.default_rng(0).integers(1, 1000, len(dataset)))
    with SeriesMedsWriter(folder, schema, {"synclave.plan": "abc"}) as writer:
        for start in range(0, len(dataset), 7):
            rows = np.arange(start, min(start + 7, len(dataset)))
            writer.write(dataset.select(rows), numbers[rows], np.full((len(rows), len(schema.fields)), 0.3))
    return numbers


@pytest.mark.parametrize("path", schemas(), ids=lambda path: path.parent.name)
def test_any_patients_come_back_with_their_gaps_and_stays(path: Path, tmp_path: Path) -> None:
    schema = SeriesSchema.load(path)
    dataset = invent(schema, 30, 1)
    numbers = written(tmp_path / "meds", schema, dataset)
    reader = SeriesSchema.load(tmp_path / "meds" / SCHEMA_FILE)
    assert written_series_schema(reader) == reader
    report = import_meds(tmp_path / "meds", reader, tmp_path / "tables", labels=tmp_path / "meds" / "labels")
    assert report.left_out == {}
    found = load_series(reader, tmp_path / "tables")
    found = found.select(np.argsort([int(patient) for patient in found.patient_ids]))
    assert [int(patient) for patient in found.patient_ids] == numbers.tolist()
    for name in ("observed", "lengths", "static", "labels"):
        assert np.array_equal(getattr(found, name), getattr(dataset, name)), name
    np.testing.assert_allclose(found.values, dataset.values, atol=2e-6)


@pytest.mark.parametrize("path", schemas(), ids=lambda path: path.parent.name)
def test_it_is_valid_by_the_standards_own_package(path: Path, tmp_path: Path) -> None:
    meds = pytest.importorskip("meds")
    schema = SeriesSchema.load(path)
    written(tmp_path / "meds", schema, invent(schema, 20, 2))
    for shard in range(3):
        events = pq.read_table(tmp_path / "meds" / "data" / "train" / f"{shard}.parquet")
        meds.DataSchema.validate(events)
        keys = list(zip(events["subject_id"].to_pylist(), events["time"].to_pylist(), strict=True))
        assert keys == sorted(keys, key=lambda key: (key[0], key[1] is not None, key[1]))
        labels = pq.read_table(tmp_path / "meds" / "labels" / schema.label.name / f"{shard}.parquet")
        meds.LabelSchema.validate(labels)
    meds.CodeMetadataSchema.validate(pq.read_table(tmp_path / "meds" / "metadata" / "codes.parquet"))


def test_codes_and_times_are_what_a_hospital_would_write(tmp_path: Path) -> None:
    schema = make_schema(ADMISSION, DIED)
    assert channel_codes(schema) == (POTASSIUM, "PULSE")
    dataset = invent(schema, 3, 3)
    written(tmp_path / "meds", schema, dataset)
    events = pq.read_table(tmp_path / "meds" / "data" / "train" / "0.parquet").to_pylist()
    first = events[0]["subject_id"]
    mine = [event for event in events if event["subject_id"] == first]
    timed = [event for event in mine if event["time"] is not None]
    assert [event["code"] for event in timed if event["code"] in (START, END)] == [START, END]
    assert (timed[-1]["time"] - timed[0]["time"]).total_seconds() == 3600 * dataset.lengths[0]
    seen = {(event["code"], int((event["time"] - timed[0]["time"]).total_seconds()) // 3600) for event in timed[1:-1]}
    expected = {((POTASSIUM, "PULSE")[c], s) for s, c in np.argwhere(dataset.observed[0])}
    assert seen == expected
    (label,) = pq.read_table(tmp_path / "meds" / "labels" / "died" / "0.parquet").slice(0, 1).to_pylist()
    assert label["prediction_time"] == timed[-1]["time"]


def test_codes_that_mean_two_things_give_way_to_names() -> None:
    document: dict[str, Any] = make_schema(ADMISSION, DIED).model_dump()
    document["channels"][1]["code"] = POTASSIUM
    assert channel_codes(SeriesSchema.model_validate(document)) == ("potassium", "pulse")
    document["channels"][1]["code"] = START
    assert channel_codes(SeriesSchema.model_validate(document)) == (POTASSIUM, "pulse")
    document["channels"][1]["code"] = "PULSE//*"
    assert channel_codes(SeriesSchema.model_validate(document)) == (POTASSIUM, "pulse")


def test_what_does_not_fit_leaves_no_dataset(tmp_path: Path) -> None:
    schema = make_schema(ADMISSION, DIED)
    dataset = invent(schema, 4, 4)
    for wrong in (
        replace(dataset, values=dataset.values[:, :, :1], observed=dataset.observed[:, :, :1]),
        replace(dataset, labels=dataset.labels + 5),
    ):
        with (
            pytest.raises(DataError, match="fit the schema"),
            SeriesMedsWriter(tmp_path / "meds", schema, {}) as writer,
        ):
            writer.write(wrong, np.arange(4))
        assert not list(tmp_path.iterdir())
