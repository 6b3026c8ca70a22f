"""What a site takes part in: one test per reason to say no, and the arithmetic of the budget."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from synclave_client.settings import SitePolicy, SiteSettings
from synclave_client.vault.policy import check_round_budget, check_signer, decide
from synclave_shared.errors import BudgetExceeded, PolicyRefusal
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.plan import Federation, Marginals, Privacy, SiteEntry, TrainPlan
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.budget import Budget, Verdict
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from tests.vault.coordinator import SCHEMA_DIGEST, SITE_KEY, make_plan, make_scores_plan, make_settings

STRANGER = SigningKey.from_seed(b"x" * 32)
DELTA = 1e-5


def ask(
    plan: TrainPlan,
    settings: SiteSettings,
    committed: list[PoissonGaussian | GaussianSum] | None = None,
    uses: frozenset[str] = frozenset(),
) -> Verdict:
    return decide(
        plan,
        settings,
        schema_digest=SCHEMA_DIGEST,
        public_key=SITE_KEY.public_text,
        committed=committed or [],
        uses=uses,
    )


def test_a_plan_within_everything_is_accepted_with_its_true_cost(tmp_path: Path) -> None:
    plan = make_plan()
    verdict = ask(plan, make_settings(tmp_path))
    assert verdict.spent_epsilon == 0
    assert verdict.after_epsilon == pytest.approx(epsilon(plan.mechanisms(), DELTA))


@pytest.mark.parametrize(
    ("refusal", "changes"),
    [
        ("schema-mismatch", {"schema_digest": "6" * 64}),
        ("not-in-roster", {"sites": (SiteEntry(name="south", public_key=SITE_KEY.public_text, nominal_patients=9),)}),
        ("not-in-roster", {"sites": (SiteEntry(name="north", public_key=STRANGER.public_text, nominal_patients=9),)}),
        ("noise-below-floor", {"privacy": Privacy(noise_multiplier=Decimal("0.49"), selection_rate=Decimal("0.0001"))}),
        (
            "noise-below-floor",
            {
                "privacy": Privacy(
                    noise_multiplier=Decimal(40),
                    selection_rate=Decimal("0.0001"),
                    marginals=Marginals(noise_multiplier=Decimal("0.49")),
                )
            },
        ),
        (
            "delta-above-plan",
            {
                "privacy": Privacy(
                    delta=Decimal("0.0000099"), noise_multiplier=Decimal(40), selection_rate=Decimal("0.0001")
                )
            },
        ),
        ("budget-exceeded", {"federation": Federation(rounds=1000, steps_per_round=50)}),
    ],
)
def test_each_reason_to_refuse_a_plan(tmp_path: Path, refusal: str, changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyRefusal) as refused:
        ask(make_plan(**changes), make_settings(tmp_path))
    assert refused.value.refusal == refusal


def test_a_floor_is_met_by_exactly_that_noise(tmp_path: Path) -> None:
    plan = make_plan(privacy=Privacy(noise_multiplier=Decimal("0.5"), selection_rate=Decimal("0.000001")))
    assert ask(plan, make_settings(tmp_path)).allowed


@pytest.mark.parametrize(
    ("field", "refusal"), [("modalities", "modality-not-allowed"), ("trust_modes", "trust-mode-not-allowed")]
)
def test_what_the_policy_does_not_list_is_refused(tmp_path: Path, field: str, refusal: str) -> None:
    # The plan's vocabulary has one value today, so the site's list is emptied past its validation.
    policy = SitePolicy().model_copy(update={field: ("something-else",)})
    settings = make_settings(tmp_path).model_copy(update={"policy": policy})
    with pytest.raises(PolicyRefusal) as refused:
        ask(make_plan(), settings)
    assert refused.value.refusal == refusal


def test_two_plans_compose_and_do_not_add_up(tmp_path: Path) -> None:
    first = make_plan("first", federation=Federation(rounds=20, steps_per_round=50))
    second = make_plan("second", federation=Federation(rounds=20, steps_per_round=50))
    alone = epsilon(first.mechanisms(), DELTA)
    together = epsilon([*first.mechanisms(), *second.mechanisms()], DELTA)
    assert alone < together < 1.9 * alone
    between = Decimal(str(round((together + 2 * alone) / 2, 4)))
    settings = make_settings(tmp_path, budget=Budget(epsilon=between, delta=Decimal("0.00001")))
    assert ask(second, settings, first.mechanisms()).after_epsilon == pytest.approx(together)
    tight = make_settings(
        tmp_path, budget=Budget(epsilon=Decimal(str(round((together + alone) / 2, 4))), delta=Decimal("0.00001"))
    )
    assert ask(second, tight).allowed
    with pytest.raises(BudgetExceeded) as refused:
        ask(second, tight, first.mechanisms())
    assert refused.value.refusal == "budget-exceeded"


def test_the_budget_is_meant_at_the_sites_delta_whatever_the_plan_says(tmp_path: Path) -> None:
    plan = make_plan(privacy=Privacy(delta=Decimal("0.1"), noise_multiplier=Decimal(1), selection_rate=Decimal("0.05")))
    verdict = ask(plan, make_settings(tmp_path))
    assert verdict.after_epsilon == pytest.approx(epsilon(plan.mechanisms(), DELTA))
    assert verdict.after_epsilon > 2 * epsilon(plan.mechanisms(), 0.1)


def test_a_budget_lowered_later_stops_the_next_round(tmp_path: Path) -> None:
    plan = make_plan()
    mechanism = plan.mechanism(1)
    spent = [plan.mechanism(0)]
    cost = epsilon([*spent, mechanism], DELTA)
    for factor, allowed in (("1.01", True), ("0.99", False)):
        limit = Decimal(str(round(cost * float(factor), 6)))
        settings = make_settings(tmp_path, budget=Budget(epsilon=limit, delta=Decimal("0.00001")))
        if allowed:
            check_round_budget(settings, mechanism, spent=spent)
        else:
            with pytest.raises(BudgetExceeded):
                check_round_budget(settings, mechanism, spent=spent)


@pytest.mark.parametrize(("key", "valid"), [(STRANGER, True), (None, False)])
def test_only_the_pinned_coordinators_signature_counts(tmp_path: Path, key: SigningKey | None, valid: bool) -> None:
    plan = make_plan() if key is None else make_plan(coordinator_key=key.public_text)
    with pytest.raises(PolicyRefusal) as refused:
        check_signer(plan, make_settings(tmp_path), signature_valid=valid)
    assert refused.value.refusal == "coordinator-unknown"
    check_signer(make_plan(), make_settings(tmp_path), signature_valid=True)


@pytest.mark.parametrize("learnt", ["diffusion", "copula", "series", "classifier", "influence"])
def test_how_well_patients_are_predicted_of_whom_models_learnt_is_not_told(tmp_path: Path, learnt: str) -> None:
    scores = make_scores_plan()
    for uses in (frozenset(), frozenset({"scores"})):
        assert ask(scores, make_settings(tmp_path), uses=frozenset(uses)).allowed
    with pytest.raises(PolicyRefusal) as refused:
        ask(scores, make_settings(tmp_path), uses=frozenset({"scores", learnt}))
    assert refused.value.refusal == "not-held-out"
    assert ask(make_plan(), make_settings(tmp_path), uses=frozenset({"scores", learnt})).allowed
