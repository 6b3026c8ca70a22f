"""What is offered fits, by the check that decides; and it costs what it says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from synclave_shared.errors import PlanError
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.afford import Offer, affordable, affordable_sum
from synclave_shared.privacy.budget import Budget, check_budget
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

DELTA = Decimal("0.00001")
SPENT = [
    GaussianSum(noise_multiplier=Decimal(9), clip_norm=Decimal(5)),
    *[PoissonGaussian(noise_multiplier=Decimal("1.5"), clip_norm=Decimal(1), selection_rate=Decimal("0.01"), steps=20)]
    * 10,
]


def training(offer: Offer, noise: Decimal, steps: int) -> list[PoissonGaussian]:
    step = PoissonGaussian(
        noise_multiplier=noise, clip_norm=Decimal(1), selection_rate=offer.selection_rate, steps=steps
    )
    return [step] * offer.rounds


@pytest.mark.parametrize("left", ["2", "0.04"])
@pytest.mark.parametrize("spent", [[], SPENT], ids=["whole", "begun"])
def test_every_offer_passes_the_check_and_with_five_percent_less_noise_it_does_not(
    left: str, spent: list[PoissonGaussian | GaussianSum]
) -> None:
    budget = Budget(epsilon=Decimal(left) + Decimal(f"{epsilon(spent, 1e-5):.4f}"), delta=DELTA)
    offers = affordable(budget, spent, patients=3000, steps_per_round=10, rounds=[30, 5], batches=[60, 700])
    assert [(offer.batch, offer.rounds) for offer in offers] == [(60, 5), (60, 30), (700, 5), (700, 30)]
    for offer in offers:
        noise = offer.noise_multiplier
        assert noise is not None
        assert offer.selection_rate * 3000 >= offer.batch
        verdict = check_budget(budget, spent, training(offer, noise, 10))
        assert verdict.allowed
        assert verdict.after_epsilon == offer.epsilon_after
        assert not check_budget(budget, spent, training(offer, noise * Decimal("0.95"), 10)).allowed
    found = [offer.noise_multiplier or Decimal(0) for offer in offers]
    assert found == sorted(found)
    of_sum = affordable_sum(budget, spent)
    assert of_sum is not None
    assert check_budget(budget, spent, [GaussianSum(noise_multiplier=of_sum, clip_norm=Decimal(1))]).allowed


def test_the_sites_floor_is_kept() -> None:
    budget = Budget(epsilon=Decimal(50), delta=DELTA)
    offers = affordable(budget, [], patients=1000, steps_per_round=1, rounds=[1], batches=[1], floor=Decimal("0.8"))
    assert offers[0].noise_multiplier == Decimal("0.8")
    assert offers[0].epsilon_after == epsilon(training(offers[0], Decimal("0.8"), 1), 1e-5)
    assert affordable_sum(budget, [], Decimal("0.8")) == Decimal("0.8")


def test_of_an_exhausted_budget_nothing_is_offered() -> None:
    budget = Budget(epsilon=Decimal("0.5"), delta=DELTA)
    assert epsilon(SPENT, 1e-5) > 0.5
    offers = affordable(budget, SPENT, patients=1000, steps_per_round=1, rounds=[1, 2], batches=[10])
    assert {(offer.noise_multiplier, offer.epsilon_after) for offer in offers} == {(None, None)}
    assert affordable_sum(budget, SPENT) is None


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"batches": [11]}, {"rounds": [0]}, {"steps_per_round": 0}])
def test_numbers_that_fit_no_training_are_refused(wrong: dict[str, object]) -> None:
    numbers: dict[str, object] = {"patients": 10, "steps_per_round": 1, "rounds": [1], "batches": [5]}
    with pytest.raises(PlanError, match="batches of 1 to"):
        affordable(Budget(epsilon=Decimal(1), delta=DELTA), [], **(numbers | wrong))  # type: ignore[arg-type]
