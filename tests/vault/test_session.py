"""The vault's side of the protocol, spoken to by an honest and by a dishonest coordinator."""

from __future__ import annotations

import logging
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import MAX_ATTEMPTS, Journal
from synclave_client.vault.session import Vault
from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import DataError, ProtocolError
from synclave_shared.ledger.checkpoint import cosignature_time, parse_line, parse_note
from synclave_shared.ledger.entry import BudgetChanged, PlanAccepted, SpendReserved, UpdateReleased, parse_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.plan import Federation, Privacy, TrainPlan
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.budget import Budget
from synclave_shared.protocol import Envelope, parse_reply
from tests.vault.coordinator import (
    OTHER_MODEL,
    SITE_KEY,
    Coordinator,
    FakeWorkload,
    make_plan,
    make_scores_plan,
    make_settings,
    open_vault,
)


def spent(journal: Journal) -> list[Any]:
    return journal.spent("north-patients")


def test_a_whole_training_leaves_the_ledger_that_an_auditor_expects(vault: Vault, journal: Journal) -> None:
    plan = make_plan()
    coordinator = Coordinator(vault, plan)
    coordinator.join()
    for number in range(4):
        request = coordinator.round_request(number)
        envelope = vault.handle(request)
        reply = coordinator.take(envelope)
        assert (reply.status, reply.site, reply.public_key) == ("ok", "north", SITE_KEY.public_text)
        assert reply.payload_digest == sha256_hex(envelope.payload)
        released = parse_entry(reply.entries[-1].encode()).body
        assert released == UpdateReleased(plan_digest=plan.digest, round=number, update_digest=reply.payload_digest)
        reserved = parse_entry(reply.entries[-2].encode()).body
        assert reserved == SpendReserved(
            plan_digest=plan.digest,
            dataset="north-patients",
            round=number,
            mechanism=plan.mechanism(number),
            delta=Decimal("0.00001"),
        )
    assert coordinator.close().entries == ()
    assert coordinator.kinds == ["key-registered", "plan-accepted", *["spend-reserved", "update-released"] * 4]
    accepted = parse_entry(coordinator.entries[1]).body
    assert isinstance(accepted, PlanAccepted)
    assert (accepted.dataset, accepted.budget.epsilon) == ("north-patients", Decimal(3))
    assert {"synclave", "dp-accounting"} <= accepted.versions.keys()
    assert spent(journal) == plan.mechanisms()
    assert journal.signed.open(plan.digest) == []


def test_scores_are_told_of_held_out_patients_only_and_a_withdrawn_plan_has_learnt_nothing(
    vault: Vault, journal: Journal
) -> None:
    first, second = Coordinator(vault, make_scores_plan()), Coordinator(vault, make_scores_plan("again"))
    first.join()
    assert first.round(1).status == "ok"
    training = Coordinator(vault, make_plan())
    training.join()
    before = journal.plan_spends()
    second.hello()
    reply = second.propose()
    assert (reply.status, reply.code) == ("refused", "not-held-out")
    assert second.kinds == ["key-registered", "plan-refused"]
    assert journal.plan_spends() == before
    assert journal.plan(second.plan.digest) is None
    training.close()
    assert journal.uses("north-patients") == {"scores"}
    third = Coordinator(vault, make_scores_plan("third"))
    third.join()
    assert third.round(1).status == "ok"
    # What is accepted while the patients are held out is refused once they are not.
    fourth = Coordinator(vault, make_scores_plan("fourth"))
    fourth.join()
    Coordinator(vault, make_plan("later")).join()
    before = journal.spent("north-patients")
    assert fourth.round(1).code == "not-held-out"
    assert journal.spent("north-patients") == before


def test_each_verified_checkpoint_is_cosigned(vault: Vault) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.hello()
    note = coordinator.note()
    reply = coordinator.propose()
    assert reply.seen_size == 1
    checkpoint = parse_note(note).checkpoint
    assert cosignature_time(checkpoint, parse_line(reply.cosignature), SITE_KEY.public_text) is not None


