"""Several ledgers under one audit: one budget over all trainings, and what counts as one site, data set and ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from synclave_shared.audit.ledgers import Ledgers, read_ledgers
from synclave_shared.audit.reading import Place
from synclave_shared.audit.spends import accounts
from synclave_shared.ledger.checkpoint import parse_note
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.store import Ledger
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.budget import Budget
from tests.audit.ledgers import written
from tests.ledger.story import START, Story, key_of, make_plan

FIRST = make_plan(rounds=2, minimum_sites=1)
SECOND = make_plan(rounds=1, name="second", noise="2", minimum_sites=1)
LATER = timedelta(days=30)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write stories, each a training of its own, as ledgers; ``later`` moves the clocks of everybody."""

    def one(story: Callable[[], Story], name: str, later: timedelta = timedelta(0), **names: Any) -> Path:
        with mock.patch.multiple("tests.ledger.story", START=START + later, **names):
            return written(story(), tmp_path / name)

    return one


def first() -> Story:
    return Story(FIRST).whole()


def second(epsilon: str = "3") -> Story:
    return Story(SECOND, epsilon).whole()


def codes(ledgers: Ledgers) -> list[tuple[int, str]]:
    return [(found.ledger, found.finding.code) for found in ledgers.findings]


def test_a_data_set_is_composed_over_all_ledgers_and_nothing_is_added_up(write: Write) -> None:
    ledgers = read_ledgers([write(first, "a"), write(second, "b", LATER)])
    assert ledgers.valid
    assert codes(ledgers) == []
    berlin, oslo = accounts(ledgers)
    for account in (berlin, oslo):
        assert account.epsilon == epsilon([*FIRST.mechanisms(), *SECOND.mechanisms()], 1e-5)
        assert account.epsilon < sum(plan.epsilon_alone for plan in account.plans)
        assert account.ledgers == (1, 2)
        assert [plan.name for plan in account.plans] == ["demo", "second"]
        assert account.plans[1].epsilon_alone == epsilon(SECOND.mechanisms(), 1e-5)
        # Every number names the entry and the ledger it is from.
        by_number = {reading.number: reading for reading in ledgers.readings}
        for place, mechanism in zip(account.entries, account.mechanisms, strict=True):
            signed = by_number[place.ledger].entry(place.entry)
            assert (signed.kind, signed.actor) == ("spend-reserved", account.site)
            assert signed.body.model_dump()["mechanism"] == mechanism.model_dump()
        assert [point.epsilon for point in account.course] == sorted(point.epsilon for point in account.course)
        assert account.course[-1].epsilon == account.epsilon


def test_the_order_between_ledgers_is_that_of_the_sites_clock_and_changes_no_total(write: Write) -> None:
    early, late = write(first, "a"), write(second, "b", LATER)
    forward, backward = accounts(read_ledgers([early, late])), accounts(read_ledgers([late, early]))
    for one, other in zip(forward, backward, strict=True):
        assert [place.ledger for place in one.entries] == [1] * 3 + [2] * 2
        assert [place.ledger for place in other.entries] == [2] * 3 + [1] * 2
        assert [place.entry for place in one.entries] == [place.entry for place in other.entries]
        assert (one.epsilon, one.delta, one.budget) == (other.epsilon, other.delta, other.budget)


def test_trainings_at_the_same_time_are_interleaved(write: Write) -> None:
    account = accounts(read_ledgers([write(first, "a"), write(second, "b", timedelta(minutes=30))]))[0]
    assert account.entries != tuple(sorted(account.entries))
    times = [point.time for point in account.course]
    assert times == sorted(times)


def test_a_clock_that_was_put_back_does_not_change_the_order_of_a_ledger(write: Write) -> None:
    def turned() -> Story:
        story = Story(FIRST).opening()
        story.round(0)
        with mock.patch("tests.ledger.story.START", START - timedelta(days=60)):
            story.round(1)
        story.round(2)
        return story

    (account, _) = accounts(read_ledgers([write(turned, "a"), write(second, "b", timedelta(days=-30))]))
    own = [place.entry for place in account.entries if place.ledger == 1]
    assert own == sorted(own)
    assert len(account.entries) == 5


