"""The tables of a series cohort: series -> table -> series, and what is no such table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.reading import load_series, read_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import is_series_cohort, series_table, write_cohort
from synclave_shared.errors import ConfigurationError, DataError

from .icu import channel, make_schema

SCHEMA = make_schema(
    channel("pulse", combine="sum", code=None),
    channel("lactate", minimum="0.05", maximum=40, transform="log", combine="first", missing_values=["0"]),
    channel("excess", minimum=-40, maximum=40, outside="fault"),
)


def draw(seed: int, patients: int) -> SeriesDataset:
    """Random patients, not in the order of their identifiers."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 5, patients)
    shape = (patients, 4, 3)
    observed = (random.random(shape) < 0.5) & (np.arange(4)[:, None] < lengths[:, None, None])
    values = np.where(observed, random.uniform(-1, 1, shape), 0).astype(np.float32)
    values[observed & (random.random(shape) < 0.2)] = -1
    return SeriesDataset(
        values=values,
        observed=observed.astype(np.uint8),
        lengths=lengths,
        static=np.eye(3, dtype=np.uint8)[random.integers(0, 3, patients)],
        labels=random.integers(0, 2, patients),
        patient_ids=[f"s{patients - position}" for position in range(patients)],
    )


def assert_same(found: SeriesDataset, expected: SeriesDataset) -> None:
    assert np.abs(found.values - expected.values).max() <= 2**-24
    for name in ("observed", "lengths", "static", "labels"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.patient_ids == expected.patient_ids


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), patients=st.integers(1, 12))
def test_there_and_back(seed: int, patients: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset = draw(seed, patients)
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder / "parquet", SCHEMA, dataset, {"who": "test"})
    assert_same(load_series(SCHEMA, folder / "parquet"), dataset)
    (folder / "csv").mkdir()
    for name in ("patients", "series"):
        table = pq.read_table(folder / "parquet" / f"{name}.parquet")
        assert table.schema.metadata[b"synclave.schema_digest"].decode() == SCHEMA.digest
        pa.csv.write_csv(table, folder / "csv" / f"{name}.csv")
    assert_same(load_series(SCHEMA, folder / "csv"), dataset)


def test_the_table_has_a_row_for_each_step_of_the_stay_in_real_units() -> None:
    dataset = SeriesDataset(
        values=np.array([[[0.5, 0, 0], [0, -1, 0.25], [0] * 3, [0] * 3], [[0] * 3] * 4], dtype=np.float32),
        observed=np.array([[[1, 0, 0], [0, 1, 1], [0] * 3, [0] * 3], [[0] * 3] * 4], dtype=np.uint8),
        lengths=np.array([3, 1]),
        static=np.array([[1, 0, 0], [0, 0, 1]], dtype=np.uint8),
        labels=np.array([0, 1]),
        patient_ids=["a", "b"],
    )
    assert series_table(SCHEMA, dataset).to_pydict() == {
        "patient_id": ["a", "a", "a", "b"],
        "step": [0, 1, 2, 0],
        "pulse": [75, None, None, None],
        "lactate": [None, pytest.approx(0.05), None, None],
        "excess": [None, 10, None, None],
    }


def test_a_cohort_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort", SCHEMA, draw(1, 3))
    with pytest.raises(ConfigurationError, match="does not exist yet"):
        write_cohort(tmp_path / "cohort", SCHEMA, draw(2, 3))
    assert_same(load_series(SCHEMA, tmp_path / "cohort"), draw(1, 3))
    other = make_schema(channel())
    with pytest.raises(DataError, match="series of shape"):
        write_cohort(tmp_path / "other", other, draw(1, 3))
    assert os.listdir(tmp_path) == ["cohort"]


