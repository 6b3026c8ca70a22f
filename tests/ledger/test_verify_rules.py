"""The rules between entries: each is broken once, by properly signed entries, and named."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from synclave_shared.canonical import canonical_bytes, sha256_hex
from synclave_shared.ledger.entry import (
    COORDINATOR,
    KeyRegistered,
    KeyRotated,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    SignedEntry,
    UpdateReleased,
)
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import VerifyReport, verify_ledger
from synclave_shared.plan import signed_plan_bytes
from synclave_shared.privacy import cross_check
from synclave_shared.privacy.accountant import epsilon, epsilon_rdp
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from tests.ledger.story import DATASET, SITES, Story, key_of, make_plan

OTHER_KEY = SigningKey.from_seed(b"k" * 32)
NO_NOISE = GaussianSum(noise_multiplier=Decimal("0.5"), clip_norm=Decimal(5))


def report_of(story: Story, folder: Path) -> VerifyReport:
    story.write(folder, witnessed=False)
    return verify_ledger(folder)


def codes(report: VerifyReport, severity: str = "error") -> set[tuple[str, int | None]]:
    return {(finding.code, finding.entry) for finding in report.findings if finding.severity == severity}


def accept_otherwise(story: Story) -> None:
    body = PlanAccepted(
        plan_digest=story.plan.digest, dataset=DATASET, budget=story.budget, planned=(NO_NOISE,), versions={}
    )
    story.tell("plan-accepted", "berlin", body)


def propose_badly(story: Story, **changes: object) -> None:
    plan = make_plan(name="second")
    signature = key_of(COORDINATOR).sign_text(signed_plan_bytes(plan.to_bytes()))
    body = PlanProposed(plan=plan.model_dump(mode="json"), plan_digest=plan.digest, signature=signature)
    body = body.model_copy(update=changes)
    story.tell("plan-proposed", COORDINATOR, body, run=body.plan_digest)


def propose_foreign(story: Story) -> None:
    plan = make_plan(name="second").model_copy(update={"coordinator_key": OTHER_KEY.public_text})
    body = PlanProposed(
        plan=plan.model_dump(mode="json"),
        plan_digest=plan.digest,
        signature=OTHER_KEY.sign_text(signed_plan_bytes(plan.to_bytes())),
    )
    story.tell("plan-proposed", COORDINATOR, body, run=plan.digest)


def accept_at_a_large_delta(story: Story) -> None:
    plan = make_plan(name="second")
    body = PlanAccepted(
        plan_digest=plan.digest,
        dataset=DATASET,
        budget=Budget(epsilon=Decimal(3), delta=Decimal("0.00002")),
        planned=tuple(plan.mechanisms()),
        versions={},
    )
    propose_badly(story)
    story.tell("plan-accepted", "berlin", body, run=plan.digest)


def release(story: Story, site: str, number: int, **how: object) -> None:
    body = UpdateReleased(plan_digest=story.plan.digest, round=number, update_digest=sha256_hex(b"x"))
    story.tell("update-released", site, body, **how)  # type: ignore[arg-type]


def release_after(story: Story, previous: str) -> None:
    story.reserve("berlin", 2)
    release(story, "berlin", 2, previous=previous)


def rotated(name: str, key: SigningKey = OTHER_KEY) -> KeyRotated:
    return KeyRotated(name=name, public_key=key.public_text)


def register(story: Story, name: str, role: str, key: SigningKey, actor: str | None = None) -> None:
    body = KeyRegistered(name=name, role=role, public_key=key.public_text)
    story.tell("key-registered", actor or name, body, run="", key=key)


BREACHES: dict[str, Callable[[Story], object]] = {
    "key-unknown": lambda s: release(s, "berlin", 0, key=OTHER_KEY),
    "key-conflict": lambda s: register(s, "berlin", "site", OTHER_KEY),
    "key-conflict ": lambda s: register(s, "second", "coordinator", OTHER_KEY),
    "key-conflict  ": lambda s: register(s, "berlin", "coordinator", key_of("berlin")),
    "registration-wrong": lambda s: register(s, "berlin", "site", key_of("oslo"), actor="oslo"),
    "role-wrong": lambda s: s.tell("aggregate", "berlin", s.entries[-2].body),
    "role-wrong ": lambda s: s.tell("update-released", COORDINATOR, s.entries[-3].body),
    "run-wrong": lambda s: release(s, "berlin", 0, run="1" * 64),
    "plan-unknown": lambda s: s.tell(
        "plan-refused", "berlin", PlanRefused(plan_digest="2" * 64, refusal="paused"), run="2" * 64
    ),
    "plan-malformed": lambda s: propose_badly(s, plan={"name": "x"}),
    "plan-digest-wrong": lambda s: propose_badly(s, plan_digest="3" * 64),
    "plan-signature-wrong": lambda s: propose_badly(s, signature=OTHER_KEY.sign_text(b"plan")),
    "plan-signature-wrong  ": lambda s: propose_badly(
        s, signature=key_of(COORDINATOR).sign_text(make_plan(name="second").to_bytes())
    ),
    "plan-signature-wrong ": propose_foreign,
    "not-in-roster": lambda s: (register(s, "paris", "site", key_of("paris")), s.accept("paris")),
    "planned-wrong": accept_otherwise,
    "delta-above-plan": accept_at_a_large_delta,
    "delta-above-plan ": lambda s: s.reserve("berlin", 2, delta=Decimal("0.1")),
    "acceptance-repeated": lambda s: s.accept("berlin"),
    "not-accepted": lambda s: (register(s, "paris", "site", key_of("paris")), s.reserve("paris", 1)),
    "dataset-wrong": lambda s: s.reserve("berlin", 2, dataset="another"),
    "delta-wrong": lambda s: s.reserve("berlin", 2, delta=Decimal("0.1")),
    "mechanism-wrong": lambda s: s.reserve("berlin", 2, mechanism=NO_NOISE),
    "round-wrong": lambda s: s.reserve("berlin", 9),
    "reservation-repeated": lambda s: s.reserve("berlin", 1),
    "release-unreserved": lambda s: release(s, "berlin", 2),
    "release-repeated": lambda s: s.release("berlin", 1, b"another"),
    "aggregate-unreleased": lambda s: s.aggregate(2),
    "aggregate-sites-wrong": lambda s: s.aggregate(1, ("berlin", "oslo", "oslo")),
    "cohort-too-small": lambda s: s.aggregate(1, ("berlin",)),
    "aggregate-repeated": lambda s: s.aggregate(1),
    "rotation-wrong": lambda s: s.tell("key-rotated", "berlin", rotated("oslo"), run=""),
    "rotation-wrong ": lambda s: s.tell("key-rotated", "berlin", rotated("berlin", key_of("berlin")), run=""),
    "role-wrong  ": lambda s: s.tell("key-rotated", COORDINATOR, rotated(COORDINATOR), run=""),
    "key-retired": lambda s: (s.rotate("berlin", OTHER_KEY), release(s, "berlin", 2, key=key_of("berlin"))),
    "key-expired": lambda s: (s.rotate("berlin", OTHER_KEY, "2026-11-21T09:00:00Z"), s.reserve("berlin", 2)),
    "previous-missing": lambda s: release_after(s, "1" * 64),
    "previous-superseded": lambda s: release_after(s, s.entries[3].leaf),
    "previous-superseded ": lambda s: release_after(s, ""),
    "entry-repeated": lambda s: s.entries.append(s.entries[-1]),
    "snapshot-unknown": lambda s: s.sample(b"another model"),
    "delta-above-plan  ": lambda s: s.change_budget("berlin", "3", delta="0.00002"),
    "dataset-wrong ": lambda s: s.change_budget("berlin", "3", dataset="another"),
    "delta-wrong ": lambda s: (
        s.change_budget("berlin", "2", "0.000001"),
        s.reserve("berlin", 2, delta=Decimal("0.00001")),
    ),
    "snapshot-early": lambda s: s.snapshot(2),
    "close-wrong": lambda s: s.close(2),
    "close-wrong ": lambda s: s.close(77),
    "close-repeated": lambda s: (s.close(1), s.close(1)),
}


def begun() -> Story:
    """A training that stands after its first round."""
    story = Story().opening()
    story.round(0)
    story.round(1)
    return story


def test_a_training_that_is_not_finished_is_valid(tmp_path: Path) -> None:
    story = begun()
    story.reserve("berlin", 2)
    report = report_of(story, tmp_path)
    assert report.valid
    assert codes(report, "warning") == {("unwitnessed", None)}
    assert not report.plans[0].closed


@pytest.mark.parametrize("code", BREACHES)
def test_a_broken_rule_is_named_with_its_entry(tmp_path: Path, code: str) -> None:
    story = begun()
    BREACHES[code](story)
    report = report_of(story, tmp_path)
    assert not report.valid
    assert (code.strip(), len(story.entries) - 1) in codes(report)
    assert all(entry == len(story.entries) - 1 for _, entry in codes(report))


@pytest.mark.parametrize("kind", ["plan-accepted", "spend-reserved"])
@pytest.mark.parametrize("delta", ["0.11", "0.99", "0." + 30 * "9"])
def test_a_delta_that_promises_nothing_is_a_malformed_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, delta: str
) -> None:
    story = begun()
    body = next(entry.body for entry in story.entries if entry.kind == kind and entry.actor == "berlin")
    fields = body.model_dump(mode="json")
    (fields["budget"] if kind == "plan-accepted" else fields)["delta"] = delta
    content = canonical_bytes(sign_as("berlin", kind, story.plan.digest, fields))
    ledger = story.write(tmp_path, witnessed=False)
    # The operator who writes it is the adversary here, and asks nobody.
    monkeypatch.setattr(ledger, "_reader", SimpleNamespace(read=lambda _: story.entries[0]))
    monkeypatch.setattr(SignedEntry, "is_signed", lambda *_: True)
    ledger.append([content])
    report = verify_ledger(tmp_path)
    assert codes(report) == {("entry-malformed", len(story.entries))}


def sign_as(actor: str, kind: str, run: str, body: dict[str, object]) -> dict[str, object]:
    """An entry that our own types would not let anybody make."""
    key = key_of(actor)
    fields = {"version": 1, "kind": kind, "actor": actor, "run": run, "previous": "", "time": "2026-11-21T08:00:00Z"}
    entry: dict[str, object] = {**fields, "body": body, "key": key.public_text}
    return {**entry, "signature": key.sign_text(b"synclave-entry/v1\n" + canonical_bytes(entry))}


def test_a_spend_after_the_end_counts_and_is_shown(tmp_path: Path) -> None:
    story = begun()
    before = report_of(story, tmp_path / "before").sites["berlin"].epsilon
    story.close(1)
    story.reserve("berlin", 2)
    report = report_of(story, tmp_path / "after")
    assert ("spend-after-close", len(story.entries) - 1) in codes(report, "warning")
    assert report.valid
    assert report.sites["berlin"].epsilon > before


def test_the_same_entry_twice_counts_once_and_is_no_valid_ledger(tmp_path: Path) -> None:
    story = begun()
    whole = report_of(story, tmp_path / "once")
    story.entries += [entry for entry in story.entries if entry.kind in {"spend-reserved", "key-registered"}]
    again = report_of(story, tmp_path / "twice")
    assert not again.valid
    assert {code for code, _ in codes(again)} == {"entry-repeated"}
    assert again.sites == whole.sites


def test_epsilon_is_that_of_everything_reserved(tmp_path: Path) -> None:
    story = Story().whole()
    story.write(tmp_path)
    report = verify_ledger(tmp_path)
    mechanisms = story.plan.mechanisms()
    for site in SITES:
        spent = report.sites[site]
        assert spent.epsilon == pytest.approx(epsilon(mechanisms, 1e-5))
        assert spent.epsilon_rdp == pytest.approx(epsilon_rdp(mechanisms, 1e-5))
        assert (spent.delta, spent.dataset, spent.budget_epsilon, spent.spends) == (1e-5, DATASET, 3.0, 3)
        assert spent.witnessed_size == len(story.entries)
    assert (report.plans[0].accepted_by, report.plans[0].rounds_combined) == (SITES, 3)


def test_accountants_that_contradict_each_other_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story().whole()
    story.write(tmp_path)
    right = cross_check.bounds(story.plan.mechanisms(), 1e-5)
    wrong = dataclasses.replace(right, by_distribution=0.5 * right.by_distribution)
    monkeypatch.setattr(cross_check, "bounds", lambda mechanisms, delta: wrong)
    report = verify_ledger(tmp_path)
    assert codes(report) == {("accountants-disagree", None)}
    assert len(report.findings) == len(SITES)


def test_many_different_mechanisms_are_bounded_in_seconds_and_that_is_said(tmp_path: Path) -> None:
    story = begun()
    for number in range(100):
        mechanism = PoissonGaussian(
            noise_multiplier=Decimal(3000 + number), clip_norm=Decimal(1), selection_rate=Decimal("0.5"), steps=1000
        )
        story.reserve("berlin", 1, mechanism=mechanism)
    begins = time.monotonic()
    report = report_of(story, tmp_path)
    assert time.monotonic() - begins < 60
    assert "accountants-skipped" in {finding.code for finding in report.findings}
    berlin = report.sites["berlin"]
    assert berlin.epsilon == pytest.approx(berlin.epsilon_rdp)


def test_a_reservation_that_was_never_released_is_spent(tmp_path: Path) -> None:
    story = begun()
    before = report_of(story, tmp_path / "before").sites["berlin"]
    story.reserve("berlin", 2)
    after = report_of(story, tmp_path / "after")
    assert after.sites["berlin"].epsilon > before.epsilon
    assert after.sites["oslo"].epsilon == before.epsilon


def test_a_second_plan_on_the_same_data_is_composed_with_the_first(tmp_path: Path) -> None:
    story = Story().whole()
    first = story.plan
    story.plan = make_plan(name="second", noise="0.9")
    story.propose()
    for site in SITES:
        story.accept(site)
    story.round(0)
    story.round(1)
    second = story.plan
    story.plan = first
    report = report_of(story, tmp_path)
    assert report.valid
    expected = epsilon([*first.mechanisms(), *second.mechanisms()[:2]], 1e-5)
    assert report.sites["oslo"].epsilon == pytest.approx(expected)
    assert [plan.name for plan in report.plans] == ["demo", "second"]


def test_an_exceeded_budget_names_the_reservation_that_exceeded_it(tmp_path: Path) -> None:
    allowed = epsilon(make_plan().mechanisms()[:2], 1e-5)
    story = Story(epsilon=f"{allowed + 0.001:.3f}").whole()
    report = report_of(story, tmp_path)
    expected = {
        ("budget-exceeded", index)
        for index, entry in enumerate(story.entries)
        if entry.kind == "spend-reserved" and getattr(entry.body, "round", 0) == 2
    }
    assert codes(report) == expected
    assert len(expected) == 2


def test_each_reservation_is_held_against_the_budget_of_its_time(tmp_path: Path) -> None:
    allowed = epsilon(make_plan().mechanisms()[:2], 1e-5)
    lowered = begun()
    lowered.change_budget("berlin", f"{allowed / 2:.3f}")
    report = report_of(lowered, tmp_path / "lowered")
    assert report.valid
    assert report.sites["berlin"].budget_epsilon == pytest.approx(allowed / 2, abs=0.001)
    lowered.reserve("berlin", 2)
    assert codes(report_of(lowered, tmp_path / "spent")) == {("budget-exceeded", len(lowered.entries) - 1)}
    raised = Story(epsilon=f"{allowed - 0.01:.3f}").opening()
    raised.round(0)
    beyond = raised.reserve("berlin", 1)
    raised.change_budget("berlin", "3")
    raised.reserve("berlin", 2)
    found = codes(report_of(raised, tmp_path / "raised"))
    assert found == {("budget-exceeded", raised.entries.index(beyond))}


def test_a_site_goes_on_under_the_key_that_replaced_its_first(tmp_path: Path) -> None:
    story = begun()
    story.rotate("berlin", OTHER_KEY, "2027-11-21T08:00:00Z")
    story.round(2)
    story.close(2)
    report = report_of(story, tmp_path)
    assert report.valid
    assert report.sites["berlin"].public_key == OTHER_KEY.public_text
    assert report.sites["berlin"].spends == 3


def test_a_key_signs_until_its_last_moment(tmp_path: Path) -> None:
    story = Story()
    story.register(COORDINATOR, "coordinator")
    story.register("berlin", "site", not_after="2026-11-21T11:00:00Z")
    story.propose()
    story.accept("berlin")
    assert report_of(story, tmp_path / "in-time").valid
    story.reserve("berlin", 0)
    assert codes(report_of(story, tmp_path / "late")) == {("key-expired", 4)}


@pytest.mark.parametrize("kind", ["plan-accepted", "spend-reserved", "update-released"])
def test_an_entry_that_a_site_signed_cannot_be_left_out(tmp_path: Path, kind: str) -> None:
    story = begun()
    place = next(i for i, entry in enumerate(story.entries) if entry.kind == kind and entry.actor == "berlin")
    del story.entries[place]
    following = next(i for i, entry in enumerate(story.entries) if i >= place and entry.actor == "berlin")
    assert ("previous-missing", following) in codes(report_of(story, tmp_path))


def test_entries_of_a_site_cannot_change_places(tmp_path: Path) -> None:
    story = begun()
    places = [i for i, entry in enumerate(story.entries) if entry.actor == "berlin" and i > 8]
    first, second = places[:2]
    story.entries[first], story.entries[second] = story.entries[second], story.entries[first]
    found = codes(report_of(story, tmp_path))
    assert {("previous-missing", first), ("previous-superseded", second)} <= found


def test_a_site_that_only_refused_has_spent_nothing(tmp_path: Path) -> None:
    story = Story()
    story.register(COORDINATOR, "coordinator")
    story.propose()
    story.register("berlin", "site")
    body = PlanRefused(plan_digest=story.plan.digest, refusal="budget-exceeded")
    story.tell("plan-refused", "berlin", body)
    report = report_of(story, tmp_path)
    assert report.valid
    spent = report.sites["berlin"]
    assert (spent.epsilon, spent.dataset, spent.spends, spent.datasets) == (0.0, None, 0, ())


def test_data_sets_are_accounted_apart_and_the_worst_is_shown(tmp_path: Path) -> None:
    story = begun()
    story.reserve("berlin", 2, dataset="another")
    report = report_of(story, tmp_path)
    berlin = report.sites["berlin"]
    assert {each.dataset for each in berlin.datasets} == {DATASET, "another"}
    assert berlin.epsilon == max(each.epsilon for each in berlin.datasets)
    everything = [*story.plan.mechanisms()[:2], story.plan.mechanism(2)]
    assert berlin.epsilon_all_datasets == pytest.approx(epsilon(everything, 1e-5))
    assert berlin.epsilon_all_datasets > berlin.epsilon


def test_a_ledger_without_a_coordinator_is_not_valid(tmp_path: Path) -> None:
    story = Story()
    story.register("berlin", "site")
    report = report_of(story, tmp_path)
    assert ("coordinator-unknown", None) in codes(report)
