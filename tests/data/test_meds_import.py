"""import-meds: a hospital's MEDS dataset becomes the tables of its schema, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.data.meds import dataset as reading
from synclave_shared.data.meds import event_table
from synclave_shared.data.meds.importing import ImportReport, import_meds
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import load_patients, read_patients
from synclave_shared.errors import ConfigurationError, DataError, SchemaError

from .ward import (
    HELD_OUT,
    POTASSIUM,
    RETURNED,
    SPLITS,
    TRAIN,
    TYPES,
    event,
    schema_text,
    write_events,
    write_labels,
    write_splits,
    write_ward,
    write_ward_schema,
)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return Schema.load(write_ward_schema(tmp_path_factory.mktemp("schema")))


@pytest.fixture(scope="module")
def ward_schema(schema: Schema) -> Callable[[], Schema]:
    """The same for hypothesis, which would print all of it."""
    return lambda: schema


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    write_labels(tmp_path / "returned.parquet")
    return write_ward(tmp_path / "ward")


def run(ward: Path, schema: Schema, out: str = "tables", **options: Any) -> ImportReport:
    options = {"labels": ward.parent / "returned.parquet", **options}
    return import_meds(ward, schema, ward.parent / out, **options)


def ones(schema: Schema, folder: Path) -> dict[str, tuple[set[str], int]]:
    """Patient -> names of its columns that are 1, and label."""
    patients = load_patients(schema, folder)
    return {
        patient: ({name for name, value in zip(schema.columns, row, strict=True) if value}, label)
        for patient, row, label in zip(
            patients.patient_ids, patients.features[:], patients.labels.tolist(), strict=True
        )
    }


def without_labels(text: str) -> str:
    """The schema of the page with the subjects' deaths as label."""
    text = text.replace('[[table]]\nname = "labels"\npatient = "subject_id"\n', "")
    return text.replace('table = "labels"\ncolumn = "boolean_value"', 'table = "subjects"\ncolumn = "died"')


def test_what_a_patient_becomes(ward: Path, schema: Schema) -> None:
    run(ward, schema, split="train")
    assert ones(schema, ward.parent / "tables") == {
        # 5.1 in 32 bits is below 5.1 in 64 bits; it belongs to the upper bin all the same.
        "11": ({"age:65..79", "gender:F", "diagnosis:49", "diagnosis:108", "potassium:[5.1,9]"}, 1),
        # The label is about a time before the death. The diagnosis xyz is no ICD code.
        "12": ({"age:18..39", "gender:M", "diagnosis:other", "potassium:[1.5,3.5)"}, 0),
        # In the split and labelled, but without a single event.
        "14": ({"age:missing", "gender:missing", "potassium:missing"}, 0),
    }


def test_every_event_is_accounted_for(ward: Path, schema: Schema) -> None:
    for split in (None, "train", "held_out"):
        report = run(ward, schema, out=f"tables-{split}", split=split)
        left_out = report.left_out
        by_event = sum(left_out.get(reason, 0) for reason in ("their-events", "after-prediction", "not-read"))
        assert report.rows["events"] + report.births_and_deaths + by_event == report.events == 18
        assert sum(report.unread.values()) == left_out.get("not-read", 0)
        assert report.rows["labels"] + left_out["no-subject"] == len(RETURNED)
    assert report.unread == {}
    assert report.left_out == {"other-split": 4, "their-events": 15, "no-subject": 4}


def test_without_labels_everybody_is_a_patient(ward: Path, tmp_path: Path) -> None:
    schema = Schema.load(write_ward_schema(tmp_path / "other", without_labels(schema_text())))
    report = run(ward, schema, labels=None)
    patients = ones(schema, tmp_path / "tables")
    assert {patient: label for patient, (_, label) in patients.items()} == {
        "11": 0,
        "12": 1,
        "13": 0,
        "14": 0,
        "21": 0,
    }
    assert "diagnosis:2" in patients["11"][0]  # the later stay
    assert report.left_out == {"not-read": 2}


