"""The rules between entries: each is broken once, by properly signed entries, and named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from synclave_shared.canonical import canonical_bytes, sha256_hex
from synclave_shared.ledger import store
from synclave_shared.ledger.entry import (
    COORDINATOR,
    KeyRegistered,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    UpdateReleased,
)
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import VerifyReport, verify_ledger
from synclave_shared.plan import signed_plan_bytes
from synclave_shared.privacy import cross_check
from synclave_shared.privacy.accountant import epsilon, epsilon_rdp
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import GaussianSum
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
    monkeypatch.setattr(store, "parse_entry", lambda _: story.entries[0])
    ledger.append([content])
    report = verify_ledger(tmp_path)
    assert codes(report) == {("entry-malformed", len(story.entries))}


def sign_as(actor: str, kind: str, run: str, body: dict[str, object]) -> dict[str, object]:
    """An entry that our own types would not let anybody make."""
    key = key_of(actor)
    fields = {"version": 1, "kind": kind, "actor": actor, "run": run, "time": "2026-11-21T08:00:00Z"}
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


def test_the_same_entry_twice_counts_once(tmp_path: Path) -> None:
    story = begun()
    whole = report_of(story, tmp_path / "once")
    story.entries += [entry for entry in story.entries if entry.kind in {"spend-reserved", "key-registered"}]
    again = report_of(story, tmp_path / "twice")
    assert again.valid
    assert {code for code, _ in codes(again, "warning")} == {"entry-repeated", "unwitnessed"}
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