def test_a_proposal_asked_twice_is_accepted_once(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    assert coordinator.propose().status == "ok"
    assert coordinator.kinds.count("plan-accepted") == 1
    assert len(journal.plan_spends()) == 1


def refused_proposal(coordinator: Coordinator, journal: Journal, code: str, **request: Any) -> None:
    coordinator.hello()
    before = spent(journal), journal.plan_spends()
    for _ in range(2):
        reply = coordinator.take(coordinator.vault.handle(coordinator.propose_request(**request)))
        assert (reply.status, reply.code) == ("refused", code)
        assert parse_reply(Envelope.of(reply)).payload_digest == sha256_hex(b"")
    assert coordinator.kinds == ["key-registered", "plan-refused"]
    assert (spent(journal), journal.plan_spends()) == before
    assert [refusal for _, _, refusal in journal.refusals()] == [code]
    assert coordinator.round(1).code == "plan-not-accepted"
    assert (spent(journal), journal.plan_spends()) == before


def test_a_plan_over_budget_is_refused_in_the_ledger(vault: Vault, journal: Journal) -> None:
    plan = make_plan(federation=Federation(rounds=1000, steps_per_round=100))
    refused_proposal(Coordinator(vault, plan), journal, "budget-exceeded")


def test_a_plan_for_another_schema_is_refused_in_the_ledger(vault: Vault, journal: Journal) -> None:
    refused_proposal(Coordinator(vault, make_plan(schema_digest="6" * 64)), journal, "schema-mismatch")


def test_too_little_noise_is_refused_in_the_ledger(vault: Vault, journal: Journal) -> None:
    plan = make_plan(privacy=Privacy(noise_multiplier=Decimal("0.1"), selection_rate=Decimal("0.0001")))
    refused_proposal(Coordinator(vault, plan), journal, "noise-below-floor")


@pytest.mark.parametrize("signature", ["", "AAAA", "A" * 86 + "=="], ids=["empty", "short", "wrong"])
def test_an_unsigned_plan_is_refused_in_the_ledger(vault: Vault, journal: Journal, signature: str) -> None:
    refused_proposal(Coordinator(vault, make_plan()), journal, "coordinator-unknown", signature=signature)


def test_another_coordinators_plan_is_refused_in_the_ledger(vault: Vault, journal: Journal) -> None:
    stranger = SigningKey.from_seed(b"x" * 32)
    plan = make_plan(coordinator_key=stranger.public_text)
    refused_proposal(Coordinator(vault, plan, key=stranger), journal, "coordinator-unknown")


def test_a_plan_that_is_no_plan_fails_and_leaves_no_trace(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.hello()
    request = coordinator.propose_request()
    spaced = Envelope(header=request.header.replace(b'"plan":"{', b'"plan":" {'))
    assert coordinator.take(vault.handle(spaced)).code == "plan"
    assert journal.refusals() == []


def test_the_pause_of_the_steward_refuses_at_once_and_ends_at_once(
    site: SiteSettings, vault: Vault, journal: Journal
) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    site.pause_file.touch()
    assert coordinator.round(0).code == "paused"
    other = Coordinator(vault, make_plan("second"))
    other.hello()
    assert other.propose().code == "paused"
    assert spent(journal) == []
    site.pause_file.unlink()
    assert coordinator.round(0).status == "ok"


def test_open_plans_hold_their_worst_case_and_closed_ones_give_it_back(tmp_path: Path) -> None:
    federation = Federation(rounds=20, steps_per_round=50)
    first, second = make_plan("first", federation=federation), make_plan("second", federation=federation)
    one = epsilon(first.mechanisms(), 1e-5)
    two = epsilon([*first.mechanisms(), *second.mechanisms()], 1e-5)
    budget = Budget(epsilon=Decimal(str(round((one + two) / 2, 4))), delta=Decimal("0.00001"))
    vault, journal = open_vault(make_settings(tmp_path, budget=budget), FakeWorkload())
    earlier, later = Coordinator(vault, first), Coordinator(vault, second)
    earlier.join()
    later.hello()
    assert later.propose().code == "budget-exceeded"
    earlier.close()
    assert later.propose().status == "ok"
    assert later.kinds == ["key-registered", "plan-refused", "plan-accepted"]
    assert earlier.round(1).code == "plan-not-accepted"
    assert spent(journal) == []
    journal.close()


def test_another_schema_over_the_same_data_spends_the_same_budget(tmp_path: Path) -> None:
    for name, digest in (("a", "5" * 64), ("b", "6" * 64)):
        settings = make_settings(tmp_path, schema_file=tmp_path / name)
        vault, journal = open_vault(settings, FakeWorkload(schema_digest=digest))
        coordinator = Coordinator(vault, make_plan(name, schema_digest=digest))
        coordinator.join()
        assert coordinator.round(0).status == "ok"
        assert len(spent(journal)) == (1 if name == "a" else 2)
        journal.close()


def test_a_lowered_budget_stops_an_accepted_plan(tmp_path: Path) -> None:
    vault, journal = open_vault(make_settings(tmp_path), FakeWorkload())
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    journal.close()
    tight = Budget(epsilon=Decimal("0.01"), delta=Decimal("0.00001"))
    vault, journal = open_vault(make_settings(tmp_path, budget=tight), FakeWorkload())
    coordinator.vault = vault
    assert coordinator.round(1).code == "budget-exceeded"
    assert len(spent(journal)) == 1
    assert coordinator.round(1).code == "budget-exceeded"
    # The ledger is told why, once.
    assert coordinator.kinds[-1] == "budget-changed"
    assert coordinator.kinds.count("budget-changed") == 1
    journal.close()


def test_a_plan_is_told_a_new_budget_before_it_is_spent_against(tmp_path: Path) -> None:
    vault, journal = open_vault(make_settings(tmp_path), FakeWorkload())
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    journal.close()
    for number, (epsilon_text, delta) in enumerate([("4", "0.000001"), ("3", "0.00001")]):
        budget = Budget(epsilon=Decimal(epsilon_text), delta=Decimal(delta))
        coordinator.vault, journal = open_vault(make_settings(tmp_path, budget=budget), FakeWorkload())
        assert coordinator.round(number).status == "ok"
        assert coordinator.kinds[-3:] == ["budget-changed", "spend-reserved", "update-released"]
        changed, reserved = (parse_entry(content).body for content in coordinator.entries[-3:-1])
        assert isinstance(changed, BudgetChanged)
        assert isinstance(reserved, SpendReserved)
        assert (changed.budget, reserved.delta) == (budget, budget.delta)
        journal.close()


def test_a_budget_at_a_larger_delta_than_the_plans_is_not_told_to_it(tmp_path: Path) -> None:
    vault, journal = open_vault(make_settings(tmp_path), FakeWorkload())
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    journal.close()
    budget = Budget(epsilon=Decimal(3), delta=Decimal("0.0001"))
    coordinator.vault, journal = open_vault(make_settings(tmp_path, budget=budget), FakeWorkload())
    before = coordinator.kinds
    assert coordinator.round(0).code == "delta-above-plan"
    assert coordinator.kinds == before
    assert spent(journal) == []
    journal.close()


def test_a_budget_raised_and_lowered_again_binds_a_plan_that_was_accepted_under_it(tmp_path: Path) -> None:
    first = Coordinator(None, make_plan("first"))  # type: ignore[arg-type]
    second = Coordinator(None, make_plan("second"))  # type: ignore[arg-type]
    alone = epsilon(first.plan.mechanisms(), 1e-5)
    tight = Budget(epsilon=Decimal(str(round(alone * 1.01, 4))), delta=Decimal("0.00001"))
    wide = Budget(epsilon=Decimal(50), delta=Decimal("0.00001"))
    for budget, coordinator, rounds in ((tight, first, ()), (wide, second, range(4))):
        coordinator.vault, journal = open_vault(make_settings(tmp_path, budget=budget), FakeWorkload())
        coordinator.join()
        assert all(coordinator.round(number).status == "ok" for number in rounds)
        journal.close()
    first.vault, journal = open_vault(make_settings(tmp_path, budget=tight), FakeWorkload())
    codes = [first.round(number).code for number in range(4)]
    assert codes[-1] == "budget-exceeded"
    assert epsilon(spent(journal), 1e-5) <= tight.epsilon
    journal.close()


@pytest.mark.parametrize("number", [4, 10_000])
def test_a_round_beyond_the_plan_is_refused(vault: Vault, journal: Journal, number: int) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    assert coordinator.round(number).code == "round-out-of-order"
    assert spent(journal) == []


def test_rounds_go_forward_only(vault: Vault, journal: Journal, workload: FakeWorkload) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    assert coordinator.round(2).status == "ok"
    for earlier in (0, 1):
        assert coordinator.round(earlier).code == "round-out-of-order"
    assert coordinator.round(3).status == "ok"
    assert [number for number, _ in workload.releases] == [2, 3]
    assert len(spent(journal)) == 2


def test_a_replayed_round_is_answered_byte_for_byte_and_not_computed_again(
    site: SiteSettings, vault: Vault, journal: Journal, workload: FakeWorkload
) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    request = coordinator.round_request(1)
    first = vault.handle(request)
    site.pause_file.touch()  # what has left may be sent again, whatever the steward decides now
    assert vault.handle(request) == first
    assert len(workload.releases) == 1
    assert len(spent(journal)) == 1


def test_a_replay_with_another_checkpoint_is_answered_alike(vault: Vault) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    first = vault.handle(coordinator.round_request(1))
    coordinator.begin()  # the ledger grew meanwhile
    assert vault.handle(coordinator.round_request(1)) == first


def test_another_model_for_a_released_round_is_refused(vault: Vault, journal: Journal, workload: FakeWorkload) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    coordinator.round(1)
    assert coordinator.round(1, OTHER_MODEL).code == "round-out-of-order"
    assert len(workload.releases) == 1
    assert len(spent(journal)) == 1


def test_a_failed_round_may_be_tried_again_for_one_spend_with_the_same_model_only(
    vault: Vault, journal: Journal, workload: FakeWorkload
) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    workload.error = ValueError("a bug")
    assert coordinator.round(1).status == "failed"
    assert len(spent(journal)) == 1
    assert coordinator.round(1, OTHER_MODEL).code == "round-out-of-order"
    workload.error = None
    assert coordinator.round(1).status == "ok"
    assert spent(journal) == [make_plan().mechanism(1)]


def test_the_tries_of_a_failing_round_are_few(vault: Vault, journal: Journal, workload: FakeWorkload) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    workload.error = ValueError("a bug that depends on the data")
    for _ in range(MAX_ATTEMPTS):
        assert coordinator.round(1).status == "failed"
    assert coordinator.round(1).code == "round-out-of-order"
    assert len(workload.releases) == MAX_ATTEMPTS
    workload.error = None
    assert coordinator.round(2).status == "ok"
    # The spend of the round that never left is in the ledger all the same.
    assert coordinator.kinds.count("spend-reserved") == 2
    assert coordinator.kinds.count("update-released") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("patient 4711 has code E11"), "internal"),
        (MemoryError("patient 4711 has code E11"), "internal"),
        (DataError(expected="x", found="patient 4711 has code E11", remedy="y"), "internal"),
        (ProtocolError(expected="x", found="patient 4711 has code E11", remedy="y"), "internal"),
    ],
)
def test_what_failed_stays_in_the_local_log(
    vault: Vault, workload: FakeWorkload, caplog: pytest.LogCaptureFixture, error: Exception, code: str
) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    workload.error = error
    with caplog.at_level(logging.ERROR):
        envelope = vault.handle(coordinator.round_request(1))
    assert parse_reply(envelope).status == "failed"
    assert parse_reply(envelope).code == code
    assert b"4711" not in envelope.header + envelope.payload
    assert "4711" in caplog.text
    workload.error = None
    later = vault.handle(coordinator.round_request(1))
    assert b"4711" not in later.header + later.payload


