"""A site, and its command line in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from synclave_client.cli import app
from synclave_shared.audit import console
from tests.vault.coordinator import COORDINATOR_KEY
from tests.vault.toy import write_hospital


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def site(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``synclave-site`` with some arguments in this process."""

    def invoke(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            console.run(app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return invoke


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    write_hospital(tmp_path)
    return tmp_path


def init_arguments(hospital: Path, **changes: object) -> list[object]:
    options: dict[str, object] = {
        "name": "north",
        "data": hospital / "data",
        "schema": hospital / "schema.toml",
        "coordinator-key": COORDINATOR_KEY.public_text,
        "epsilon": "3",
        **changes,
    }
    return ["init", hospital / "site", *(part for name, value in options.items() for part in (f"--{name}", value))]


@pytest.fixture
def settings(site: Any, hospital: Path) -> Path:
    assert site(*init_arguments(hospital)).code == 0
    return hospital / "site" / "site.toml"
