"""The journal: what it keeps, what it refuses, and that it agrees with a few lines of plain Python."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synclave_client.vault.journal import KEPT_PAYLOADS, MAX_ATTEMPTS, Journal
from synclave_shared.errors import JournalError, PolicyRefusal
from synclave_shared.ledger.frontier import EMPTY, Frontier
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.ledger.witness import Growth
from synclave_shared.plan import TrainPlan
from synclave_shared.privacy.budget import Budget
from tests.vault.coordinator import make_plan

BUDGET = Budget(epsilon=Decimal(3), delta=Decimal("0.00001"))
REQUEST = "a" * 64
OTHER_REQUEST = "b" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Journal.create(tmp_path / "journal.sqlite")
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal.open(path)
    yield opened
    opened.close()


def accept(journal: Journal, plan: TrainPlan, dataset: str = "patients") -> None:
    journal.accept(
        plan,
        signature="s",
        dataset=dataset,
        folder=Path("/data", dataset),
        patients=[dataset.encode()],
        budget=BUDGET,
        entry=lambda previous: f"accepted {plan.name}".encode(),
    )


def reserve(journal: Journal, plan: TrainPlan, number: int, request: str = REQUEST) -> None:
    journal.reserve(
        plan.digest,
        number,
        plan.mechanism(number),
        request_digest=request,
        entry=lambda previous: f"reserved {plan.name} {number}".encode(),
    )


def release(journal: Journal, plan: TrainPlan, number: int, payload: bytes = b"noised") -> None:
    journal.release(
        plan.digest,
        number,
        header=lambda entry: f"reply {number}".encode(),
        payload=payload,
        entry=lambda previous: f"released {plan.name} {number}".encode(),
        sent=[],
    )


def test_a_journal_is_made_once_and_is_private(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(JournalError, match="Keep it"):
        Journal.create(path)
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.sqlite"]


def test_a_missing_journal_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="forgets what was spent"):
        Journal.open(tmp_path / "journal.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_only_one_vault_opens_it_but_others_may_read(journal: Journal, path: Path) -> None:
    accept(journal, make_plan())
    with pytest.raises(JournalError, match="another vault"):
        Journal.open(path)
    reader = Journal.read(path)
    assert [spend.name for spend in reader.plan_spends()] == ["first"]
    with pytest.raises(JournalError, match="readonly"):
        reader.close_plan(make_plan().digest)
    reader.close()
    journal.close()
    Journal.open(path).close()


@pytest.mark.parametrize("content", [b"", b"not a database, by a long way" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "journal.sqlite"
    file.write_bytes(content)
    for opening in (Journal.open, Journal.read):
        with pytest.raises(JournalError):
            opening(file)
    assert file.read_bytes() == content


def test_a_damaged_journal_is_refused(journal: Journal, path: Path) -> None:
    plan = make_plan()
    accept(journal, plan)
    for number in range(4):
        reserve(journal, plan, number)
        release(journal, plan, number)
    journal.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(JournalError, match="forgets what was spent"):
        Journal.open(path)


def test_writes_are_durable_before_they_are_believed(journal: Journal) -> None:
    assert journal._database.one("PRAGMA journal_mode") == ("wal",)
    assert journal._database.one("PRAGMA synchronous") == (2,)  # FULL


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM reservations",
        "UPDATE reservations SET mechanism = '{}'",
        "UPDATE reservations SET dataset = 'another'",
        "DELETE FROM releases",
        "UPDATE releases SET header = x'00'",
    ],
)
def test_the_database_itself_keeps_spends_and_releases(journal: Journal, path: Path, statement: str) -> None:
    plan = make_plan()
    accept(journal, plan)
    reserve(journal, plan, 0)
    release(journal, plan, 0)
    before = journal.spent("patients")
    with sqlite3.connect(path) as other, pytest.raises(sqlite3.IntegrityError, match=r"never (undone|changed)"):
        other.execute(statement)
    other.close()
    assert journal.spent("patients") == before


def test_a_round_is_spent_once_however_often_it_is_tried(journal: Journal) -> None:
    plan = make_plan()
    accept(journal, plan)
    for _ in range(MAX_ATTEMPTS):
        reserve(journal, plan, 1)
    assert journal.spent("patients") == [plan.mechanism(1)]
    with pytest.raises(PolicyRefusal) as refused:
        reserve(journal, plan, 1)
    assert refused.value.refusal == "round-out-of-order"
    assert journal.spent("patients") == [plan.mechanism(1)]


@pytest.mark.parametrize("released", [False, True])
def test_a_round_belongs_to_one_request(journal: Journal, released: bool) -> None:
    plan = make_plan()
    accept(journal, plan)
    reserve(journal, plan, 1)
    if released:
        release(journal, plan, 1)
    with pytest.raises(PolicyRefusal):
        reserve(journal, plan, 1, OTHER_REQUEST)
    assert journal.spent("patients") == [plan.mechanism(1)]


def test_nothing_is_reserved_without_an_open_plan(journal: Journal) -> None:
    plan = make_plan()
    with pytest.raises(PolicyRefusal) as refused:
        reserve(journal, plan, 1)
    assert refused.value.refusal == "plan-not-accepted"
    accept(journal, plan)
    journal.close_plan(plan.digest)
    with pytest.raises(PolicyRefusal):
        reserve(journal, plan, 1)
    assert journal.spent("patients") == []


def test_a_release_needs_a_reservation_and_happens_once(journal: Journal) -> None:
    plan = make_plan()
    accept(journal, plan)
    with pytest.raises(JournalError):
        release(journal, plan, 1)
    assert journal.stored_release(plan.digest, 1) is None
    reserve(journal, plan, 1)
    release(journal, plan, 1)
    with pytest.raises(JournalError):
        release(journal, plan, 1, b"other noise")
    stored = journal.stored_release(plan.digest, 1)
    assert stored is not None
    assert (stored.header, stored.payload) == (b"reply 1", b"noised")


def test_a_damaged_payload_is_not_sent(journal: Journal, path: Path) -> None:
    plan = make_plan()
    accept(journal, plan)
    reserve(journal, plan, 1)
    release(journal, plan, 1)
    (file,) = (path.parent / "releases").iterdir()
    file.write_bytes(b"noiseD")
    with pytest.raises(JournalError, match="other bytes"):
        journal.stored_release(plan.digest, 1)


def test_only_the_latest_payloads_are_kept_and_none_after_the_end(journal: Journal, path: Path) -> None:
    plan = make_plan()
    accept(journal, plan)
    for number in range(4):
        reserve(journal, plan, number)
        release(journal, plan, number, bytes([number]))
    kept = [journal.stored_release(plan.digest, number) for number in range(4)]
    assert [stored and stored.payload for stored in kept] == [None] * (4 - KEPT_PAYLOADS) + [b"\x02", b"\x03"]
    journal.close_plan(plan.digest)
    assert list((path.parent / "releases").iterdir()) == []
    assert len(journal.spent("patients")) == 4


def test_open_plans_are_committed_to_their_end_and_closed_ones_are_not(journal: Journal) -> None:
    first, second, elsewhere = make_plan("first"), make_plan("second"), make_plan("elsewhere")
    accept(journal, first)
    accept(journal, second)
    accept(journal, elsewhere, dataset="others")
    reserve(journal, first, 0)
    reserve(journal, first, 2)  # the site missed round 1: it cannot come any more
    spent = [first.mechanism(0), first.mechanism(2)]
    assert journal.spent("patients") == spent
    assert journal.committed("patients") == [*spent, first.mechanism(3), *second.mechanisms()]
    journal.close_plan(second.digest)
    journal.close_plan(first.digest)
    assert journal.committed("patients") == spent
    assert journal.committed("others") == elsewhere.mechanisms()


def test_entries_stay_open_until_their_inclusion_is_proved_in_the_ledger_of_their_plan(journal: Journal) -> None:
    first, second = make_plan("first"), make_plan("second")
    registration = journal.signed.registration("", lambda previous: b"registration")
    assert journal.signed.registration("", lambda previous: b"another") == registration
    accept(journal, first)
    accept(journal, second)
    opened = journal.signed.open(first.digest)
    assert [(entry.content, entry.sent) for entry in opened] == [(b"registration", True), (b"accepted first", False)]
    journal.signed.mark_sent([entry.number for entry in opened])
    contents = (b"another site's", opened[0].content)
    seen = journal.ledgers.extend(first.digest, grown(EMPTY, *contents), "co-signed")
    assert journal.ledgers.seen(first.digest) == seen
    assert journal.ledgers.entries(first.digest) == list(contents)
    assert [(own.content, own.index) for own in journal.ledgers.own(first.digest)] == [
        (b"registration", 1),
        (b"accepted first", None),
    ]
    assert [(entry.content, entry.sent) for entry in journal.signed.open(first.digest)] == [(b"accepted first", True)]
    assert [entry.content for entry in journal.signed.open(second.digest)] == [b"registration", b"accepted second"]


def grown(known: Frontier, *contents: bytes, note: str = "note") -> Growth:
    frontier = known.extend(leaf_hash(content) for content in contents)
    return Growth(frontier=frontier, operator_key="key", note=note, entries=contents, actors={})


def test_a_copy_of_a_ledger_only_grows(journal: Journal) -> None:
    five = journal.ledgers.extend("d", grown(EMPTY, b"1", b"2", b"3", b"4", b"5"), "co-signed")
    same = journal.ledgers.extend("d", grown(five.frontier, note="again"), "again")
    assert (same.size, same.root, journal.ledgers.seen("d")) == (5, five.root, same)
    for growth in (grown(EMPTY, b"1"), grown(EMPTY, b"1", b"2", b"3", b"4", b"5", b"6"), grown(EMPTY, note="nothing")):
        with pytest.raises(JournalError):
            journal.ledgers.extend("d", growth, "co-signed")
    for statement in ("DELETE FROM copies", "UPDATE copies SET content = 'x'", "DELETE FROM ledgers"):
        with pytest.raises(JournalError), journal._database.write() as database:
            database.execute(statement)
    assert (journal.ledgers.seen("d"), journal.ledgers.entries("d")) == (same, [b"1", b"2", b"3", b"4", b"5"])
    assert [seen.plan for seen in journal.ledgers.all()] == ["d"]


def test_each_entry_is_signed_after_the_newest_one_of_its_own_ledger(journal: Journal) -> None:
    signed: dict[str, str] = {}

    def entry(name: str) -> Callable[[str], bytes]:
        return lambda previous: signed.update({name: previous}) or name.encode()

    journal.signed.registration("", entry("registration"))
    journal.refuse("first", "paused", entry=entry("first 1"))
    journal.refuse("second", "paused", entry=entry("second 1"))
    journal.refuse("first", "budget-exceeded", entry=entry("first 2"))
    leaves = {name: leaf_hash(name.encode()).hex() for name in signed}
    assert signed == {
        "registration": "",
        "first 1": leaves["registration"],
        "second 1": leaves["registration"],
        "first 2": leaves["first 1"],
    }


def test_a_refusal_makes_one_entry_per_plan_and_reason(journal: Journal) -> None:
    for _ in range(3):
        journal.refuse("d", "paused", entry=lambda previous: b"refused for now")
    journal.refuse("d", "budget-exceeded", entry=lambda previous: b"too dear")
    journal.refuse("d", "paused", round_number=4)
    assert [entry.content for entry in journal.signed.open("d")] == [b"refused for now", b"too dear"]
    assert journal.refusals() == [("d", None, "paused"), ("d", None, "budget-exceeded"), ("d", 4, "paused")]


def test_an_error_inside_a_transaction_leaves_nothing_behind(journal: Journal) -> None:
    plan = make_plan()
    accept(journal, plan)

    def broken(previous: str) -> bytes:
        raise RuntimeError("the key is gone")

    with pytest.raises(RuntimeError):
        journal.reserve(plan.digest, 1, plan.mechanism(1), request_digest=REQUEST, entry=broken)
    assert journal.spent("patients") == []
    reserve(journal, plan, 1)
    assert journal.spent("patients") == [plan.mechanism(1)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "release", "reopen", "close"]),
        st.integers(0, 1),
        st.integers(0, 3),
        st.sampled_from([REQUEST, OTHER_REQUEST]),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_agrees_with_a_model_in_plain_python(steps: list[tuple[str, int, int, str]]) -> None:
    plans = [make_plan("first"), make_plan("second")]
    reserved: dict[tuple[int, int], str] = {}
    attempts: dict[tuple[int, int], int] = {}
    released: set[tuple[int, int]] = set()
    closed: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        Journal.create(path)
        journal = Journal.open(path)
        for plan in plans:
            accept(journal, plan)
        for action, which, number, request in steps:
            key = (which, number)
            if action == "reopen":
                journal.close()
                journal = Journal.open(path)
            elif action == "close":
                journal.close_plan(plans[which].digest)
                closed.add(which)
            elif action == "reserve":
                last = max((n for w, n in reserved if w == which), default=-1)
                retry = number == last and key not in released and reserved[key] == request
                allowed = which not in closed and (number > last or (retry and attempts[key] < MAX_ATTEMPTS))
                try:
                    reserve(journal, plans[which], number, request)
                except PolicyRefusal:
                    assert not allowed
                else:
                    assert allowed
                    reserved.setdefault(key, request)
                    attempts[key] = attempts.get(key, 0) + 1
            elif key in reserved and key not in released:
                release(journal, plans[which], number, f"{which} {number}".encode())
                released.add(key)
            else:
                with pytest.raises(JournalError):
                    release(journal, plans[which], number)
            assert sorted(m.model_dump_json() for m in journal.spent("patients")) == sorted(
                plans[w].mechanism(n).model_dump_json() for w, n in reserved
            )
        for which, number in released:
            assert journal.stored_release(plans[which].digest, number) is not None
        journal.close()