def test_a_budget_is_overrun_by_two_ledgers_of_which_each_keeps_to_it(write: Write) -> None:
    alone = [epsilon(plan.mechanisms(), 1e-5) for plan in (FIRST, SECOND)]
    both = epsilon([*FIRST.mechanisms(), *SECOND.mechanisms()], 1e-5)
    limit = f"{(max(alone) + both) / 2:.4f}"
    a = write(lambda: Story(FIRST, limit).whole(), "a")
    b = write(lambda: Story(SECOND, limit).whole(), "b", LATER)
    assert read_ledgers([a]).valid
    assert read_ledgers([b]).valid
    ledgers = read_ledgers([a, b])
    assert not ledgers.valid
    assert all(reading.report.valid for reading in ledgers.readings)
    assert [code for _, code in codes(ledgers)] == ["budget-exceeded"] * 2
    for account, found in zip(accounts(ledgers), ledgers.findings, strict=True):
        assert account.exceeded
        # It names the first reservation with which the composition was beyond the budget.
        place = Place(found.ledger, found.finding.entry or 0)
        count = account.entries.index(place) + 1
        assert (
            epsilon(account.mechanisms[:count], 1e-5) > float(limit) >= epsilon(account.mechanisms[: count - 1], 1e-5)
        )
        assert place.ledger == 2
        assert "over all ledgers" in found.finding.explanation


def test_different_budgets_of_one_data_set_are_found_and_the_latest_holds(write: Write) -> None:
    a, b = write(first, "a"), write(lambda: second("4"), "b", LATER)
    for given, number in (([a, b], 2), ([b, a], 1)):
        ledgers = read_ledgers(given)
        assert ledgers.valid
        assert codes(ledgers) == [(0, "budgets-differ")] * 2
        assert all(account.budget == 4 for account in accounts(ledgers))
        for found in ledgers.findings:
            for part in ("epsilon 3 at delta", "epsilon 4 at delta", f"of ledger {number}"):
                assert part in found.finding.explanation
    # Known in both ledgers, a change is no difference.

    def told() -> Story:
        story = first()
        for site in ("berlin", "oslo"):
            story.change_budget(site, "4")
        return story

    assert codes(read_ledgers([write(told, "c"), b])) == []


def test_a_budget_that_was_lowered_holds_from_then_on(write: Write) -> None:
    both = epsilon([*FIRST.mechanisms(), *SECOND.mechanisms()], 1e-5)
    lower = f"{both * 0.9:.4f}"
    ledgers = read_ledgers([write(first, "a"), write(lambda: Story(SECOND, lower).whole(), "b", LATER)])
    assert {code for _, code in codes(ledgers)} == {"budgets-differ", "budget-exceeded"}
    # The other way round everything was spent before it was lowered, and the raise came first.
    ledgers = read_ledgers([write(first, "c", LATER), write(lambda: Story(SECOND, lower).whole(), "d")])
    assert {code for _, code in codes(ledgers)} == {"budgets-differ"}


def test_a_ledger_given_twice_counts_once_and_is_said(write: Write, tmp_path: Path) -> None:
    def begun() -> Story:
        story = first()
        story.entries = story.entries[:12]
        return story

    whole, short, other = write(first, "whole"), write(begun, "short"), write(second, "other", LATER)
    for given, copies in (
        ([whole, whole], [(2, 1)]),
        ([short, whole], [(1, 2)]),
        ([whole, short, short, other], [(2, 1), (3, 1)]),
    ):
        ledgers = read_ledgers(given)
        assert ledgers.valid
        assert sorted((each.number, each.of) for each in ledgers.repeats) == copies
        assert codes(ledgers) == []
        expected = [*FIRST.mechanisms(), *(SECOND.mechanisms() if other in given else [])]
        assert [account.epsilon for account in accounts(ledgers)] == [epsilon(expected, 1e-5)] * 2


def test_a_newer_checkpoint_takes_nothing_from_an_older_copy(write: Write) -> None:
    def begun() -> Story:
        story = first()
        story.entries = story.entries[:12]
        return story

    short, whole = write(begun, "short"), write(first, "whole")
    note = parse_note(Ledger.open(whole).checkpoint())
    assert not read_ledgers([short], seen=[note]).valid
    ledgers = read_ledgers([short, whole], seen=[note])
    assert ledgers.valid
    assert [(reading.number, reading.seen) for reading in ledgers.readings] == [(2, 1)]
    assert [(each.number, each.of) for each in ledgers.repeats] == [(1, 2)]