def test_with_a_label_among_the_events_who_has_none_is_counted(ward: Path, tmp_path: Path) -> None:
    text = without_labels(schema_text())
    text = text.replace(
        'table = "subjects"\ncolumn = "died"', 'table = "events"\ncode = "ADMISSION//*"\ncolumn = "code"'
    )
    text = text.replace('"false" = "no", "true" = "yes"', '"ELECTIVE" = "no", "URGENT" = "yes"')
    text = text.replace('combine = "any"\nmissing = "fault"', 'combine = "any"\nmissing = "leave-out"')
    schema = Schema.load(write_ward_schema(tmp_path / "other", text))
    report = run(ward, schema, labels=None)
    assert report.left_out["no-event"] == 1  # 14
    dataset, check = read_patients(schema, tmp_path / "tables")
    assert dataset is not None, check.faults
    assert dataset.patient_ids == ["11", "13"]
    assert dataset.labels.tolist() == [1, 0]


def test_the_first_label_ends_the_record_earlier(ward: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "two.parquet", [(11, "2020-12-01", False), (11, "2020-06-02", True)])
    text = schema_text().replace(
        'name = "labels"\n', 'name = "labels"\norder = "prediction_time"\norder_form = "text"\n'
    )
    found = {}
    for combine in ("first", "last", "any"):
        some = text.replace('combine = "any"', f'combine = "{combine}"', 1)
        schema = Schema.load(write_ward_schema(tmp_path / combine, some))
        run(ward, schema, out=f"tables-{combine}", labels=labels)
        columns, label = ones(schema, tmp_path / f"tables-{combine}")["11"]
        found[combine] = (label, {name for name in columns if name.startswith("diagnosis")})
    assert found == {
        "first": (1, set()),
        "last": (0, {"diagnosis:2", "diagnosis:49", "diagnosis:108"}),
        "any": (1, {"diagnosis:2", "diagnosis:49", "diagnosis:108"}),
    }


