"""One site with a vault over a workload that is quick to please."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.session import Vault
from tests.vault.coordinator import (
    FakeWorkload,
    make_settings,
    open_vault,
)


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_settings(tmp_path)


@pytest.fixture
def workload() -> FakeWorkload:
    return FakeWorkload()


@pytest.fixture
def opened(site: SiteSettings, workload: FakeWorkload) -> Iterator[tuple[Vault, Journal]]:
    vault, journal = open_vault(site, workload)
    yield vault, journal
    journal.close()


@pytest.fixture
def vault(opened: tuple[Vault, Journal]) -> Vault:
    return opened[0]


@pytest.fixture
def journal(opened: tuple[Vault, Journal]) -> Journal:
    return opened[1]