def test_a_damaged_copy_is_shown_and_what_both_hold_counts_once(write: Write, tmp_path: Path) -> None:
    whole, copy = write(first, "whole"), write(first, "copy")
    (bundle,) = [path for path in (copy / "tile" / "entries").rglob("*") if path.is_file()]
    content = bundle.read_bytes()
    bundle.write_bytes(content.replace(b"admissions", b"admissionz", 1))
    ledgers = read_ledgers([whole, copy])
    assert not ledgers.valid
    assert [reading.report.valid for reading in ledgers.readings] == [True, False]
    assert ledgers.repeats == ()
    account = next(each for each in accounts(ledgers) if each.dataset == "admissions")
    assert account.epsilon == epsilon(FIRST.mechanisms(), 1e-5)
    assert {place.ledger for place in account.entries} == {1}


def test_two_histories_of_one_origin_are_a_fork_and_both_count(write: Write) -> None:
    def forked() -> Story:
        story = first()
        story.entries = story.entries[:12]
        story.reserve("berlin", 2)
        return story

    ledgers = read_ledgers([write(first, "a"), write(forked, "b")])
    assert codes(ledgers)[0] == (0, "fork")
    assert not ledgers.valid
    berlin = next(each for each in accounts(ledgers) if each.site == "berlin")
    by = [[place.entry for place in berlin.entries if place.ledger == number] for number in (1, 2)]
    assert len(by[0]) == 3
    assert by[1] == [12]
    assert berlin.epsilon == epsilon([*FIRST.mechanisms(), FIRST.mechanism(2)], 1e-5)


def stranger(name: str) -> SigningKey:
    """Keys of another hospital that calls itself like one of ours."""
    return key_of(f"another {name}" if name == "oslo" else name)


def of_another_oslo() -> Story:
    with mock.patch("tests.ledger.story.key_of", stranger):
        plan = make_plan(rounds=1, name="second", noise="2", minimum_sites=1)
        return Story(plan).whole()


def test_the_same_name_with_another_key_is_another_site(write: Write) -> None:
    a, b = write(first, "a"), write(of_another_oslo, "b", LATER, key_of=stranger)
    ledgers = read_ledgers([a, b])
    assert ledgers.valid
    assert codes(ledgers) == [(0, "site-key-differs")]
    explanation = ledgers.findings[0].finding.explanation
    assert "2 sites" in explanation
    berlin, *oslos = accounts(ledgers)
    assert berlin.ledgers == (1, 2)
    assert [account.ledgers for account in oslos] == [(1,), (2,)]
    assert [account.epsilon for account in oslos] == [
        epsilon(FIRST.mechanisms(), 1e-5),
        epsilon(SECOND.mechanisms(), 1e-5),
    ]
    for account, key in zip(oslos, (key_of("oslo"), stranger("oslo")), strict=True):
        assert account.site == f"oslo [key {key.public_text[:8]}]"
        assert account.site in explanation


def test_an_auditor_who_knows_both_keys_joins_them(write: Write) -> None:
    a, b = write(first, "a"), write(of_another_oslo, "b", LATER, key_of=stranger)
    keys = [key.public_text for key in (key_of("oslo"), stranger("oslo"))]
    ledgers = read_ledgers([a, b], site_keys={"oslo": keys})
    assert ledgers.valid
    assert codes(ledgers) == []
    assert all("oslo" in reading.pinned for reading in ledgers.readings)
    assert [(account.site, account.ledgers) for account in accounts(ledgers)] == [("berlin", (1, 2)), ("oslo", (1, 2))]
    # One of them is not the key in the other ledger, and says so there.
    ledgers = read_ledgers([a, b], site_keys={"oslo": keys[:1]})
    assert [found.ledger for found in ledgers.all_findings() if found.finding.code == "site-key-unexpected"] == [2]


def test_a_rotation_in_one_ledger_links_the_keys_of_both(write: Write) -> None:
    def rotated() -> Story:
        story = Story(FIRST).opening()
        story.round(0)
        story.rotate("oslo", stranger("oslo"))
        for number in (1, 2):
            story.round(number)
        story.close(2)
        return story

    ledgers = read_ledgers([write(rotated, "a"), write(of_another_oslo, "b", LATER, key_of=stranger)])
    assert codes(ledgers) == []
    assert [(account.site, account.ledgers) for account in accounts(ledgers)] == [("berlin", (1, 2)), ("oslo", (1, 2))]