def test_a_payload_that_does_not_fit_costs_nothing(vault: Vault, journal: Journal, workload: FakeWorkload) -> None:
    def refuse(*_: Any) -> None:
        raise ProtocolError(expected="a model", found="something else", remedy="nothing")

    workload.check_payload = refuse  # type: ignore[method-assign]
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    assert coordinator.round(1).code == "protocol"
    assert spent(journal) == []
    assert workload.releases == []


def test_broken_data_are_not_ready_but_history_is_still_served(site: SiteSettings) -> None:
    vault, journal = open_vault(site, FakeWorkload())
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    request = coordinator.round_request(0)
    first = vault.handle(request)
    coordinator.take(first)
    journal.close()
    vault, journal = open_vault(site, None)
    coordinator.vault = vault
    assert coordinator.hello().code == "not-ready"
    assert coordinator.propose().code == "not-ready"
    assert coordinator.round(1).code == "not-ready"
    assert vault.handle(request) == first
    assert len(spent(journal)) == 1
    assert coordinator.close().status == "ok"
    journal.close()


def test_a_hello_is_answered_while_a_training_goes_on(vault: Vault, workload: FakeWorkload) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    training, enough = threading.Event(), threading.Event()

    def slow(*_: Any) -> NDArray[np.int64]:
        training.set()
        assert enough.wait(20)
        return np.zeros(8, np.int64)

    workload.release = slow  # type: ignore[method-assign]
    replies: list[Envelope] = []
    request = coordinator.round_request(1)
    thread = threading.Thread(target=lambda: replies.append(vault.handle(request)))
    thread.start()
    assert training.wait(20)
    assert coordinator.hello().status == "ok"
    assert replies == []
    enough.set()
    thread.join()
    assert parse_reply(replies[0]).status == "ok"