def test_small_pieces_and_large_pieces_give_the_same_files(
    ward: Path, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(ward, schema, out="large")
    for rows in (1, 2, 5):
        monkeypatch.setattr(reading, "BATCH_ROWS", rows)
        monkeypatch.setattr(event_table, "ROW_GROUP_ROWS", 4)
        run(ward, schema, out=f"small-{rows}")
        for name in ("events", "subjects", "labels"):
            one, other = (pq.read_table(ward.parent / out / f"{name}.parquet") for out in ("large", f"small-{rows}"))
            assert one.equals(other)


def test_the_same_import_gives_the_same_bytes(ward: Path, schema: Schema) -> None:
    run(ward, schema, out="one")
    run(ward, schema, out="two")
    for name in ("events", "subjects", "labels"):
        one, two = ((ward.parent / out / f"{name}.parquet").read_bytes() for out in ("one", "two"))
        assert one == two


@settings(max_examples=60, deadline=None)
@given(records=st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=6), rows=st.integers(1, 7))
def test_records_in_order_are_read_and_numbered(
    records: list[list[int]], rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("meds")
    days = [(number, sorted(days)) for number, days in enumerate(records) if days]
    # Day 0 stands for an event without time, which may stand anywhere.
    events = [event(who, f"2020-01-0{day}" if day else None, "x") for who, some in days for day in some]
    write_events(folder / "data" / "0.parquet", events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BATCH_ROWS", rows)
        batches = list(reading.MedsDataset.open(folder).batches([]))
    numbers = [number for batch in batches for number in batch.numbers.tolist()]
    assert numbers == [number for _, some in days for number in range(1, len(some) + 1)]


DAYS = st.one_of(st.none(), st.integers(1, 5))
RECORDS = st.lists(
    st.lists(st.tuples(DAYS, st.sampled_from(["GENDER//F", POTASSIUM, "OTHER", "MEDS_DEATH"])), max_size=5),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(
    records=RECORDS,
    split_of=st.dictionaries(st.integers(0, 5), st.sampled_from(["a", "b"]), min_size=1),
    until=st.dictionaries(st.integers(0, 5), st.integers(1, 5), min_size=1),
    pick=st.booleans(),
    rows=st.integers(1, 4),
)
def test_the_import_agrees_with_subject_by_subject(
    records: list[list[tuple[int | None, str]]],
    split_of: dict[int, str],
    until: dict[int, int],
    pick: bool,
    rows: int,
    ward_schema: Callable[[], Schema],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    schema = ward_schema()
    folder = tmp_path_factory.mktemp("meds")
    split = sorted(split_of.values())[0] if pick else None
    for who, record in enumerate(records):
        record.sort(key=lambda entry: entry[0] or 0)
        events = [event(who, day and f"2020-01-0{day}", code, 4.0) for day, code in record]
        write_events(folder / "meds" / "data" / f"{who}.parquet", events)
    write_splits(folder / "meds", list(split_of.items()))
    labels = [(who, f"2020-01-0{day}", True) for who, day in until.items()]

    subjects = {who for who, record in enumerate(records) if record} | set(split_of)
    chosen = {who for who in subjects & set(until) if split in (None, split_of.get(who))}
    kept = [
        (who, number, code)
        for who, record in enumerate(records)
        for number, (day, code) in enumerate(record, start=1)
        if who in chosen and (day or 0) <= until[who] and code in ("GENDER//F", POTASSIUM)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BATCH_ROWS", rows)
        options = {"split": split, "labels": write_labels(folder / "labels.parquet", labels)}
        if not chosen:
            with pytest.raises(DataError, match="at least one patient"):
                import_meds(folder / "meds", schema, folder / "tables", **options)
            return
        import_meds(folder / "meds", schema, folder / "tables", **options)
    events_table, labels_table = (pq.read_table(folder / "tables" / f"{name}.parquet") for name in ("events", "labels"))
    columns = (events_table[name].to_pylist() for name in ("subject_id", "event", "code"))
    assert list(zip(*columns, strict=True)) == kept
    assert sorted(labels_table["subject_id"].to_pylist()) == sorted(chosen)
    assert set(load_patients(schema, folder / "tables").patient_ids) == {str(who) for who in chosen}


def test_numbers_keep_what_they_say(tmp_path: Path) -> None:
    types = {**TYPES, "numeric_value": pa.float32()}
    numbers = [0.1, 5.1, -3.0e7, 16777217.0, float("inf"), float("nan"), None]
    write_events(tmp_path / "data" / "0.parquet", [event(1, None, "x", number) for number in numbers], types)
    (batch,) = reading.MedsDataset.open(tmp_path).batches(["numeric_value"])
    assert repr(batch.table["numeric_value"].to_pylist()) == "[0.1, 5.1, -30000000.0, 16777216.0, inf, nan, None]"


def test_not_a_number_is_a_fault_of_the_check_and_no_missing_value(ward: Path, schema: Schema) -> None:
    write_events(
        ward / "data" / "train" / "0.parquet", [event(11, None, "GENDER//F"), event(11, None, POTASSIUM, float("nan"))]
    )
    run(ward, schema, split="train")
    _, report = read_patients(schema, ward.parent / "tables")
    assert [(fault.code, fault.row, fault.column) for fault in report.faults] == [("not-a-number", 2, "numeric_value")]


@pytest.mark.parametrize("code", ["ICD9CM//ü;'\"\n€", "ICD9CM//*", "ICD9CM////", "ICD9CM//" + "x" * 5000, "ICD9CM//🩺"])
def test_unusual_codes_stay_whole(ward: Path, schema: Schema, code: str) -> None:
    write_events(ward / "data" / "train" / "0.parquet", [event(11, None, code)])
    run(ward, schema, split="train")
    assert pq.read_table(ward.parent / "tables" / "events.parquet")["code"].to_pylist() == [code]
    assert "diagnosis:other" in ones(schema, ward.parent / "tables")["11"][0]


@pytest.mark.parametrize(
    "types",
    [
        {"code": pa.large_string(), "text_value": pa.string(), "numeric_value": pa.float64()},
        {"code": pa.dictionary(pa.int32(), pa.string()), "time": pa.timestamp("ns")},
        {"time": pa.timestamp("ms")},
    ],
)
def test_other_programs_may_store_it_otherwise(ward: Path, schema: Schema, types: dict[str, pa.DataType]) -> None:
    run(ward, schema, out="one")
    write_events(ward / "data" / "train" / "0.parquet", TRAIN, {**TYPES, **types})
    run(ward, schema, out="two")
    one, two = (pq.read_table(ward.parent / out / "events.parquet") for out in ("one", "two"))
    assert one.equals(two)


def test_columns_that_may_be_absent(ward: Path, schema: Schema) -> None:
    few = {name: kind for name, kind in TYPES.items() if name not in ("numeric_value", "text_value")}
    write_events(ward / "data" / "held_out" / "0.parquet", HELD_OUT, few)
    assert run(ward, schema).rows["events"] == 10


def test_a_further_column_is_read_if_the_schema_names_it(ward: Path, tmp_path: Path) -> None:
    text = schema_text().replace('order = "event"', 'order = "hadm_id"')
    schema = Schema.load(write_ward_schema(tmp_path / "other", text))
    with pytest.raises(DataError, match="one column hadm_id"):
        run(ward, schema)
    types = {**TYPES, "hadm_id": pa.int64()}
    events = [{**row, "hadm_id": number} for number, row in enumerate([*TRAIN, *HELD_OUT])]
    write_events(ward / "data" / "train" / "0.parquet", events[: len(TRAIN)], types)
    write_events(ward / "data" / "held_out" / "0.parquet", events[len(TRAIN) :], {**types, "hadm_id": pa.string()})
    with pytest.raises(DataError, match="column hadm_id of one type in all files"):
        run(ward, schema)
    write_events(ward / "data" / "held_out" / "0.parquet", events[len(TRAIN) :], types)
    run(ward, schema)
    assert "hadm_id" in pq.read_schema(tmp_path / "tables" / "events.parquet").names


def replace_train(**types: pa.DataType) -> Callable[[Path], None]:
    return lambda ward: write_events(ward / "data" / "train" / "0.parquet", TRAIN, {**TYPES, **types})


def rewrite(*events: Any) -> Callable[[Path], None]:
    return lambda ward: write_events(ward / "data" / "train" / "0.parquet", events)


def drop(name: str) -> Callable[[Path], None]:
    kept = {column: kind for column, kind in TYPES.items() if column != name}
    return lambda ward: write_events(ward / "data" / "train" / "0.parquet", TRAIN, kept)


def damage(ward: Path) -> None:
    path = ward / "data" / "train" / "0.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def old_form(ward: Path) -> None:
    pq.write_table(pa.table({"patient_id": [1]}), ward / "data" / "train" / "0.parquet")


def nested(ward: Path) -> None:
    column = pa.array([["x"]] * len(TRAIN))
    table = pq.read_table(ward / "data" / "train" / "0.parquet")
    pq.write_table(table.set_column(2, "code", column), ward / "data" / "train" / "0.parquet")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda ward: (ward / "data").rename(ward / "elsewhere"), r"no such file", id="no data"),
        pytest.param(lambda ward: ward.rename(ward.parent / "elsewhere"), "no folder", id="no dataset"),
        pytest.param(damage, r"Parquet file at .*train/0\.parquet", id="cut off"),
        pytest.param(drop("code"), r"one column code in .*train/0\.parquet", id="no code column"),
        pytest.param(drop("time"), "one column time", id="no time column"),
        pytest.param(old_form, "MEDS 0.3 or newer", id="an older form"),
        pytest.param(replace_train(subject_id=pa.string()), "subject_id of type int64 .* found string", id="text ids"),
        pytest.param(replace_train(subject_id=pa.int32()), "found int32", id="short ids"),
        pytest.param(replace_train(time=pa.timestamp("us", tz="UTC")), "found timestamp.us, tz=UTC.", id="time zone"),
        pytest.param(replace_train(numeric_value=pa.string()), "numeric_value of type float", id="numbers as text"),
        pytest.param(nested, "code of type string .* found list", id="nested codes"),
        pytest.param(rewrite(event(11, None, "a"), event(11, None, "")), r"a code in every row .*row 2", id="no code"),
        pytest.param(
            rewrite(event(11, None, "a"), {**event(11, None, "a"), "code": None}), r"a code in .*row 2", id="null code"
        ),
        pytest.param(rewrite({**TRAIN[0], "subject_id": None}), r"a subject_id in .*row 1", id="null subject"),
        pytest.param(rewrite(TRAIN[0], TRAIN[7], TRAIN[0]), r"row 3.*subject 11 again", id="a record in two pieces"),
        pytest.param(rewrite(HELD_OUT[0]), r"train/0\.parquet, row 1.*subject 21 again", id="a record in two files"),
        pytest.param(
            rewrite(event(11, "2021-01-01", "a"), event(11, None, "b"), event(11, "2020-01-01", "c")),
            r"order of time .*row 3",
            id="time runs backwards",
        ),
        pytest.param(
            lambda ward: write_splits(ward, [*SPLITS.items(), (11, "tuning")]),
            r"row 6.*subject 11 again",
            id="two splits",
        ),
        pytest.param(lambda ward: write_splits(ward, [(11, None)]), r"a split in every row .*row 1", id="null split"),
        pytest.param(
            lambda ward: (ward / "metadata" / "dataset.json").write_text("[1]"), "a JSON object", id="bad dataset.json"
        ),
        pytest.param(lambda ward: (ward.parent / "returned.parquet").unlink(), "returned.parquet", id="no label file"),
        pytest.param(
            lambda ward: pq.write_table(pa.table({"subject_id": [11]}), ward.parent / "returned.parquet"),
            "one column prediction_time",
            id="labels without time",
        ),
        pytest.param(
            lambda ward: write_labels(ward.parent / "returned.parquet", []), "at least one label", id="no labels"
        ),
        pytest.param(
            lambda ward: write_labels(ward.parent / "returned.parquet", RETURNED[-1:]),
            "at least one patient .* found none: 5 subjects without a label",
            id="nobody",
        ),
    ],
)
@pytest.mark.parametrize("rows", [1, 1 << 17])
def test_what_is_not_meds_is_named_and_nothing_is_written(
    ward: Path, schema: Schema, spoil: Callable[[Path], Any], message: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH_ROWS", rows)
    spoil(ward)
    with pytest.raises(DataError, match=message):
        run(ward, schema)
    assert not [entry.name for entry in ward.parent.iterdir() if "tables" in entry.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tuning"}, "held_out, train; found tuning"),
        ({"labels": None}, "expected a label file"),
    ],
)
def test_wrong_options(ward: Path, schema: Schema, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(ward, schema, **options)
    assert not (ward.parent / "tables").exists()


def test_a_split_without_splits(ward: Path, schema: Schema) -> None:
    (ward / "metadata" / "subject_splits.parquet").unlink()
    with pytest.raises(ConfigurationError, match="there is none"):
        run(ward, schema, split="train")
    assert run(ward, schema).rows["labels"] == 3  # 14 had no event and is known nowhere else


def test_nothing_is_overwritten_and_a_crash_leaves_no_folder(
    ward: Path, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ward.parent / "tables").mkdir()
    with pytest.raises(ConfigurationError, match="does not exist yet"):
        run(ward, schema)
    assert not list((ward.parent / "tables").iterdir())
    # What a killed process leaves does not stand in the way, and does not stay.
    left = ward.parent / ".again.unfinished"
    left.mkdir()
    (left / "events.parquet").write_bytes(b"half")
    run(ward, schema, out="again")
    assert sorted(file.name for file in (ward.parent / "again").iterdir()) == [
        "events.parquet",
        "labels.parquet",
        "subjects.parquet",
    ]
    assert not left.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "events"\npatient = "subject_id"', 'name = "events"\npatient = "person"', 'patient = "subject_id"'),
        ("last_age", "shoe_size", "of subjects the columns .* found shoe_size"),
        ("boolean_value", "value", "of labels the columns .* found value"),
    ],
)
def test_a_schema_that_does_not_read_meds(ward: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    schema = Schema.load(write_ward_schema(tmp_path / "other", schema_text().replace(old, new)))
    with pytest.raises(SchemaError, match=message):
        run(ward, schema)


def test_tables_of_other_names_are_refused(ward: Path, clinic: Schema) -> None:
    with pytest.raises(SchemaError, match="found a table stays"):
        run(ward, clinic)


def test_labels_that_no_table_reads_are_refused(ward: Path, tmp_path: Path) -> None:
    schema = Schema.load(write_ward_schema(tmp_path / "other", without_labels(schema_text())))
    with pytest.raises(ConfigurationError, match="no label file"):
        run(ward, schema)
