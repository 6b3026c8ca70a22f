from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path

import pytest

from synclave_shared.audit import spends
from synclave_shared.audit.claims import all_datasets, several_sites
from synclave_shared.audit.ledgers import Ledgers, read_ledgers
from synclave_shared.audit.reading import Place, Reading
from synclave_shared.audit.spends import Account, accounts, course
from synclave_shared.audit.words import listed, ranges, small
from synclave_shared.privacy.accountant import epsilon, epsilon_rdp
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from tests.audit.ledgers import FIRST, SECOND, written
from tests.ledger.story import Story

STEP = PoissonGaussian(noise_multiplier=Decimal(1), clip_norm=Decimal(1), selection_rate=Decimal("0.02"), steps=5)
SUM = GaussianSum(noise_multiplier=Decimal(10), clip_norm=Decimal(5))


@pytest.fixture(scope="module")
def found(ledgers: Ledgers) -> list[Account]:
    return accounts(ledgers)


def test_totals_are_those_of_the_verdict(reading: Reading, found: list[Account]) -> None:
    assert [account.site for account in found] == ["berlin", "oslo"]
    for account in found:
        report = reading.report.sites[account.site]
        assert (account.epsilon, account.delta, account.budget) == (report.epsilon, report.delta, report.budget_epsilon)
        assert account.check.rdp == pytest.approx(report.epsilon_rdp)
        assert not account.exceeded
        assert account.left == pytest.approx((account.budget or 0) - account.epsilon)


def test_each_plan_is_charged_with_its_own_reservations(found: list[Account]) -> None:
    berlin, oslo = found
    first, second = FIRST.mechanisms(), SECOND.mechanisms()
    assert [plan.name for plan in berlin.plans] == ["demo", "second"]
    assert berlin.plans[0].epsilon_alone == epsilon(first, 1e-5)
    assert berlin.plans[0].epsilon_after == pytest.approx(epsilon(first, 1e-5), rel=1e-6)
    assert berlin.plans[1].epsilon_alone == epsilon(second, 1e-5)
    assert berlin.plans[1].epsilon_after == berlin.epsilon == epsilon([*first, *second], 1e-5)
    # Composing is not adding.
    assert berlin.epsilon < sum(plan.epsilon_alone for plan in berlin.plans)
    assert [entry for plan in berlin.plans for entry in plan.entries] == list(berlin.entries)
    assert oslo.epsilon == epsilon(first, 1e-5)


def test_every_number_names_the_entries_it_is_of(reading: Reading, found: list[Account]) -> None:
    for account in found:
        for entry, mechanism in zip(account.entries, account.mechanisms, strict=True):
            signed = reading.entry(entry.entry)
            assert (signed.kind, signed.actor) == ("spend-reserved", account.site)
            assert signed.body.model_dump()["mechanism"] == mechanism.model_dump()
        for stated in account.budgets:
            signed = reading.entry(stated.entry.entry)
            assert signed.kind in ("plan-accepted", "budget-changed")
            assert signed.body.model_dump()["budget"] == stated.budget.model_dump()
            assert sum(entry < stated.entry for entry in account.entries) == stated.before
    assert [float(stated.budget.epsilon) for stated in found[0].budgets] == [3, 4]


def test_epsilon_after_each_reservation(found: list[Account]) -> None:
    for account in found:
        assert [point.entry for point in account.course] == list(account.entries)
        for count, point in enumerate(account.course, start=1):
            done = account.mechanisms[:count]
            assert point.epsilon == pytest.approx(epsilon(done, account.delta), rel=1e-5)
            assert point.epsilon_rdp == pytest.approx(epsilon_rdp(done, account.delta), rel=1e-9)
            assert point.reservations == count


