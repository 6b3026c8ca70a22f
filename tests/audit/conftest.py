from __future__ import annotations

from pathlib import Path

import pytest

from synclave_shared.audit.ledgers import Ledgers, read_ledgers
from synclave_shared.audit.reading import Reading, read_ledger
from tests.audit.ledgers import two_plans, written


@pytest.fixture(scope="session")
def two_plans_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(two_plans(), tmp_path_factory.mktemp("two-plans") / "ledger")


@pytest.fixture(scope="session")
def reading(two_plans_ledger: Path) -> Reading:
    return read_ledger(two_plans_ledger)


@pytest.fixture(scope="session")
def ledgers(two_plans_ledger: Path) -> Ledgers:
    return read_ledgers([two_plans_ledger])