def test_who_writes_in_a_sites_name_does_not_become_it_by_a_rotation_to_its_key(write: Write) -> None:
    real = key_of("oslo")

    def forged() -> Story:
        story = of_another_oslo()
        story.rotate("oslo", real)
        return story

    a, b = write(first, "a"), write(forged, "b", LATER, key_of=stranger)
    ledgers = read_ledgers([a, b], site_keys={"oslo": [real.public_text]})
    found = [(each.ledger, each.finding.code) for each in ledgers.all_findings()]
    assert (2, "site-key-unexpected") in found
    assert not ledgers.valid
    assert [account.ledgers for account in accounts(ledgers)] == [(1, 2), (1,), (2,)]


def test_another_name_of_a_data_set_is_another_data_set(write: Write) -> None:
    ledgers = read_ledgers([write(first, "a"), write(second, "b", LATER, DATASET="wards")])
    assert codes(ledgers) == []
    assert [(each.site, each.dataset, each.ledgers) for each in accounts(ledgers)] == [
        ("berlin", "admissions", (1,)),
        ("berlin", "wards", (2,)),
        ("oslo", "admissions", (1,)),
        ("oslo", "wards", (2,)),
    ]


def test_keys_and_checkpoints_are_held_against_the_ledgers_they_are_of(write: Write) -> None:
    a, b = write(first, "a"), write(second, "b", LATER)
    notes = [parse_note(Ledger.open(folder).checkpoint()) for folder in (a, b)]
    coordinator = key_of(COORDINATOR).public_text
    ledgers = read_ledgers([a, b], coordinator_keys=[key_of("x").public_text, coordinator], seen=notes)
    assert ledgers.valid
    assert [reading.seen for reading in ledgers.readings] == [1, 1]
    assert all(COORDINATOR in reading.pinned for reading in ledgers.readings)
    wrong = read_ledgers([a, b], coordinator_keys=[key_of("x").public_text])
    assert [found.ledger for found in wrong.all_findings() if found.finding.code == "coordinator-unexpected"] == [1, 2]
    # What is of none of them is told once.
    foreign = parse_note(Ledger.open(write(lambda: Story(make_plan(name="third")).opening(), "c")).checkpoint())
    absent = {"paris": [key_of("paris").public_text]}
    ledgers = read_ledgers([a, b], seen=[foreign], site_keys=absent)
    found = [(each.ledger, each.finding.code) for each in ledgers.all_findings()]
    assert found == [(1, "site-key-unexpected"), (1, "seen-foreign")]


def test_one_ledger_has_no_number(write: Write) -> None:
    ledgers = read_ledgers([write(first, "a")])
    assert [reading.number for reading in ledgers.readings] == [0]
    assert {place.ledger for account in accounts(ledgers) for place in account.entries} == {0}


def test_many_mechanisms_over_all_ledgers_are_said(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synclave_shared.audit.ledgers.MAX_GRID_DISTINCT", 2)
    ledgers = read_ledgers([write(first, "a"), write(second, "b", LATER)])
    assert codes(ledgers) == [(0, "accountants-skipped")] * 2
    assert ledgers.valid


def test_all_is_composed_at_the_delta_of_the_budget_that_holds(write: Write) -> None:
    def strict() -> Story:
        story = Story(SECOND)
        story.budget = Budget(epsilon=Decimal(3), delta=Decimal("0.000001"))
        return story.whole()

    ledgers = read_ledgers([write(first, "a"), write(strict, "b", LATER)])
    assert [account.delta for account in accounts(ledgers)] == [1e-6] * 2
    assert ledgers.findings[0].finding.explanation.count("delta 0.000001") == 1


def test_a_larger_delta_stated_later_makes_nothing_cheaper(write: Write) -> None:
    loose = SECOND.model_copy(update={"privacy": SECOND.privacy.model_copy(update={"delta": Decimal("0.1")})})
    both = epsilon([*FIRST.mechanisms(), *SECOND.mechanisms()], 1e-5)
    limit = f"{both * 0.95:.4f}"

    def later() -> Story:
        story = Story(loose)
        story.budget = Budget(epsilon=Decimal(limit), delta=Decimal("0.1"))
        return story.whole()

    ledgers = read_ledgers([write(lambda: Story(FIRST, limit).whole(), "a"), write(later, "b", LATER)])
    assert [(account.delta, account.epsilon) for account in accounts(ledgers)] == [(1e-5, pytest.approx(both))] * 2
    assert all(account.exceeded for account in accounts(ledgers))
    assert codes(ledgers).count((2, "budget-exceeded")) == 2
    assert not ledgers.valid