@pytest.mark.parametrize("length", [1, 6, 7, 8, 29])
def test_a_long_history_is_thinned_without_changing_a_value(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(spends, "MAX_POINTS", 7)
    history: list[PoissonGaussian | GaussianSum] = [SUM, *[STEP] * (length // 2), SUM, *[STEP] * length]
    history = history[:length]
    ends = {2, length} if length > 2 else set()
    points = course(history, 1e-5, ends)
    stops = [stop for stop, _ in points]
    assert min(length, 7) <= len(points) <= min(length, 8)
    assert stops == sorted(set(stops))
    assert stops[-1] == length
    assert ends <= set(stops)
    for stop, bound in points:
        assert bound.smaller == pytest.approx(epsilon(history[:stop], 1e-5), rel=2e-4)
        assert bound.by_divergence == pytest.approx(epsilon_rdp(history[:stop], 1e-5), rel=1e-9)


def test_a_ledger_in_which_nothing_was_spent(tmp_path: Path) -> None:
    found = accounts(read_ledgers([written(Story().opening(), tmp_path / "ledger")]))
    assert [(account.epsilon, account.course, account.entries) for account in found] == [(0.0, (), ())] * 2
    assert several_sites(found, 2) is None
    assert all_datasets(found, "berlin") is None


def test_what_breaks_a_rule_is_spent_all_the_same(tmp_path: Path) -> None:
    story = Story().opening()
    story.round(0)
    story.reserve("berlin", 0)
    ledgers = read_ledgers([written(story, tmp_path / "ledger")])
    reading = ledgers.readings[0]
    berlin = next(account for account in accounts(ledgers) if account.site == "berlin")
    assert not reading.report.valid
    assert len(berlin.entries) == 2
    assert berlin.epsilon == reading.report.sites["berlin"].epsilon


def test_a_patient_at_two_sites_loses_the_composition(found: list[Account]) -> None:
    both = several_sites(found, 2)
    assert both is not None
    assert both.epsilon == epsilon([*found[0].mechanisms, *found[1].mechanisms], 1e-5)
    assert set(both.entries) == {*found[0].entries, *found[1].entries}
    assert several_sites(found, 3) is None


def test_the_sites_that_spent_most_are_the_ones_stated(found: list[Account]) -> None:
    third = dataclasses.replace(found[1], site="paris", epsilon=0.01, mechanisms=(SUM,), entries=(Place(0, 99),))
    both = several_sites([third, *found], 2)
    assert both is not None
    assert both.sites == ("berlin", "oslo")
    another = dataclasses.replace(third, site="oslo", dataset="more")
    together = all_datasets([*found, another], "oslo")
    assert together is not None
    assert together.epsilon == epsilon([*found[1].mechanisms, SUM], 1e-5)


def test_sites_are_chosen_at_one_delta(found: list[Account]) -> None:
    def site(name: str, noise: str, delta: float) -> Account:
        mechanisms = (GaussianSum(noise_multiplier=Decimal(noise), clip_norm=Decimal(1)),)
        own = epsilon(mechanisms, delta)
        return dataclasses.replace(found[1], site=name, mechanisms=mechanisms, delta=delta, epsilon=own, entries=())

    # At its own delta, that of the third is the smallest; at a common one it is the largest.
    three = [site("a", "3", 1e-7), site("b", "3", 1e-7), site("c", "2.6", 1e-5)]
    assert three[2].epsilon < three[0].epsilon
    both = several_sites(three, 2)
    assert both is not None
    assert (both.sites, both.delta, both.every_choice) == (("a", "c"), 1e-7, True)
    assert both.epsilon == epsilon([*three[0].mechanisms, *three[2].mechanisms], 1e-7)


def test_every_choice_of_sites_is_composed_or_the_claim_is_dropped(
    found: list[Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = PoissonGaussian(
        noise_multiplier=Decimal("0.5"), clip_norm=Decimal(1), selection_rate=Decimal("0.01"), steps=1
    )
    done: dict[str, PoissonGaussian | GaussianSum] = {
        "a": rare,
        "b": rare,
        "c": SUM.model_copy(update={"noise_multiplier": Decimal("1.6")}),
        "d": SUM.model_copy(update={"noise_multiplier": Decimal("1.61")}),
    }
    sites = [dataclasses.replace(found[1], site=name, mechanisms=(each,), delta=1e-5) for name, each in done.items()]
    both = several_sites(sites, 2)
    assert both is not None
    pairs = [(first, second) for first in done for second in done if first < second]
    assert both.epsilon == max(epsilon([done[first], done[second]], 1e-5) for first, second in pairs)
    assert both.every_choice
    monkeypatch.setattr("synclave_shared.audit.claims.MAX_CHOICES", 3)
    ranked = several_sites(sites, 2)
    assert ranked is not None
    # Those with the largest epsilons of their own are stated: a choice, and said to be no more than that.
    own = {site.site: epsilon(site.mechanisms, 1e-5) for site in sites}
    first, second = sorted(own, key=lambda name: (-own[name], name))[:2]
    assert ranked.sites == (first, second)
    assert ranked.epsilon == epsilon([done[first], done[second]], 1e-5)
    assert not ranked.every_choice
    # Which is why it must be said: here another pair loses more.
    assert ranked.epsilon < both.epsilon
    assert set(ranked.sites) != set(both.sites)


def test_ranges_and_deltas_are_short_and_plain() -> None:
    assert ranges([9, 1, 2, 3, 7, 3]) == "1-3, 7, 9"
    assert ranges([]) == ""
    long = ranges(range(0, 20_000, 2))
    assert len(long) < 400
    assert long.endswith("... 19998 (10,000 in all)")
    assert listed([(2, 3), (1, 4), (1, 7), (1, 8)]) == "4, 7-8 of ledger 1; 3 of ledger 2"
    assert listed([(0, 4), (0, 5)]) == "4-5"
    assert listed([]) == ""
    ends = [*range(0, 200, 2), 300, 301, 302]
    assert ranges(ends).endswith("54, 56, ... 300-302 (103 in all)")
    assert ranges([*range(0, 58, 2), 80, 81]).endswith("54, 56, 80-81")
    assert small(1e-5) == "0.00001"
    assert small(0.05) == "0.05"
