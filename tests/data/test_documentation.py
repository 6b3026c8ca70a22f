"""docs/schema.md is a test target: its schema loads, and every setting, fault and rule is described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from synclave_shared.data.faults import FAULT_CODES
from synclave_shared.data.fields import CategoryField, CodesField, FlagField, NumberField
from synclave_shared.data.modality import load_schema
from synclave_shared.data.notes.schema import NotesSchema, NotesTable
from synclave_shared.data.schema import Label, PatientSchema, Schema, Table
from synclave_shared.data.series.channel import Channel
from synclave_shared.data.series.schema import Grid, SeriesSchema, SeriesTable, Start, Stay

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")


def test_the_schema_on_the_page_loads(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "schema.toml").write_text(found[1], encoding="utf-8")
    for name in ("ccs.csv", "icd9_to_ccs.csv"):
        (tmp_path / name).write_bytes((ROOT / "examples" / "codes" / name).read_bytes())
    assert {field.kind for field in Schema.load(tmp_path / "schema.toml").fields} == {
        "codes",
        "category",
        "flag",
        "number",
    }


def test_the_schema_of_series_on_the_page_loads(tmp_path: Path) -> None:
    texts = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "schema.toml").write_text(texts[1], encoding="utf-8")
    schema = load_schema(tmp_path / "schema.toml")
    assert isinstance(schema, SeriesSchema)
    assert [channel.transform for channel in schema.channels] == ["none", "log"]


def test_the_schema_of_notes_on_the_page_loads(tmp_path: Path) -> None:
    texts = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "schema.toml").write_text(next(text for text in texts if "[notes]" in text), encoding="utf-8")
    schema = load_schema(tmp_path / "schema.toml")
    assert isinstance(schema, NotesSchema)
    assert schema.notes.tokens == 256


MODELS = [
    Table,
    Label,
    CodesField,
    CategoryField,
    FlagField,
    NumberField,
    SeriesTable,
    Grid,
    Start,
    Stay,
    Channel,
    NotesTable,
]


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_is_on_the_page(model: type[BaseModel]) -> None:
    missing = [name for name in model.model_fields if f"`{name}`" not in PAGE]
    assert not missing


def test_every_fault_is_on_the_page() -> None:
    assert not [code for code in FAULT_CODES if f"`{code}`" not in PAGE]


@pytest.mark.parametrize("schema", [Schema, SeriesSchema, NotesSchema])
def test_every_choice_is_on_the_page(schema: type[PatientSchema]) -> None:
    choices = [
        choice
        for part in schema.model_json_schema()["$defs"].values()
        for setting in part.get("properties", {}).values()
        for choice in [*setting.get("enum", []), *([setting["const"]] if "const" in setting else [])]
    ]
    assert len(choices) > 20
    assert not [choice for choice in choices if f"`{choice}`" not in PAGE]
