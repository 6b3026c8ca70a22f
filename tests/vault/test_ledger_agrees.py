"""What a vault signs is what the auditor accepts: a whole run through the real ledger and its verification."""

from __future__ import annotations

from pathlib import Path

import pytest

from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.privacy.accountant import epsilon
from tests.vault.coordinator import COORDINATOR_KEY, Coordinator, FakeWorkload, make_plan, make_settings, open_vault


@pytest.mark.parametrize("trouble", [False, True], ids=["smooth", "refused-and-failed-on-the-way"])
def test_the_auditor_accepts_a_vaults_entries_and_recomputes_its_epsilon(tmp_path: Path, trouble: bool) -> None:
    settings = make_settings(tmp_path)
    workload = FakeWorkload()
    vault, journal = open_vault(settings, workload)
    plan = make_plan()
    coordinator = Coordinator(vault, plan)
    coordinator.begin()
    coordinator.hello()
    if trouble:
        settings.pause_file.touch()
        assert coordinator.propose().code == "paused"
        settings.pause_file.unlink()
    assert coordinator.propose().status == "ok"
    for number in range(4):
        workload.error = ValueError("a bug") if trouble and number == 2 else None
        assert coordinator.round(number).status == ("failed" if workload.error else "ok")
    closed = coordinator.close()
    assert closed.status == "ok"
    journal.close()

    ledger = Ledger.create(tmp_path / "ledger", coordinator.origin, COORDINATOR_KEY)
    ledger.append(coordinator.entries)
    ledger.add_cosignature(closed.seen_size, "north", closed.cosignature)
    report = verify_ledger(tmp_path / "ledger")
    assert report.findings == ()
    assert report.valid
    site = report.sites["north"]
    assert site.epsilon == pytest.approx(epsilon(plan.mechanisms(), 1e-5), rel=0.02)
    assert site.spends == 4
