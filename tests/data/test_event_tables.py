"""Tables of events: a field reads the rows about its code, and nothing is dropped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.data.fields import rest_of
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import read_patients

FIELDS: list[dict[str, Any]] = [
    {
        "name": "drug",
        "kind": "codes",
        "code": "DRUG//*",
        "columns": ["what"],
        "vocabulary": [{"code": "a"}, {"code": "b//c"}],
        "outside": "other",
        "missing": "own-category",
    },
    {
        "name": "sex",
        "kind": "category",
        "code": "SEX//*",
        "column": "what",
        "vocabulary": [{"code": "f"}, {"code": "m"}],
        "combine": "last",
        "outside": "fault",
        "missing": "own-category",
    },
    {
        "name": "sodium",
        "kind": "number",
        "code": "SODIUM",
        "column": "value",
        "unit": "",
        "minimum": 0,
        "maximum": 9,
        "edges": [3, 6],
        "integer": True,
        "combine": "last",
        "outside": "clip",
        "missing": "own-category",
    },
    {
        "name": "smoker",
        "kind": "flag",
        "code": "SMOKER//*",
        "column": "what",
        "true": ["yes"],
        "false": ["no"],
        "combine": "any",
        "missing": "none",
    },
    {
        "name": "everything",
        "kind": "number",
        "column": "row",
        "unit": "",
        "minimum": 0,
        "maximum": 99,
        "edges": [3],
        "integer": True,
        "combine": "count",
        "outside": "clip",
        "missing": "fault",
    },
]


def make_schema(fields: list[dict[str, Any]] = FIELDS, **label: Any) -> Schema:
    return Schema.model_validate(
        {
            "name": "events",
            "modality": "codes",
            "tables": [{"name": "events", "patient": "who", "order": "row", "code": "what"}],
            "fields": [{"table": "events", **field} for field in fields],
            "label": {
                "name": "died",
                "values": ["no", "yes"],
                "table": "events",
                "code": "DIED//*",
                "column": "what",
                "combine": "any",
                "missing": "fault",
                **label,
            },
        }
    )


def write(folder: Path, rows: list[tuple[str | None, str | None, int | None]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "who": pa.array([who for who, _, _ in rows], pa.string()),
        "what": pa.array([what for _, what, _ in rows], pa.string()),
        "value": pa.array([value for _, _, value in rows], pa.int64()),
        "row": pa.array(range(len(rows)), pa.int64()),
    }
    pq.write_table(pa.table(columns), folder / "events.parquet")
    return folder


CODES = ("DRUG//a", "DRUG//b//c", "DRUG//zz", "SEX//f", "SEX//m", "SODIUM", "SODIUM//x", "SMOKER//yes", "SMOKER//no")


@settings(deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from("pqr"), st.sampled_from(CODES), st.integers(-2, 12)), min_size=1, max_size=30
    )
)
def test_the_encoder_agrees_with_patient_by_patient(
    events: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    schema = make_schema()
    rows: list[tuple[str | None, str | None, int | None]] = [*events, *((who, "DIED//no", None) for who in "pqr")]
    dataset, report = read_patients(schema, write(tmp_path_factory.mktemp("events"), rows))
    assert dataset is not None, report.faults
    for patient, features in zip("pqr", dataset.features[:], strict=True):
        mine = [(code, value) for who, code, value in events if who == patient]
        codes = [code for code, _ in mine]
        drugs = [code for code in codes if code.startswith("DRUG//")]
        sexes = [code for code in codes if code.startswith("SEX//")]
        sodium = [value for code, value in mine if code == "SODIUM"]
        smoker = "SMOKER//yes" in codes
        expected = {
            "drug:a": "DRUG//a" in codes,
            "drug:b//c": "DRUG//b//c" in codes,
            "drug:other": "DRUG//zz" in codes,
            "drug:missing": not drugs,
            "sex:f": sexes[-1:] == ["SEX//f"],
            "sex:m": sexes[-1:] == ["SEX//m"],
            "sex:missing": not sexes,
            "sodium:0..2": bool(sodium) and sodium[-1] < 3,
            "sodium:3..5": bool(sodium) and 3 <= sodium[-1] < 6,
            "sodium:6..9": bool(sodium) and sodium[-1] >= 6,
            "sodium:missing": not sodium,
            "smoker:yes": smoker,
            "everything:0..2": len(mine) + 1 < 3,
            "everything:3..99": len(mine) + 1 >= 3,
        }
        assert dict(zip(schema.columns, features.astype(bool).tolist(), strict=True)) == expected
    assert dataset.labels.tolist() == [0, 0, 0]


@settings(deadline=None)
@given(st.text(max_size=8), st.text(max_size=8))
def test_a_star_stands_for_the_rest_and_nothing_else_is_special(head: str, rest: str) -> None:
    assert rest_of(head + rest, f"{head}*") == rest
    if not head.endswith("*"):
        assert rest_of(head, head) == head
        assert (rest_of(head + rest, head) is None) == bool(rest)


def test_events_that_no_field_reads_are_counted(tmp_path: Path) -> None:
    schema = make_schema(FIELDS[:2])
    rows: list[Any] = [("p", "DIED//no", None), ("p", "SEX//f", None), ("p", "SODIUM", 1), ("p", "x", None)]
    _, report = read_patients(schema, write(tmp_path, rows))
    assert [(notice.code, notice.count) for notice in report.notices] == [("not-read", 2)]


def test_faults_name_the_row_of_the_file(tmp_path: Path) -> None:
    rows: list[Any] = [("p", "DIED//no", None), ("p", "SODIUM", 1), ("p", "SEX//x", None), ("p", None, 1)]
    _, report = read_patients(make_schema(FIELDS[:4]), write(tmp_path, rows))
    assert {(fault.code, fault.row, fault.found) for fault in report.faults} == {
        ("outside-vocabulary", 3, "'x'"),
        ("missing-value", 4, "nothing"),
    }


def test_a_patient_without_a_row_about_the_label(tmp_path: Path) -> None:
    folder = write(tmp_path, [("p", "DIED//yes", None), ("q", "SEX//f", None)])
    dataset, report = read_patients(make_schema(), folder)
    assert dataset is None
    assert [(fault.code, fault.column) for fault in report.faults] == [("missing-value", "what")]
    dataset, report = read_patients(make_schema(missing="leave-out"), folder)
    assert dataset is not None
    assert dataset.patient_ids == ["p"]
    assert np.array_equal(dataset.labels, [1])
    assert ("left-out", 1) in [(notice.code, notice.count) for notice in report.notices]


def test_a_missing_code_column_is_one_fault(tmp_path: Path) -> None:
    pq.write_table(pa.table({"who": ["p"], "row": [1], "value": [1]}), tmp_path / "events.parquet")
    _, report = read_patients(make_schema(), tmp_path)
    assert [(fault.code, fault.column) for fault in report.faults] == [("missing-column", "what")]


def test_a_pattern_needs_a_table_of_events() -> None:
    document = make_schema().model_dump(mode="json")
    document["tables"][0]["code"] = None
    with pytest.raises(ValueError, match="code needs a table with a code column"):
        Schema.model_validate(document)


def test_other_and_missing_are_codes_where_they_are_no_columns_of_their_own() -> None:
    field = {**FIELDS[0], "vocabulary": [{"code": "a"}, {"code": "other"}, {"code": "missing"}]}
    with pytest.raises(ValueError, match="columns of their own"):
        make_schema([field])
    free = make_schema([{**field, "outside": "fault", "missing": "none"}])
    assert free.columns == ("drug:a", "drug:other", "drug:missing")
