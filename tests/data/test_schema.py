"""The schema: one meaning per digest, and a clear refusal of what cannot be meant."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.data.encode import bin_positions
from synclave_shared.data.fields import NumberField, normal_form
from synclave_shared.data.schema import Schema
from synclave_shared.errors import SchemaError

from .clinic import SCHEMA_TOML, write_schema


def test_columns_are_the_groups_in_order_without_gaps(clinic: Schema) -> None:
    assert [group.name for group in clinic.groups] == [field.name for field in clinic.fields]
    assert [group.start for group in clinic.groups] == [0, *(group.stop for group in clinic.groups[:-1])]
    assert clinic.groups[-1].stop == clinic.width == len(clinic.columns) == len(clinic.titles)
    assert clinic.groups[0].columns == ("sex:f", "sex:m", "sex:missing")
    assert clinic.groups[0].kind == "categorical"
    diagnosis = next(group for group in clinic.groups if group.name == "diagnosis")
    assert diagnosis.kind == "binary"
    assert diagnosis.columns[-2:] == ("diagnosis:other", "diagnosis:missing")
    assert clinic.titles[diagnosis.start] == "diagnosis: Septicaemia"


def test_json_carries_everything_and_gives_the_same_digest(clinic: Schema, tmp_path: Path) -> None:
    again = Schema.from_json_bytes(clinic.to_json_bytes())
    assert again == clinic
    assert again.digest == clinic.digest
    alone = tmp_path / "elsewhere.json"
    alone.write_bytes(clinic.to_json_bytes())
    assert Schema.load(alone).digest == clinic.digest


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("groups.csv", "sepsis,", "septic shock,"),
        ("groups.csv", "Septicaemia", "Blood poisoning"),
        ("rollup.csv", "0389,sepsis", "0389,heart failure"),
        ("schema.toml", "edges = [1, 3, 7]", "edges = [1, 3, 8]"),
        ("schema.toml", 'ignore = ["none", "Z.*"]', 'ignore = ["none"]'),
        ("schema.toml", 'missing = "leave-out"', 'missing = "fault"'),
    ],
)
def test_digest_covers_the_files_beside_the_schema(tmp_path: Path, file: str, old: str, new: str) -> None:
    path = write_schema(tmp_path)
    before = Schema.load(path).digest
    changed = (tmp_path / file).read_text(encoding="utf-8").replace(old, new, 1)
    (tmp_path / file).write_text(changed, encoding="utf-8")
    if file == "groups.csv" and old == "sepsis,":
        rollup = (tmp_path / "rollup.csv").read_text(encoding="utf-8").replace(",sepsis", ",septic shock")
        (tmp_path / "rollup.csv").write_text(rollup, encoding="utf-8")
    assert Schema.load(path).digest != before


def test_another_spelling_of_the_json_is_refused(clinic: Schema) -> None:
    with pytest.raises(SchemaError, match="another form"):
        Schema.from_json_bytes(clinic.to_json_bytes() + b"\n")
    with pytest.raises(SchemaError):
        Schema.from_json_bytes(b"{")


@pytest.mark.parametrize(
    ("old", "new", "tells"),
    [
        ('modality = "codes"', 'modality = "codes"\ncolour = "red"', "colour"),
        ('modality = "codes"', 'modality = "songs"', "modality"),
        ('name = "severity"', 'name = "sex"', "field name occurs twice"),
        ('name = "sex"', 'name = "died"', "taken"),
        ('name = "sex"', 'name = "patient_id"', "reserved"),
        ('name = "events"', 'name = "stays"', "table name occurs twice"),
        ('order = "number"', "", "order column"),
        ('patient = "person"', "", "patient or join"),
        ('join = { table = "stays"', 'join = { table = "nowhere"', "join"),
        ('vocabulary = ["f", "m"]', 'vocabulary = ["f", "f"]', "twice"),
        ('vocabulary = ["f", "m"]', 'vocabulary = ["f", "missing"]', "columns of their own"),
        ('vocabulary = ["f", "m"]', 'vocabulary = ["f", "m"]\nvocabulary_file = "groups.csv"', "both"),
        ('vocabulary = ["mild", "severe"]', 'vocabulary = ["mild", "grave"]', "severe"),
        ('values = ["no", "yes"]', 'values = ["no", "no"]', "twice"),
        ('"dead" = "yes"', '"dead" = "maybe"', "maybe"),
        ("edges = [1, 3, 7]", "edges = [1, 7, 3]", "increasing"),
        ("edges = [1, 3, 7]", "edges = [1, 3.5, 7]", "whole"),
        ("edges = [1, 3, 7]", "edges = [1, 31]", "maximum"),
        ("maximum = 30", "maximum = 9007199254740993", "2\\^53"),
        ('ignore = ["none", "Z.*"]', 'ignore = ["(" ]', "ignore"),
        ('false = ["N"]', 'false = ["Y"]', "both yes and no"),
        ('vocabulary_file = "groups.csv"', 'vocabulary_file = "gone.csv"', "gone.csv"),
        ('vocabulary_file = "groups.csv"', 'vocabulary_file = "rollup.csv"', "header"),
        ('table = "events"\ncolumns = ["procedure"]', 'table = "ether"\ncolumns = ["procedure"]', "ether"),
        ('missing = "own-category"', "", "missing"),
        ('outside = "clip"', 'outside = "guess"', "outside"),
        ("name = ", "name : ", "TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, old: str, new: str, tells: str) -> None:
    assert old in SCHEMA_TOML
    path = write_schema(tmp_path, SCHEMA_TOML.replace(old, new, 1))
    with pytest.raises(SchemaError, match=tells):
        Schema.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"code;title\n", b"code,title\na,b\na,c\n", b"code,title\na\n", b"code,title\n,x\n", b"\xff\xfe"]
)
def test_a_damaged_vocabulary_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = write_schema(tmp_path)
    (tmp_path / "groups.csv").write_bytes(content)
    with pytest.raises(SchemaError, match=r"groups\.csv"):
        Schema.load(path)


def test_a_missing_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="nowhere"):
        Schema.load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("38", "038"),
        ("8", "008"),
        ("038.9", "0389"),
        ("250.02", "25002"),
        ("428.", "428"),
        ("4280", "4280"),
        ("v45", "V45"),
        ("V5.1", "V051"),
        ("E980.2", "E9802"),
        ("E888", "E888"),
        ("J96.00", None),
        ("E11.9", None),
        ("1234567", None),
        ("", None),
        ("٣٨", None),
    ],
)
def test_icd9_has_one_spelling(written: str, normal: str | None) -> None:
    assert normal_form(written, "icd9") == normal


def test_numbers_have_one_spelling() -> None:
    assert {normal_form(text, "number") for text in ("1", "1.0", "01", "+1", "1e0")} == {"1"}
    assert normal_form("1,5", "number") is None
    assert normal_form("nan", "number") is None


borders = st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=8, unique=True).map(sorted)


def number_field(borders: list[int], scale: int, integer: bool) -> NumberField:
    exact = [Decimal(border).scaleb(-scale) for border in borders]
    return NumberField(
        kind="number",
        name="number",
        table="t",
        column="c",
        unit="",
        minimum=exact[0],
        maximum=exact[-1],
        edges=tuple(exact[1:-1]),
        integer=integer,
        combine="max",
        outside="fault",
        missing="fault",
    )


@given(borders, st.integers(0, 4))
def test_the_middle_of_a_bin_of_decimals_is_in_the_bin(borders: list[int], scale: int) -> None:
    field = number_field(borders, scale, integer=False)
    middles = np.array([float(entry.middle) for entry in field.bins])
    assert bin_positions(field, middles).tolist() == list(range(len(field.bins)))
    assert len({entry.text for entry in field.bins}) == len(field.bins)


@given(borders)
def test_whole_numbers_fall_into_the_bin_that_names_them(borders: list[int]) -> None:
    field = number_field(borders, 0, integer=True)
    for position, entry in enumerate(field.bins):
        inside = np.array([float(entry.low), float(entry.middle), float(entry.high)])
        assert bin_positions(field, inside).tolist() == [position] * 3
        assert entry.middle == int(entry.middle)
    assert field.bins[0].low == field.minimum
    assert field.bins[-1].high == field.maximum
    assert all(low.high + 1 == high.low for low, high in zip(field.bins, field.bins[1:], strict=False))
