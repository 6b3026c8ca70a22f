"""The schema and the data set of time series: what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synclave_shared.data.modality import check_folder, load_schema
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.dataset import SeriesDataset, together
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import SchemaError
from synclave_shared.models.layout import CodeLayout

from .icu import channel, make_schema, write


def test_canonical_json_comes_back_and_has_one_form(tmp_path: Path) -> None:
    schema = make_schema(channel("pulse", unit="1/min"), channel("lactate", minimum="0.1", transform="log"))
    path = tmp_path / "schema.json"
    path.write_bytes(schema.to_json_bytes())
    again = load_schema(path)
    assert again == schema
    assert again.digest == schema.digest
    path.write_bytes(b" " + schema.to_json_bytes())
    with pytest.raises(SchemaError, match="another form"):
        load_schema(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"maximum": 101},
        {"combine": "last"},
        {"outside": "clip"},
        {"transform": "log", "minimum": 1},
        {"unit": "Hz"},
    ],
)
def test_every_rule_of_a_channel_is_under_the_digest(changed: dict[str, Any]) -> None:
    assert make_schema(channel(**changed)).digest != make_schema(channel()).digest


def test_what_a_model_needs(examples: Path) -> None:
    schema = load_schema(examples / "sepsis" / "schema.toml")
    assert isinstance(schema, SeriesSchema)
    assert (schema.horizon, len(schema.channels), schema.label.values) == (24, 34, ("no", "yes"))
    assert CodeLayout.of(schema).categories == ((0, 7), (7, 10), (10, 13), (13, 19))
    lactate = next(one for one in schema.channels if one.name == "lactate")
    assert (lactate.unit, float(lactate.minimum), float(lactate.maximum)) == ("mmol/L", 0.1, 40)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"minimum": 5, "maximum": 5}, {}, "minimum < maximum"),
    ({"transform": "log"}, {}, "a minimum above 0"),
    ({"maximum": 2**60}, {}, "beyond 2"),
    ({"minimum": "0.1", "maximum": 0.5}, {}, "binary float"),
    ({"name": "sex"}, {}, "name sex is taken"),
    ({"name": "died"}, {}, "name died is taken"),
    ({"name": "step"}, {}, "name step is taken"),
    ({"table": "people"}, {}, "names no time"),
    ({"table": "nowhere"}, {}, "there is no table"),
    ({"code": "PULSE"}, {}, "code needs a table with a code column"),
    ({}, {"chart": {"time_unit": None}}, "time and time_unit together"),
    ({}, {"chart": {"time_unit": "timestamp"}}, "a timestamp has no zero"),
    ({}, {"grid": {"steps": 0}}, "greater than or equal to 1"),
    ({}, {"grid": {"steps": 50_001}}, "50000"),
    ({}, {"grid": {"start": {"table": "people", "combine": "first"}}}, "names no time"),
    ({}, {"grid": {"start": {"table": "chart", "code": "A", "combine": "first"}}}, "code needs a table"),
    ({}, {"grid": {"end": {"table": "people"}}}, "names no time"),
    ({}, {"grid": {"end": {"table": "nowhere"}}}, "there is no table"),
    ({}, {"stay": {"table": "stays", "column": "stay", "keep": "first"}}, "stay: there is no table stays"),
    ({}, {"modality": "codes"}, "'series'"),
    ({"shift": 1}, {}, "Extra inputs"),
]


@pytest.mark.parametrize(("own", "rest", "expected"), REFUSED)
def test_what_cannot_be_meant_is_refused(own: dict[str, Any], rest: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make_schema(channel(**own), **rest)


def test_a_channel_twice_and_too_many_values_are_refused() -> None:
    with pytest.raises(ValueError, match="name pulse is taken"):
        make_schema(channel(), channel())
    with pytest.raises(ValueError, match="more than 50000 values per patient"):
        make_schema(channel("a"), channel("b"), grid={"steps": 25_001})


def test_a_schema_says_what_it_is_a_schema_of(tmp_path: Path, examples: Path) -> None:
    text = (examples / "sepsis" / "schema.toml").read_text(encoding="utf-8")
    path = tmp_path / "schema.toml"
    path.write_text(text.replace('modality = "series"', 'modality = "sounds"'), encoding="utf-8")
    with pytest.raises(SchemaError, match="'codes' or 'series'"):
        load_schema(path)
    with pytest.raises(SchemaError, match="modality"):
        Schema.load(examples / "sepsis" / "schema.toml")
    assert type(load_schema(examples / "heart" / "schema.toml")) is Schema
    path = tmp_path / "schema.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(SchemaError, match="canonical JSON"):
        load_schema(path)


def test_one_door_checks_folders_of_every_modality(tmp_path: Path, clinic: Schema, folder: Path) -> None:
    chart = {"person": ["p", "q"], "minute": [0, 0], "pulse": [1, 2]}
    report = check_folder(make_schema(), write(tmp_path / "icu", chart))
    assert report.ok
    assert report.to_dict()["channels"] == [
        {"name": "pulse", "values": 2, "dropped": 0, "clipped": 0, "observed": 2, "steps": 2}
    ]
    assert check_folder(clinic, folder).ok


def parts(**changed: Any) -> dict[str, Any]:
    """Two patients, three steps, one channel."""
    return {
        "values": np.array([[[0.5], [0], [-1]], [[1], [0], [0]]], dtype=np.float32),
        "observed": np.array([[[1], [0], [1]], [[1], [0], [0]]], dtype=np.uint8),
        "lengths": np.array([3, 1]),
        "static": np.array([[1, 0], [0, 1]], dtype=np.uint8),
        "labels": np.array([0, 1]),
        "patient_ids": ["p", "q"],
        **changed,
    }


def test_selecting_and_joining_patients() -> None:
    dataset = SeriesDataset(**parts())
    assert (len(dataset), dataset.steps) == (2, 3)
    swapped = dataset.select(np.array([1, 0]))
    assert swapped.patient_ids == ["q", "p"]
    assert swapped.lengths.tolist() == [1, 3]
    both = together([dataset.select(np.array([1])), dataset.select(np.array([0]))])
    for name in ("values", "observed", "lengths", "static", "labels"):
        assert np.array_equal(getattr(both, name), getattr(swapped, name))
    with pytest.raises(ValueError, match="occurs twice"):
        together([dataset, dataset])
    assert len(dataset.select(np.zeros(0, dtype=np.intp))) == 0


def one_more(name: str, place: tuple[int, ...], value: float) -> dict[str, Any]:
    array = parts()[name].copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"values": np.zeros((2, 3), dtype=np.float32)}, "float32"),
        ({"values": np.zeros((2, 3, 1))}, "float32"),
        ({"observed": np.zeros((2, 3, 1), dtype=bool)}, "observed must be uint8"),
        ({"observed": np.zeros((2, 3, 2), dtype=np.uint8)}, "observed must be uint8"),
        ({"static": np.zeros((2, 2))}, "static must be uint8"),
        ({"lengths": np.array([3, 1], dtype=np.int32)}, "int64"),
        ({"labels": np.array([0.0, 1.0])}, "int64"),
        ({"labels": np.array([0])}, "one entry per patient"),
        ({"patient_ids": ["p", "p"]}, "occurs twice"),
        ({"lengths": np.array([3, 0])}, "from 1 to"),
        ({"lengths": np.array([4, 1])}, "from 1 to"),
        (one_more("values", (0, 0, 0), 1.5), "from -1 to 1"),
        (one_more("values", (0, 0, 0), float("nan")), "from -1 to 1"),
        (one_more("observed", (0, 0, 0), 2), "0 or 1"),
        (one_more("values", (0, 1, 0), 0.1), "where nothing was observed"),
        (one_more("observed", (1, 1, 0), 1), "after the end of the stay"),
    ],
)
def test_what_is_no_data_set_is_refused(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        SeriesDataset(**parts(**changed))
