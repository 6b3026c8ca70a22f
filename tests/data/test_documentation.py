"""docs/schema.md is a test target: its schema loads, and every setting, fault and rule is described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synclave_shared.data.faults import FAULT_CODES
from synclave_shared.data.fields import CategoryField, CodesField, FlagField, NumberField
from synclave_shared.data.schema import Label, Schema, Table

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


@pytest.mark.parametrize("model", [Table, Label, CodesField, CategoryField, FlagField, NumberField])
def test_every_setting_is_on_the_page(model: type[Table]) -> None:
    missing = [name for name in model.model_fields if f"`{name}`" not in PAGE]
    assert not missing


def test_every_fault_is_on_the_page() -> None:
    assert not [code for code in FAULT_CODES if f"`{code}`" not in PAGE]


def test_every_choice_is_on_the_page() -> None:
    choices = [
        choice
        for part in Schema.model_json_schema()["$defs"].values()
        for setting in part.get("properties", {}).values()
        for choice in [*setting.get("enum", []), *([setting["const"]] if "const" in setting else [])]
    ]
    assert len(choices) > 20
    assert not [choice for choice in choices if f"`{choice}`" not in PAGE]
