from __future__ import annotations

from pathlib import Path

import pytest

from synclave_shared.data.schema import Schema

from .clinic import write_schema, write_tables

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def clinic(tmp_path: Path) -> Schema:
    """The invented clinic's schema."""
    return Schema.load(write_schema(tmp_path / "schema"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the clinic's tables, without a fault."""
    return write_tables(tmp_path / "site")


@pytest.fixture(scope="session")
def examples() -> Path:
    """The repository's examples."""
    return EXAMPLES


@pytest.fixture(scope="session")
def diabetes() -> Schema:
    """The schema of the diabetes example."""
    return Schema.load(EXAMPLES / "diabetes" / "schema.toml")