def test_sites_of_one_process_train_one_at_a_time(tmp_path: Path) -> None:
    lock = threading.Lock()
    running: list[str] = []
    overlaps: list[list[str]] = []

    class Counting(FakeWorkload):
        def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
            running.append(plan.name)
            overlaps.append(list(running))
            time.sleep(0.05)
            running.remove(plan.name)
            return np.zeros(8, np.int64)

    threads, journals = [], []
    for name in ("a", "b", "c"):
        settings = make_settings(tmp_path / name)
        settings.state_folder.mkdir(parents=True)
        Journal.create(settings.journal_file)
        journals.append(Journal.open(settings.journal_file))
        vault = Vault(settings, journals[-1], SITE_KEY, Counting(), training_lock=lock)
        coordinator = Coordinator(vault, make_plan(name))
        coordinator.join()
        threads.append(threading.Thread(target=coordinator.round, args=(1,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for journal in journals:
        journal.close()
    assert sorted(overlaps) == [["a"], ["b"], ["c"]]


def test_a_key_that_is_not_the_journals_is_noticed(site: SiteSettings) -> None:
    vault, journal = open_vault(site, FakeWorkload())
    assert Coordinator(vault, make_plan()).hello().status == "ok"
    journal.close()
    vault, journal = open_vault(site, FakeWorkload(), key=SigningKey.from_seed(b"n" * 32))
    assert Coordinator(vault, make_plan()).hello().code == "journal"
    journal.close()


@given(header=st.binary(max_size=300), payload=st.binary(max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_request_are_answered_with_a_closed_code(vault: Vault, header: bytes, payload: bytes) -> None:
    reply = parse_reply(vault.handle(Envelope(header=header, payload=payload)))
    assert (reply.status, reply.code, reply.entries) == ("failed", "protocol", ())
