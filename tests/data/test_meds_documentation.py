"""docs/meds.md is a test target: its commands run as they stand there and print what stands below them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from synclave_client.cli import app
from synclave_shared.audit import console
from synclave_shared.data.meds.reading import EVENT_COLUMNS, LABEL_COLUMNS, SUBJECT_COLUMNS
from synclave_shared.data.meds.writer import MedsWriter
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import load_patients

from .ward import ROOT, write_labels, write_ward, write_ward_schema

PAGE = (ROOT / "docs" / "meds.md").read_text(encoding="utf-8")


def test_the_commands_on_the_page_print_what_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write_ward(tmp_path / "ward")
    write_labels(tmp_path / "returned.parquet")
    schema = Schema.load(write_ward_schema(tmp_path))
    blocks = re.findall(r"```text\n\$ (synclave-site .*?)\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for line, shown in blocks:
        if " synthetic " in line:
            patients = load_patients(schema, tmp_path / "tables")
            with MedsWriter(tmp_path / "synthetic", schema, {}) as writer:
                writer.write(patients.features[:], patients.labels, np.arange(len(patients)))
        with pytest.raises(SystemExit) as left:
            console.run(app, shlex.split(line)[1:])
        printed = "\n".join(text.rstrip() for text in capsys.readouterr().out.splitlines()) + "\n"
        assert left.value.code == 0, printed
        assert printed == shown


def test_every_column_is_on_the_page() -> None:
    assert not [name for name in (*EVENT_COLUMNS, *SUBJECT_COLUMNS, *LABEL_COLUMNS) if f"`{name}`" not in PAGE]
