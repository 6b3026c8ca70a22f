"""The wide patient table: exact both ways, refused whole when it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synclave_shared.data.fields import NumberField
from synclave_shared.data.patient_table import read_patient_table, to_table, wide_columns, write_patient_table
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.data.tables import check_folder, load_patients
from synclave_shared.errors import DataError

from .clinic import write_schema


def random_patients(schema: Schema, count: int, seed: int) -> PatientDataset:
    random = np.random.default_rng(seed)
    features = np.zeros((count, schema.width), dtype=np.uint8)
    for group in schema.groups:
        width = group.stop - group.start
        if group.kind == "binary":
            features[:, group.start : group.stop] = random.random((count, width)) < 0.2
        else:
            features[np.arange(count), group.start + random.integers(0, width, count)] = 1
    labels = random.integers(0, len(schema.label.values), count).astype(np.int64)
    return PatientDataset(
        features=SparseRows.of(features), labels=labels, patient_ids=[f"synthetic-{i}" for i in range(count)]
    )


def write(path: Path, schema: Schema, patients: PatientDataset) -> Path:
    write_patient_table(path, schema, patients.features[:], patients.labels, patients.patient_ids)
    return path


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 30), seed=st.integers(0, 2**32 - 1), suffix=st.sampled_from([".parquet", ".csv"]))
def test_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, suffix: str) -> None:
    folder = tmp_path_factory.mktemp("wide")
    schema = Schema.load(write_schema(folder))
    patients = random_patients(schema, count, seed)
    for read in (read_patient_table, load_patients):
        again = read(schema, write(folder / f"patients{suffix}", schema, patients))
        assert np.array_equal(again.features[:], patients.features[:])
        assert np.array_equal(again.labels, patients.labels)
        assert again.patient_ids == patients.patient_ids


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), suffix=st.sampled_from([".parquet", ".csv"]))
def test_a_number_drawn_anywhere_in_its_bin_finds_it_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, seed: int, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("within")
    schema = Schema.load(write_schema(folder))
    patients = random_patients(schema, 20, seed)
    share = st.floats(0, 1, exclude_min=True, exclude_max=True)
    within = data.draw(arrays(np.float64, (20, sum(isinstance(f, NumberField) for f in schema.fields)), elements=share))
    path = folder / f"patients{suffix}"
    write_patient_table(path, schema, patients.features[:], patients.labels, patients.patient_ids, within=within)
    assert np.array_equal(read_patient_table(schema, path).features[:], patients.features[:])


def test_numbers_are_spread_over_their_bins(clinic: Schema) -> None:
    patients = random_patients(clinic, 4000, seed=3)
    count = sum(isinstance(field, NumberField) for field in clinic.fields)
    within = np.random.default_rng(0).random((4000, count))
    table = to_table(clinic, patients.features[:], patients.labels, patients.patient_ids, within)
    assert set(table["days"].to_pylist()) == {*range(31), None}
    potassium = np.array([value for value in table["potassium"].to_pylist() if value is not None])
    middle = potassium[(potassium >= 3.5) & (potassium < 5.1)]
    # Mean and extremes of 900 uniform numbers: four standard errors, and gaps of e ** -9.
    assert abs(middle.mean() - 4.3) < 4 * 1.6 / np.sqrt(12 * len(middle))
    assert middle.min() < 3.52
    assert middle.max() > 5.08


def test_round_trip_of_the_diabetes_example(diabetes: Schema, tmp_path: Path) -> None:
    patients = random_patients(diabetes, 200, seed=1)
    again = load_patients(diabetes, write(tmp_path / "synthetic.parquet", diabetes, patients))
    assert np.array_equal(again.features[:], patients.features[:])


def test_the_table_can_be_read_by_people(clinic: Schema) -> None:
    patients = random_patients(clinic, 40, seed=3)
    table = to_table(clinic, patients.features[:], patients.labels, patients.patient_ids)
    assert table.column_names == wide_columns(clinic)
    assert set(table["died"].to_pylist()) == {"no", "yes"}
    assert set(table["sex"].to_pylist()) == {"f", "m", "missing"}
    assert set(table["days"].to_pylist()) <= {0, 1, 4, 18, None}
    assert set(table["potassium"].to_pylist()) <= {2.0, 4.0, 7.0, None}
    assert table["diagnosis:sepsis"].type == pa.uint8()


def test_empty_table_can_be_written_and_is_a_fault_to_read(clinic: Schema, tmp_path: Path) -> None:
    path = write(tmp_path / "none.parquet", clinic, random_patients(clinic, 0, seed=0))
    assert [fault.code for fault in check_folder(clinic, path).faults] == ["no-patients"]


def test_what_does_not_fit_is_not_written(clinic: Schema, tmp_path: Path) -> None:
    good = random_patients(clinic, 4, seed=2)
    path = write(tmp_path / "patients.parquet", clinic, good)
    before = path.read_bytes()
    two_values = good.features[:]
    two_values[0, clinic.groups[0].start : clinic.groups[0].stop] = 1
    no_value = good.features[:]
    no_value[0, clinic.groups[0].start : clinic.groups[0].stop] = 0
    for features, labels, ids in (
        (two_values, good.labels, good.patient_ids),
        (no_value, good.labels, good.patient_ids),
        (good.features[:] * 2, good.labels, good.patient_ids),
        (good.features[:][:, 1:], good.labels, good.patient_ids),
        (good.features[:], good.labels + 2, good.patient_ids),
        (good.features[:], good.labels[:3], good.patient_ids),
        (good.features[:], good.labels, ["a", "a", "b", "c"]),
    ):
        with pytest.raises(DataError):
            write_patient_table(path, clinic, features, labels, ids)
    with pytest.raises(DataError, match="ending"):
        write(tmp_path / "patients.xlsx", clinic, good)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["patients.parquet"]


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("patient_id", "synthetic-0", "duplicate-patient"),
        ("patient_id", None, "null-key"),
        ("died", "perhaps", "outside-vocabulary"),
        ("died", None, "missing-value"),
        ("sex", "x", "outside-vocabulary"),
        ("sex", None, "missing-value"),
        ("stay_count", None, "missing-value"),
        ("stay_count", 10, "outside-vocabulary"),
        ("diagnosis:sepsis", 2, "outside-vocabulary"),
        ("diagnosis:sepsis", None, "missing-value"),
    ],
)
def test_a_wrong_cell_is_named(clinic: Schema, tmp_path: Path, column: str, value: object, code: str) -> None:
    path = write(tmp_path / "patients.parquet", clinic, random_patients(clinic, 5, seed=4))
    table = pq.read_table(path)
    cells = table[column].to_pylist()
    cells[2] = value
    pq.write_table(table.set_column(table.column_names.index(column), column, [cells]), path)
    faults = [fault for fault in check_folder(clinic, path).faults if fault.row in (3, None)]
    assert [(fault.row, fault.column, fault.code) for fault in faults] == [(3, column, code)]
    with pytest.raises(DataError):
        read_patient_table(clinic, path)


def test_a_table_without_one_column_is_still_known_as_a_patient_table(clinic: Schema, tmp_path: Path) -> None:
    path = write(tmp_path / "patients.parquet", clinic, random_patients(clinic, 5, seed=4))
    pq.write_table(pq.read_table(path).drop_columns(["sex"]), path)
    faults = check_folder(clinic, path).faults
    assert [(fault.column, fault.code) for fault in faults] == [("sex", "missing-column")]


def test_order_of_columns_and_way_of_writing_yes_do_not_matter(clinic: Schema, tmp_path: Path) -> None:
    patients = random_patients(clinic, 9, seed=5)
    table = to_table(clinic, patients.features[:], patients.labels, patients.patient_ids)
    at = table.column_names.index("surgery:yes")
    table = table.set_column(at, "surgery:yes", table["surgery:yes"].cast(pa.bool_()))
    pa.csv.write_csv(table.select(table.column_names[::-1]), tmp_path / "other.csv")
    assert np.array_equal(load_patients(clinic, tmp_path / "other.csv").features[:], patients.features[:])


def test_notes_travel_with_a_parquet_file(clinic: Schema, tmp_path: Path) -> None:
    patients = random_patients(clinic, 2, seed=6)
    path = tmp_path / "p.parquet"
    write_patient_table(
        path, clinic, patients.features[:], patients.labels, patients.patient_ids, {"note": "synthetic"}
    )
    metadata = pq.read_schema(path).metadata
    assert metadata[b"note"] == b"synthetic"
    assert metadata[b"synclave.schema_digest"] == clinic.digest.encode()