BROKEN: list[tuple[str, dict[str, list[Any]], list[tuple[int | None, str | None, str]]]] = [
    ("series", {"step": [0, 4]}, [(2, "step", "out-of-bounds")]),
    ("series", {"step": [0.0, 0.5]}, [(2, "step", "out-of-bounds")]),
    ("series", {"step": [-1, 0]}, [(1, "step", "out-of-bounds")]),
    ("series", {"step": [1, 1]}, [(2, "step", "bad-order")]),
    ("series", {"step": [0, None]}, [(2, "step", "bad-order"), (2, "step", "bad-time")]),
    ("series", {"pulse": [1, 101]}, [(2, "pulse", "out-of-bounds")]),
    ("series", {"pulse": [None, "much"]}, [(2, "pulse", "not-a-number")]),
    ("series", {"patient_id": ["a", "b"]}, [(2, "patient_id", "unknown-patient")]),
    ("patients", {"sex": ["x"]}, [(1, "sex", "outside-vocabulary")]),
    ("patients", {"patient_id": ["b"]}, [(1, "patient_id", "unknown-patient"), (2, "patient_id", "unknown-patient")]),
]


@pytest.mark.parametrize(("name", "changed", "expected"), BROKEN)
def test_what_does_not_fit_is_named(
    tmp_path: Path,
    name: str,
    changed: dict[str, list[Any]],
    expected: list[tuple[int | None, str | None, str]],
) -> None:
    tables: dict[str, dict[str, list[Any]]] = {
        "patients": {"patient_id": ["a"], "died": ["no"], "sex": ["f"]},
        "series": {
            "patient_id": ["a", "a"],
            "step": [0, 1],
            "pulse": [5.0, None],
            "lactate": [1.0, 0.5],
            "excess": [0, 0],
        },
    }
    tables[name].update(changed)
    for own, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"{own}.parquet")
    assert is_series_cohort(SCHEMA, tmp_path)
    dataset, report = read_series(SCHEMA, tmp_path)
    assert dataset is None
    assert [(fault.row, fault.column, fault.code) for fault in report.faults] == expected


def test_a_hospitals_folder_is_no_cohort(tmp_path: Path) -> None:
    pq.write_table(pa.table({"patient_id": ["a"], "died": ["no"], "sex": ["f"]}), tmp_path / "patients.parquet")
    assert not is_series_cohort(SCHEMA, tmp_path)
    assert not is_series_cohort(SCHEMA, tmp_path / "patients.parquet")


def test_of_a_cohort_that_lacks_a_column_that_column_is_reported(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort", SCHEMA, draw(1, 3))
    series = pq.read_table(tmp_path / "cohort" / "series.parquet")
    pq.write_table(series.drop_columns(["pulse"]), tmp_path / "cohort" / "series.parquet")
    faults = read_series(SCHEMA, tmp_path / "cohort")[1].faults
    assert [(fault.file, fault.column, fault.code) for fault in faults] == [
        ("series.parquet", "pulse", "missing-column")
    ]
    pq.write_table(series.append_column("hour", series["step"]), tmp_path / "cohort" / "series.parquet")
    faults = read_series(SCHEMA, tmp_path / "cohort")[1].faults
    assert [(fault.file, fault.column, fault.code) for fault in faults] == [
        ("series.parquet", "hour", "unknown-column")
    ]


def test_a_hospitals_own_tables_may_be_called_like_those_of_a_cohort(tmp_path: Path) -> None:
    document = SCHEMA.model_dump_json()
    for table, name in zip(SCHEMA.tables, ("patients", "series"), strict=True):
        document = document.replace(f'"{table.name}"', f'"{name}"')
    own = SeriesSchema.model_validate_json(document)
    pq.write_table(pa.table({"patient_id": ["a"], "died": ["no"], "sex": ["f"]}), tmp_path / "patients.parquet")
    pq.write_table(pa.table({"patient_id": ["a"], "hour": [0], "pulse": [1]}), tmp_path / "series.parquet")
    assert not is_series_cohort(own, tmp_path)
    assert is_series_cohort(SCHEMA, tmp_path)
