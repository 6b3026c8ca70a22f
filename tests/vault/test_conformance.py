"""The vault and what its trainings really did: a round that does not conform is spent, and never released."""

from __future__ import annotations

import json
import stat
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from synclave_client.training.conformance import RoundWatch
from synclave_client.vault import policy
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.journal import Journal
from synclave_client.vault.session import Vault
from synclave_shared.errors import REFUSAL_CODES, JournalError, NotConforming
from synclave_shared.ledger.entry import COORDINATOR, KeyRegistered, PlanProposed, sign_entry
from synclave_shared.ledger.keys import encode_base64
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.plan import Federation, TrainPlan, signed_plan_bytes
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.budget import Budget, Verdict, check_budget
from synclave_shared.privacy.mechanism import GaussianSum
from tests.vault.coordinator import COORDINATOR_KEY, Coordinator, FakeWorkload, make_plan, make_settings, open_vault


def watched(noise: float = 1.0, seed: int = 0) -> RoundWatch:
    """A noised sum of 5,000 numbers over 20 patients."""
    watch = RoundWatch(GaussianSum(noise_multiplier=Decimal(1), clip_norm=Decimal(1)), 20, seed=seed)
    values = np.zeros(5_000)
    with watch.noising(values, 20):
        values += noise * np.random.default_rng(seed).standard_normal(5_000)
    return watch


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_round_that_does_not_conform_is_refused_with_a_closed_code_spent_and_not_released(
    vault: Vault, journal: Journal, workload: FakeWorkload
) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    coordinator.round(0)
    workload.error = NotConforming(found="noise variance: 0.25 of patient-seven", remedy="")
    reply = coordinator.vault.handle(coordinator.round_request(1))
    assert b"not-conforming" in reply.header
    assert b"patient-seven" not in reply.header
    assert reply.payload == b""
    assert journal.stored_release(coordinator.plan.digest, 1) is None
    assert len(journal.spent("north-patients")) == 2
    assert "not-conforming" in REFUSAL_CODES


def test_a_report_is_kept_of_every_round_whatever_it_says(tmp_path: Path) -> None:
    folder, plan = ConformanceFolder(tmp_path / "conformance"), make_plan()
    folder.require_conforming(plan)
    folder.conclude(plan, 0, watched(seed=0))
    folder.conclude(plan, 1, watched(seed=1))
    with pytest.raises(NotConforming, match="noise variance"):
        folder.conclude(plan, 2, watched(0.5, seed=2))
    reports = folder.reports(plan.digest)
    assert [(report.round, report.look, report.passed) for report in reports] == [
        (0, 1, True),
        (1, 2, True),
        (2, 3, False),
    ]
    assert reports[2].together.noise.count == 15_000
    assert folder.plans() == [plan.digest]
    assert len((tmp_path / "conformance" / "noise.sketches").read_bytes()) == 3 * 16
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*.*")} == {0o600}


def test_a_plan_that_did_not_conform_goes_no_further_and_others_do(tmp_path: Path) -> None:
    folder = ConformanceFolder(tmp_path / "conformance")
    with pytest.raises(NotConforming):
        folder.conclude(make_plan(), 0, watched(0.5))
    before = files(tmp_path)
    with pytest.raises(NotConforming, match="noise variance"):
        ConformanceFolder(tmp_path / "conformance").require_conforming(make_plan())
    folder.require_conforming(make_plan("second"))
    assert files(tmp_path) == before


def test_deviations_too_small_for_one_round_are_seen_over_the_rounds_of_a_plan(tmp_path: Path) -> None:
    folder, plan = ConformanceFolder(tmp_path / "conformance"), make_plan()
    for number in range(4):
        folder.conclude(plan, number, watched(0.97, seed=number))

    def go_on() -> None:
        for number in range(4, 30):
            folder.conclude(plan, number, watched(0.97, seed=number))

    with pytest.raises(NotConforming, match=r"noise variance / the plan's \(plan\)"):
        go_on()


def test_noise_of_another_plan_is_recognised_also_after_a_power_cut(tmp_path: Path) -> None:
    folder = ConformanceFolder(tmp_path / "conformance")
    folder.conclude(make_plan(), 0, watched(seed=5))
    with (tmp_path / "conformance" / "noise.sketches").open("ab") as file:
        file.write(b"half")
    folder.conclude(make_plan("second"), 0, watched(seed=6))
    with pytest.raises(NotConforming, match="noise used twice"):
        folder.conclude(make_plan("third"), 0, watched(seed=6))


def test_a_damaged_report_stops_the_plan(tmp_path: Path) -> None:
    folder, plan = ConformanceFolder(tmp_path / "conformance"), make_plan()
    folder.conclude(plan, 0, watched())
    (path,) = (tmp_path / "conformance").rglob("*.json")
    path.write_text(path.read_text().replace('"round": 0', '"round": "none"'))
    with pytest.raises(JournalError, match="changed or damaged"):
        folder.require_conforming(plan)


def fresh_accountant(budget: Budget, spent: object, planned: list[GaussianSum]) -> Verdict:
    """Each round by itself."""
    verdicts = [check_budget(budget, [], [mechanism]) for mechanism in planned]
    return max(verdicts, key=lambda verdict: verdict.after_epsilon)


@pytest.mark.parametrize("broken", [False, True], ids=["honest", "fresh-accountant"])
def test_a_fresh_accountant_per_round_is_caught_by_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """The site signs spends of which each fits its budget and all together do not; the auditor composes them."""
    plan = make_plan(federation=Federation(rounds=6, steps_per_round=100))
    alone = max(epsilon([mechanism], 1e-5) for mechanism in plan.mechanisms())
    together = epsilon(plan.mechanisms(), 1e-5)
    assert alone < 0.7 * together
    allowed = Decimal(f"{together * 1.05 if not broken else (alone + together) / 2:.3f}")
    if broken:
        monkeypatch.setattr(policy, "check_budget", fresh_accountant)
    settings = make_settings(tmp_path, budget=Budget(epsilon=allowed, delta=Decimal("0.00001")))
    vault, journal = open_vault(settings, FakeWorkload())
    coordinator = Coordinator(vault, plan)
    begin(coordinator, plan)
    coordinator.hello()
    assert coordinator.propose().status == "ok"
    for number in range(7):
        assert coordinator.round(number).status == "ok"
    closed = coordinator.close()
    journal.close()
    ledger = Ledger.create(tmp_path / "ledger", coordinator.origin, COORDINATOR_KEY)
    ledger.append(coordinator.entries)
    ledger.add_cosignature(closed.seen_size, "north", closed.cosignature)
    report = verify_ledger(tmp_path / "ledger")
    assert [finding.code for finding in report.findings if finding.severity == "error"] == (
        ["budget-exceeded"] if broken else []
    )


def begin(coordinator: Coordinator, plan: TrainPlan) -> None:
    """The coordinator's own first two entries."""
    signature = encode_base64(COORDINATOR_KEY.sign(signed_plan_bytes(plan.to_bytes())))
    registered = KeyRegistered(name=COORDINATOR, role="coordinator", public_key=COORDINATOR_KEY.public_text)
    proposed = PlanProposed(plan=json.loads(plan.to_bytes()), plan_digest=plan.digest, signature=signature)
    first = sign_entry("key-registered", COORDINATOR, "", registered, COORDINATOR_KEY, previous="")
    second = sign_entry("plan-proposed", COORDINATOR, plan.digest, proposed, COORDINATOR_KEY, previous=first.leaf)
    coordinator.append(first.to_bytes(), second.to_bytes())
