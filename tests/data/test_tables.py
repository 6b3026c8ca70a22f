"""Reading: the fast encoder against the slow truth, and rules that must not depend on how a site stores its rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.data.patients import PatientDataset, together
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.data.tables import check_folder, load_patients, read_patients

from .clinic import EVENTS, SCHEMA_TOML, STAYS, slow_truth, text_rows, write_schema, write_tables


def of(schema: Schema, dataset: PatientDataset, patient: str) -> set[str]:
    (row,) = dataset.features[np.array([dataset.patient_ids.index(patient)])]
    return {column for column, value in zip(schema.columns, row, strict=True) if value}


def agrees_with_slow_truth(schema: Schema, dataset: PatientDataset, tables: dict[str, pa.Table]) -> None:
    truth = slow_truth(schema, {name: text_rows(table) for name, table in tables.items()})
    assert dataset.patient_ids == list(truth)
    assert dataset.features[:].tolist() == [features for features, _ in truth.values()]
    assert [schema.label.values[label] for label in dataset.labels] == [label for _, label in truth.values()]


def test_every_rule_on_a_small_clinic(clinic: Schema, folder: Path) -> None:
    dataset = load_patients(clinic, folder)
    assert dataset.patient_ids == ["p1", "p2", "p3"]
    assert dataset.labels.tolist() == [1, 0, 0]
    assert of(clinic, dataset, "p1") == {
        "sex:f",  # the first stay by number, though second in the file
        "severity:severe",
        # surgery: the last stay says no
        "days:7..30",
        "potassium:[3.5,5.1)",
        "stay_count:2..3",
        "event_count:2..5",
        "pain:7..10",
        "diagnosis:sepsis",
        "diagnosis:heart failure",
        "diagnosis:other",
        "procedure:lung|scope",
        "procedure:skin|graft",
    }
    assert of(clinic, dataset, "p2") == {
        "sex:missing",
        "severity:other",
        "surgery:yes",
        "days:7..30",
        "potassium:[5.1,9]",
        "stay_count:1",
        "event_count:1",
        "pain:0..3",
        "diagnosis:missing",
        "procedure:lung|tube",
    }
    assert of(clinic, dataset, "p3") == {
        "sex:m",
        "severity:missing",
        "days:missing",
        "potassium:missing",
        "stay_count:1",
        "event_count:0",
        "pain:missing",
        "diagnosis:missing",
    }


def test_what_the_rules_did_is_counted(clinic: Schema, folder: Path) -> None:
    report = check_folder(clinic, folder)
    assert report.ok
    assert report.patients == 3
    assert report.rows == {"stays.parquet": 4, "events.parquet": 4}
    assert report.label_counts == {"no": 2, "yes": 1}
    counts = {(notice.column, notice.code): notice.count for notice in report.notices}
    assert counts["days", "clipped"] == 1
    assert counts["severity", "counted-as-other"] == 1
    assert counts["code_1", "counted-as-other"] == 1  # V58.0 is not in the roll-up
    assert counts["code_2", "counted-as-other"] == 1
    assert counts["code_1", "ignored"] == 1
    assert counts["code_2", "ignored"] == 1
    assert counts["potassium", "missing"] == 1


def test_csv_and_parquet_mean_the_same(clinic: Schema, folder: Path, tmp_path: Path) -> None:
    parquet = load_patients(clinic, folder)
    csv = load_patients(clinic, write_tables(tmp_path / "csv", suffix=".csv"))
    assert np.array_equal(parquet.features[:], csv.features[:])
    assert parquet.patient_ids == csv.patient_ids


def test_patients_without_any_label_are_left_out_and_counted(clinic: Schema, tmp_path: Path) -> None:
    stays = {**STAYS, "status": ["home", None, None, "dead"]}
    dataset, report = read_patients(clinic, write_tables(tmp_path / "s", stays))
    assert dataset is not None
    assert dataset.patient_ids == ["p1", "p3"]
    assert dataset.labels.tolist() == [0, 1]
    assert [notice.count for notice in report.notices if notice.code == "left-out"] == [1]


def test_many_rows_are_one_patient(clinic: Schema, tmp_path: Path) -> None:
    stays = {name: values[:1] * 50 for name, values in STAYS.items()}
    stays["number"] = stays["stay"] = list(range(50))
    dataset = load_patients(clinic, write_tables(tmp_path / "s", stays, {n: [] for n in EVENTS}))
    assert len(dataset) == 1
    assert "stay_count:4..9" in of(clinic, dataset, "p1")


def test_stored_types_do_not_change_the_meaning(clinic: Schema, folder: Path, tmp_path: Path) -> None:
    plain = load_patients(clinic, folder)
    stays = pa.table(STAYS)
    typed = stays.set_column(1, "number", stays["number"].cast(pa.float64()))
    typed = typed.set_column(2, "stay", stays["stay"].cast(pa.decimal128(25, 3)))
    typed = typed.set_column(3, "status", stays["status"].dictionary_encode())
    typed = typed.set_column(4, "sex", stays["sex"].cast(pa.large_string()))
    typed = typed.set_column(7, "days", stays["days"].cast(pa.float32()))
    write_tables(tmp_path / "typed")
    pq.write_table(typed, tmp_path / "typed" / "stays.parquet")
    again = load_patients(clinic, tmp_path / "typed")
    assert np.array_equal(plain.features[:], again.features[:])
    assert np.array_equal(plain.labels, again.labels)


def test_iso_dates_can_order_rows(tmp_path: Path) -> None:
    text = SCHEMA_TOML.replace('order = "number"', 'order = "number"\norder_form = "text"')
    schema = Schema.load(write_schema(tmp_path / "schema", text))
    dates = pa.array(["2021-05-02", "2020-12-31", "2020-01-01", "2020-01-01"])
    for column in (dates, dates.cast(pa.date32()), dates.cast(pa.timestamp("s"))):
        folder = write_tables(tmp_path / "s", {**STAYS, "number": column})
        assert "sex:f" in of(schema, load_patients(schema, folder), "p1")


maybe = st.none()
stay = st.fixed_dictionaries(
    {
        "person": st.sampled_from(["a", "b", "c", "d"]),
        "status": st.sampled_from(["home", "dead", "transfer"]) | maybe,
        "sex": st.sampled_from(["f", "m", "?", ""]) | maybe,
        "severity": st.sampled_from(["1", "2", "1.0", "x"]) | maybe,
        "surgery": st.sampled_from(["Y", "N"]) | maybe,
        "days": st.integers(-5, 40).map(str) | maybe,
        "potassium": st.sampled_from(["1.5", "3.4999", "3.5", "5.1", "9", "9.0", "> 9", "-1"]) | maybe,
        "events": st.lists(
            st.fixed_dictionaries(
                {
                    "code_1": st.sampled_from(["38", "038.9", "428; V58", "none", "Z1;;428.0", "x", "V58"]) | maybe,
                    "code_2": st.sampled_from(["428", "none", ";"]) | maybe,
                    "pain": st.integers(0, 10).map(str) | maybe,
                    "procedure": st.sampled_from(["lung|scope", "lung|tube|x|y", "skin|graft"]) | maybe,
                }
            ),
            max_size=2,
        ),
    }
)


def clinic_tables(stays: list[dict[str, Any]], numbers: list[int]) -> dict[str, pa.Table]:
    rows = [
        {**row, "number": number, "stay": f"s{at}"} for at, (row, number) in enumerate(zip(stays, numbers, strict=True))
    ]
    events = [{**event, "stay": row["stay"]} for row in rows for event in row["events"]]
    text = pa.string()
    return {
        "stays": pa.table(
            {name: pa.array([row[name] for row in rows], pa.int64() if name == "number" else text) for name in STAYS}
        ),
        "events": pa.table({name: pa.array([event[name] for event in events], text) for name in EVENTS}),
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data(), stays=st.lists(stay, min_size=1, max_size=12))
def test_fast_and_slow_encoders_agree_whatever_the_order_of_rows(
    data: st.DataObject, stays: list[dict[str, Any]]
) -> None:
    numbers = data.draw(st.permutations(range(len(stays))))
    tables = clinic_tables(stays, numbers)
    with tempfile.TemporaryDirectory() as name:
        schema = Schema.load(write_schema(Path(name)))
        for file, table in tables.items():
            shuffled = table.take(data.draw(st.permutations(range(table.num_rows)))) if table.num_rows else table
            pq.write_table(shuffled, Path(name) / f"{file}.parquet")
        dataset, report = read_patients(schema, Path(name))
    if dataset is None:
        assert [fault.code for fault in report.faults] == ["no-patients"]
        assert not slow_truth(schema, {file: text_rows(table) for file, table in tables.items()})
    else:
        agrees_with_slow_truth(schema, dataset, tables)


def test_the_diabetes_schema_agrees_with_the_slow_truth(diabetes: Schema, examples: Path, tmp_path: Path) -> None:
    table = pq.read_table(examples / "diabetes" / "test.parquet")
    busy = [patient["values"] for patient in table["patient_nbr"].value_counts().to_pylist() if patient["counts"] > 7]
    some = table.filter(
        pa.compute.is_in(table["patient_nbr"], pa.array(busy[:25] + table["patient_nbr"].to_pylist()[:75]))
    )
    pq.write_table(some, tmp_path / "encounters.parquet")
    dataset = load_patients(diabetes, tmp_path)
    assert len(dataset) >= 80
    agrees_with_slow_truth(diabetes, dataset, {"encounters": some})


def test_a_dataset_refuses_what_is_not_one_item_per_patient() -> None:
    features = SparseRows.of(np.zeros((2, 3), dtype=np.uint8))
    labels = np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match="twice"):
        PatientDataset(features=features, labels=labels, patient_ids=["a", "a"])
    with pytest.raises(ValueError, match="one entry per patient"):
        PatientDataset(features=features, labels=labels, patient_ids=["a"])
    with pytest.raises(ValueError, match="int64"):
        PatientDataset(features=features, labels=labels.astype(np.int32), patient_ids=["a", "b"])  # type: ignore[arg-type]


def test_sites_put_together_keep_their_order_and_share_nobody() -> None:
    def site(*ids: str) -> PatientDataset:
        features = np.full((len(ids), 2), len(ids) == 1, dtype=np.uint8)
        return PatientDataset(
            features=SparseRows.of(features), labels=np.arange(len(ids), dtype=np.int64), patient_ids=list(ids)
        )

    both = together([site("b", "a"), site("c")])
    assert both.patient_ids == ["b", "a", "c"]
    assert both.labels.tolist() == [0, 1, 0]
    assert both.features[:].tolist() == [[0, 0], [0, 0], [1, 1]]
    with pytest.raises(ValueError, match="twice"):
        together([site("a"), site("a")])
