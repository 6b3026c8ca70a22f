"""Hostile and broken data: each fault is named by file, row and column, all in one pass, and none is passed over."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.data.faults import FAULT_CODES, LISTED_PER_PLACE, NOTICE_CODES, CheckReport
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import check_folder, load_patients
from synclave_shared.errors import DataError

from .clinic import EVENTS, SCHEMA_TOML, STAYS, write_schema, write_tables


def places(report: CheckReport) -> list[tuple[str, int | None, str | None, str]]:
    return [(fault.file, fault.row, fault.column, fault.code) for fault in report.faults]


def stays_with(column: str, values: list[Any]) -> dict[str, Any]:
    return {**STAYS, column: values}


CELL_FAULTS = [
    # column, values, (row, code) of every fault
    ("person", ["p1", "p1", None, "p3"], [(3, "null-key")]),
    ("person", ["p1", "p1", "", "p3"], [(3, "null-key")]),
    ("person", ["p1", "p1", "?", "p3"], [(3, "null-key")]),
    ("person", [1.0, 1.0, math.nan, 3.0], [(3, "not-a-number")]),
    ("number", [1, 1, 1, 1], [(2, "bad-order")]),
    ("number", [2, None, 1, 1], [(2, "bad-order")]),
    ("number", ["2", "one", "1", "1"], [(2, "bad-order")]),
    ("stay", [11, 12, 12, 31], [(2, "duplicate-key"), (3, "duplicate-key")]),
    ("stay", [11, 12, 21, None], [(4, "null-key")]),
    ("status", ["home", "DEAD", "dead", "home "], [(2, "outside-vocabulary"), (4, "outside-vocabulary")]),
    ("sex", ["m", "f", "x", "m"], [(3, "outside-vocabulary")]),
    ("surgery", ["N", "Y", "y", "Y"], [(3, "outside-vocabulary")]),
    ("days", ["1", "2.5", "1e999", "many"], [(2, "not-a-number"), (3, "not-a-number"), (4, "not-a-number")]),
    ("days", [1.0, math.inf, 2.0, 3.0], [(2, "not-a-number")]),
    ("days", ["1", "1_000", " 2", "٣"], [(2, "not-a-number"), (3, "not-a-number"), (4, "not-a-number")]),
    ("potassium", ["1.5", "1.4999", "9", "9.0001"], [(2, "out-of-bounds"), (4, "out-of-bounds")]),
    ("potassium", [1e308, 4.0, 4.0, -1e308], [(1, "out-of-bounds"), (4, "out-of-bounds")]),
    ("potassium", [math.nan, 4.0, 4.0, 4.0], [(1, "not-a-number")]),
    ("sex", [["m"], ["f"], [], []], [(None, "wrong-type")]),
    ("sex", [{"a": 1}, None, None, None], [(None, "wrong-type")]),
    ("sex", [b"m", b"f", b"\xff\xfe", b"m"], [(3, "wrong-encoding")]),
]


@pytest.mark.parametrize(("column", "values", "expected"), CELL_FAULTS)
def test_a_wrong_cell_is_named_by_row_and_column(
    clinic: Schema, tmp_path: Path, column: str, values: list[Any], expected: list[tuple[int | None, str]]
) -> None:
    report = check_folder(clinic, write_tables(tmp_path / "s", stays_with(column, values)))
    own = [place for place in places(report) if place[0] == "stays.parquet"]
    assert own == [("stays.parquet", row, column, code) for row, code in expected]
    assert not report.ok
    with pytest.raises(DataError, match="faults"):
        load_patients(clinic, tmp_path / "s")


def test_a_missing_label_is_a_fault_where_the_schema_asks_for_one(tmp_path: Path) -> None:
    schema = Schema.load(write_schema(tmp_path / "schema", SCHEMA_TOML.replace('"leave-out"', '"fault"')))
    stays = stays_with("status", ["home", None, "?", "dead"])
    report = check_folder(schema, write_tables(tmp_path / "s", stays))
    assert places(report) == [("stays.parquet", row, "status", "missing-value") for row in (2, 3)]
    without = {name: values for name, values in STAYS.items() if name != "status"}
    report = check_folder(schema, write_tables(tmp_path / "s", without))
    assert places(report) == [("stays.parquet", None, "status", "missing-column")]


def test_no_labelled_patient_is_a_fault(clinic: Schema, tmp_path: Path) -> None:
    report = check_folder(clinic, write_tables(tmp_path / "s", stays_with("status", [None, None, "", "?"])))
    assert places(report) == [("stays.parquet", None, "status", "no-patients")]


def test_a_folder_that_may_not_be_read_is_a_fault(
    clinic: Schema, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything, so a mode would not do
    assert [(fault.code, fault.found) for fault in check_folder(clinic, folder).faults] == [
        ("not-found", "Permission denied")
    ]


def test_strings_that_are_not_utf8_are_found_in_their_rows(clinic: Schema, tmp_path: Path) -> None:
    latin = pa.array([b"m", b"f", "é".encode("latin-1"), b"m"]).view(pa.binary()).cast(pa.binary())
    offsets_and_bytes = pa.StringArray.from_buffers(4, latin.buffers()[1], latin.buffers()[2])
    report = check_folder(clinic, write_tables(tmp_path / "s", stays_with("sex", offsets_and_bytes)))
    assert places(report) == [("stays.parquet", 3, "sex", "wrong-encoding")]


@pytest.mark.parametrize(
    ("column", "values", "row", "code"),
    [
        ("stay", [11, 12, 99, 21], 3, "unknown-key"),
        ("stay", [11, 12, None, 21], 3, "null-key"),
        ("procedure", ["lung|scope", "lung", None, None], 2, "outside-vocabulary"),
    ],
)
def test_a_joined_table_is_checked_too(
    clinic: Schema, tmp_path: Path, column: str, values: list[Any], row: int, code: str
) -> None:
    report = check_folder(clinic, write_tables(tmp_path / "s", events={**EVENTS, column: values}))
    assert places(report) == [("events.parquet", row, column, code)]


def test_a_patient_without_any_row_is_a_fault_where_a_value_is_needed(tmp_path: Path) -> None:
    pain = SCHEMA_TOML.index('name = "pain"')
    text = SCHEMA_TOML[:pain] + SCHEMA_TOML[pain:].replace('"own-category"', '"fault"', 1)
    schema = Schema.load(write_schema(tmp_path / "schema", text))
    report = check_folder(schema, write_tables(tmp_path / "s"))
    assert places(report) == [("events.parquet", None, "pain", "missing-value")]  # p3 has no events
    events = {**EVENTS, "pain": [9, 8, None, 3]}
    report = check_folder(schema, write_tables(tmp_path / "s", events=events))
    assert places(report) == [
        ("events.parquet", 3, "pain", "missing-value"),
        ("events.parquet", None, "pain", "missing-value"),
    ]
    assert report.fault_count == 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def change_a_value(path: Path) -> None:
    data = path.read_bytes()
    assert b"skin|graft" in data
    path.write_bytes(data.replace(b"skin|graft", b"lung|scope", 1))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("person,number\n1,2\n", encoding="utf-8")


@pytest.mark.parametrize("damage", [truncate, change_a_value, empty, text])
def test_a_damaged_parquet_file_is_one_fault(clinic: Schema, folder: Path, damage: Callable[[Path], None]) -> None:
    pq.write_table(pa.table(EVENTS), folder / "events.parquet", write_page_checksum=True, compression="none")
    damage(folder / "events.parquet")
    report = check_folder(clinic, folder)
    assert places(report) == [("events.parquet", None, None, "unreadable-file")]


def test_files_columns_and_folders_that_are_not_there(clinic: Schema, folder: Path, tmp_path: Path) -> None:
    assert [fault.code for fault in check_folder(clinic, tmp_path / "nowhere").faults] == ["not-found"]
    (tmp_path / "empty").mkdir()
    codes = [fault.code for fault in check_folder(clinic, tmp_path / "empty").faults]
    assert codes == ["missing-file", "missing-file", "empty-folder"]
    write_tables(folder, suffix=".csv")
    assert [fault.code for fault in check_folder(clinic, folder).faults][:2] == ["two-files", "two-files"]
    for name in ("stays", "events"):
        (folder / f"{name}.csv").unlink()
    pq.write_table(pa.table(EVENTS).drop_columns(["procedure"]), folder / "events.parquet")
    assert places(check_folder(clinic, folder)) == [("events.parquet", None, "procedure", "missing-column")]
    twice = pa.Table.from_arrays([*pa.table(EVENTS).columns, pa.array([1, 2, 3, 4])], [*EVENTS, "code_1"])
    pq.write_table(twice, folder / "events.parquet")
    assert places(check_folder(clinic, folder)) == [("events.parquet", None, "code_1", "duplicate-column")]
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in STAYS}), folder / "stays.parquet")
    assert ("stays.parquet", None, None, "no-patients") in places(check_folder(clinic, folder))
    assert "not-found" in [fault.code for fault in check_folder(clinic, folder / "stays.parquet").faults]


def test_everything_is_reported_in_one_pass(clinic: Schema, tmp_path: Path) -> None:
    stays = {
        **STAYS,
        "sex": ["m", "x", None, "m"],
        "potassium": ["a", "4", "4", "100"],
        "status": ["?!", "dead", "home", "home"],
    }
    del stays["person"]
    events = {**EVENTS, "procedure": ["none", None, None, None]}
    report = check_folder(clinic, write_tables(tmp_path / "s", stays, events))
    assert set(places(report)) == {
        ("stays.parquet", None, "person", "missing-column"),
        ("stays.parquet", 1, "status", "outside-vocabulary"),
        ("stays.parquet", 2, "sex", "outside-vocabulary"),
        ("stays.parquet", 1, "potassium", "not-a-number"),
        ("stays.parquet", 4, "potassium", "out-of-bounds"),
        ("events.parquet", 1, "procedure", "outside-vocabulary"),
    }


def test_many_faults_are_counted_exactly_and_listed_shortly(clinic: Schema, tmp_path: Path) -> None:
    count = 5000
    stays = {name: [values[0]] * count for name, values in STAYS.items()}
    stays.update(person=[f"p{i}" for i in range(count)], stay=list(range(count)), sex=["x" * 10_000] * count)
    folder = write_tables(tmp_path / "s", stays, {name: [] for name in EVENTS})
    report = check_folder(clinic, folder)
    assert report.fault_count == count
    assert report.fault_counts == {("stays.parquet", "sex", "outside-vocabulary"): count}
    assert [fault.row for fault in report.faults] == list(range(1, LISTED_PER_PLACE + 1))
    assert all(len(fault.found) < 200 for fault in report.faults)
    with pytest.raises(DataError, match=f"{count} faults") as caught:
        load_patients(clinic, folder)
    assert f"and {count - LISTED_PER_PLACE} more" in caught.value.found
    assert len(str(caught.value)) < 10_000


def test_csv_rows_keep_their_numbers_past_ragged_rows(clinic: Schema, folder: Path) -> None:
    (folder / "events.parquet").unlink()
    lines = [
        "stay,code_1,code_2,pain,procedure",
        "11,428,,1,",
        "12,428",
        '12,"428",,2,nonsense',
        "21,,,,,,",
        "21,\xe9,,3,",
        "31,,,4,what",
    ]
    (folder / "events.csv").write_bytes("\n".join(lines).encode("latin-1"))
    assert set(places(check_folder(clinic, folder))) == {
        ("events.csv", 2, None, "ragged-row"),
        ("events.csv", 3, "procedure", "outside-vocabulary"),
        ("events.csv", 4, None, "ragged-row"),
        ("events.csv", 5, "code_1", "wrong-encoding"),
        ("events.csv", 6, "procedure", "outside-vocabulary"),
    }


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe1\x002\x00", b'"stay,code_1\n1,2\n'])
def test_a_csv_file_without_a_header_is_one_fault(clinic: Schema, folder: Path, content: bytes) -> None:
    (folder / "events.parquet").unlink()
    (folder / "events.csv").write_bytes(content)
    assert places(check_folder(clinic, folder)) == [("events.csv", None, None, "unreadable-file")]


def test_a_byte_order_mark_is_no_part_of_the_first_name(clinic: Schema, folder: Path) -> None:
    (folder / "events.parquet").unlink()
    (folder / "events.csv").write_bytes(b"\xef\xbb\xbfstay,code_1,code_2,pain,procedure\n11,428,,3,\n")
    assert check_folder(clinic, folder).ok


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=400))
def test_arbitrary_bytes_end_in_faults_not_in_exceptions(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    schema = Schema.load(write_schema(folder / "schema"))
    write_tables(folder / "s")
    for suffix in (".csv", ".parquet"):
        (folder / "s" / "events.parquet").unlink(missing_ok=True)
        (folder / "s" / f"events{suffix}").write_bytes(content)
        assert not check_folder(schema, folder / "s").ok
        (folder / "s" / f"events{suffix}").unlink()


def test_files_nobody_named_are_mentioned(clinic: Schema, folder: Path) -> None:
    (folder / "extra.csv").write_text("a\n1\n", encoding="utf-8")
    report = check_folder(clinic, folder)
    assert report.ok
    assert [notice.file for notice in report.notices if notice.code == "file-not-used"] == ["extra.csv"]


def test_a_report_is_plain_json_and_uses_the_closed_vocabularies(clinic: Schema, tmp_path: Path) -> None:
    report = check_folder(clinic, write_tables(tmp_path / "s", stays_with("sex", ["x", "m", "m", "m"])))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is False
    assert plain["fault_count"] == 1
    assert plain["faults"][0]["row"] == 1
    assert {fault["code"] for fault in plain["faults"]} <= set(FAULT_CODES)
    assert {notice["code"] for notice in plain["notices"]} <= set(NOTICE_CODES)
