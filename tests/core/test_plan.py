"""The training plan: canonical, coherent, and the one source of every mechanism."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from synclave_shared.errors import PlanError
from synclave_shared.plan import (
    CopulaSpec,
    Federation,
    Marginals,
    ModelSpec,
    Optimiser,
    Privacy,
    SiteEntry,
    TrainPlan,
)
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

KEY_A = "A" * 43 + "="
KEY_B = "B" * 43 + "="


def make_plan(**changes: Any) -> TrainPlan:
    fields: dict[str, Any] = {
        "name": "trial",
        "coordinator_key": KEY_A,
        "schema_name": "codes",
        "schema_digest": "0" * 64,
        "privacy": Privacy(
            noise_multiplier=Decimal("1.10"),
            selection_rate=Decimal("0.02"),
            marginals=Marginals(noise_multiplier=Decimal(8)),
        ),
        "federation": Federation(rounds=3, steps_per_round=5),
        "sites": (
            SiteEntry(name="north", public_key=KEY_A, nominal_patients=3000),
            SiteEntry(name="south", public_key=KEY_B, nominal_patients=1000),
        ),
    }
    return TrainPlan(**(fields | changes))


def test_a_plan_survives_its_canonical_form() -> None:
    plan = make_plan()
    assert TrainPlan.from_bytes(plan.to_bytes()) == plan
    assert TrainPlan.from_bytes(plan.to_bytes()).digest == plan.digest


def test_another_form_of_the_same_plan_is_refused() -> None:
    with pytest.raises(PlanError, match="another form"):
        TrainPlan.from_bytes(make_plan().to_bytes() + b" ")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"version":2}'])
def test_what_is_not_a_plan_is_refused(data: bytes) -> None:
    with pytest.raises(PlanError):
        TrainPlan.from_bytes(data)


def test_every_round_has_its_one_mechanism() -> None:
    plan = make_plan()
    assert plan.mechanism(0) == GaussianSum(noise_multiplier=Decimal(8), clip_norm=Decimal(5))
    assert (
        plan.mechanisms()[1:]
        == [
            PoissonGaussian(
                noise_multiplier=Decimal("1.1"), clip_norm=Decimal(1), selection_rate=Decimal("0.02"), steps=5
            )
        ]
        * 3
    )
    for number in (-1, 4):
        with pytest.raises(PlanError, match="round from 0 to 3"):
            plan.mechanism(number)


def test_without_marginals_there_is_no_round_zero() -> None:
    plan = make_plan(privacy=Privacy(noise_multiplier=Decimal(1), selection_rate=Decimal("0.1")))
    assert plan.first_round() == 1
    assert len(plan.mechanisms()) == 3
    with pytest.raises(PlanError):
        plan.mechanism(0)


def test_weights_and_batch_sizes_are_public_numbers_of_the_plan() -> None:
    plan = make_plan()
    assert plan.weights() == {"north": 0.75, "south": 0.25}
    assert plan.expected_batch_size("north") == pytest.approx(60)
    with pytest.raises(PlanError, match="north, south"):
        plan.expected_batch_size("west")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sites": (SiteEntry(name="a", public_key=KEY_A, nominal_patients=1),) * 2}, "site name occurs twice"),
        (
            {
                "sites": (
                    SiteEntry(name="a", public_key=KEY_A, nominal_patients=1),
                    SiteEntry(name="b", public_key=KEY_A, nominal_patients=1),
                )
            },
            "site key occurs twice",
        ),
        ({"federation": Federation(rounds=1, steps_per_round=1, minimum_sites=3)}, "larger than the roster"),
        (
            {"sites": (SiteEntry(name="a", public_key=KEY_A, nominal_patients=7_000_000),)},
            "more than 131072 patients",
        ),
        ({"name": "../../etc"}, "pattern"),
        ({"trust_mode": "trust-me"}, "local"),
    ],
)
def test_incoherent_plans_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        make_plan(**changes)


COPULA: dict[str, Any] = {
    "model": CopulaSpec(),
    "privacy": Privacy(
        noise_multiplier=Decimal(2), clip_norm=Decimal("0.35"), marginals=Marginals(noise_multiplier=Decimal(3))
    ),
    "federation": Federation(),
}


def test_a_copula_is_two_sums_over_all_patients_and_nothing_else() -> None:
    plan = make_plan(**COPULA)
    assert plan.mechanisms() == [
        GaussianSum(noise_multiplier=Decimal(3), clip_norm=Decimal(5)),
        GaussianSum(noise_multiplier=Decimal(2), clip_norm=Decimal("0.35")),
    ]
    assert [plan.round_kind(number) for number in (0, 1)] == ["marginals", "moments"]
    with pytest.raises(PlanError, match="round from 0 to 1"):
        plan.round_kind(2)
    with pytest.raises(PlanError, match="training rounds"):
        plan.training()
    assert TrainPlan.from_bytes(plan.to_bytes()) == plan
    assert [make_plan().round_kind(number) for number in (0, 1, 3)] == ["marginals", "training", "training"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"privacy": Privacy(noise_multiplier=Decimal(2))}, "privacy.marginals is missing"),
        ({"privacy": COPULA["privacy"].model_copy(update={"selection_rate": Decimal("0.1")})}, "selection_rate"),
        ({"federation": Federation(rounds=2)}, "federation.rounds"),
        ({"federation": Federation(steps_per_round=2)}, "federation.steps_per_round"),
        ({"federation": Federation(aggregator="fedadam")}, "federation.aggregator"),
        ({"federation": Federation(ema=Decimal("0.9"))}, "federation.ema"),
        ({"federation": Federation(update_norm=Decimal(7))}, "federation.update_norm"),
        ({"federation": Federation(server_learning_rate=Decimal(2))}, "federation.server_learning_rate"),
        ({"optimiser": Optimiser(name="adam")}, "optimiser"),
        ({"warm_start": "0" * 64}, "warm_start"),
        (
            {"sites": (SiteEntry(name="a", public_key=KEY_A, nominal_patients=1, weight=Decimal(1)),)},
            "sites.weight has no meaning",
        ),
        ({"model": ModelSpec()}, "privacy.selection_rate is missing"),
    ],
)
def test_what_a_copula_has_no_use_for_is_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        make_plan(**(COPULA | changes))
