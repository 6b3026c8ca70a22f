"""A clinical model at a site: its rounds, and the sum of gradients that guides sampling."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from synclave_client.performance import Performance
from synclave_client.training import clinical
from synclave_client.training.clinical import ClinicalLearner, release_influence, train_clinical_round
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.rehearsal import rehearse_clinical
from synclave_shared.errors import PlanError
from synclave_shared.fixed_point import from_fixed
from synclave_shared.model_spec import ARCHITECTURES
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.models.series.anchor import usual_anchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.plan import ClassifierSpec, Federation, InfluenceSpec, Privacy, TrainPlan
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_plan
from tests.training.test_noise import has_std

ANCHOR = usual_anchor(SERIES_LAYOUT)
SHARES = np.array([0.7, 0.3], np.float32)


def clinical_plan(spec: ClassifierSpec, **privacy: Any) -> TrainPlan:
    numbers = {"noise_multiplier": Decimal(1), **privacy}
    rounds: dict[str, Any] = {}
    if not isinstance(spec, InfluenceSpec):
        numbers = {"selection_rate": Decimal("0.5"), **numbers}
        rounds = {"rounds": 2, "steps_per_round": 2}
    plan = series_plan()
    return TrainPlan.model_validate(
        {
            **plan.model_dump(exclude={"model", "privacy", "federation", "optimiser"}),
            "model": spec.model_dump(),
            "privacy": Privacy.model_validate(numbers).model_dump(),
            "federation": Federation.model_validate(rounds).model_dump(),
            "optimiser": {} if isinstance(spec, InfluenceSpec) else {"learning_rate": Decimal("0.05")},
            "warm_start": "0" * 64,
        }
    )


def model(spec: ClassifierSpec, seed: int = 0) -> np.ndarray:
    vector = parameter_vector(build_series_classifier(SERIES_LAYOUT, spec))
    return (vector + 0.1 * np.random.default_rng(seed).standard_normal(vector.size)).astype(np.float32)


def influence(plan: TrainPlan, patients: int, key: int = 0) -> np.ndarray:
    """Of the first patients of sixty."""
    assert isinstance(plan.model, InfluenceSpec)
    released = release_influence(
        plan,
        1,
        SERIES_LAYOUT,
        series_dataset(60).select(np.arange(patients)),
        model(plan.model),
        ANCHOR,
        SHARES,
        "cpu",
        SecretRandomness(bytes([key]) * 32),
    )
    return from_fixed(released)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_clinical_model_passes_the_self_test(architecture: str) -> None:
    spec = ClassifierSpec.model_validate({"architecture": architecture, "blocks": 2})
    assert rehearse_clinical(SERIES_LAYOUT, spec, Performance()).sum_deviation < 1e-5


def test_rounds_of_a_clinical_model_lower_its_loss() -> None:
    spec = ClassifierSpec()
    plan = clinical_plan(spec, noise_multiplier=Decimal("0.000001"), selection_rate=Decimal(1))
    dataset, vector = series_dataset(150), parameter_vector(build_series_classifier(SERIES_LAYOUT, spec))

    def loss_of(parameters: np.ndarray) -> float:
        network = build_series_classifier(SERIES_LAYOUT, spec)
        load_parameter_vector(network, parameters.astype(np.float32))
        weights = np.ones(2, np.float32)
        learner = ClinicalLearner(
            network=network, dataset=dataset, layout=SERIES_LAYOUT, anchor=ANCHOR, weights=weights, device="cpu"
        )
        with torch.no_grad():
            return float(learner.loss(network, learner.batch(np.arange(150), 150)).mean())

    randomness = SecretRandomness(bytes(32))
    update = from_fixed(train_clinical_round(plan, "north", SERIES_LAYOUT, dataset, vector, ANCHOR, "cpu", randomness))
    assert loss_of(vector + update) < loss_of(vector) - 0.01


def test_the_influence_vector_is_the_clipped_sum_with_the_plans_noise() -> None:
    spec = InfluenceSpec(balanced=False)
    quiet = influence(clinical_plan(spec, noise_multiplier=Decimal("0.000001"), clip_norm=Decimal("0.5")), 40)
    noisy = [influence(clinical_plan(spec, clip_norm=Decimal("0.5")), 40, key) for key in range(30)]
    noise = np.concatenate(noisy) - np.tile(quiet, 30)
    assert has_std(noise, 0.5)
    assert not has_std(noise, 0.4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_patient_more_moves_the_influence_vector_by_at_most_the_clip_norm(architecture: str) -> None:
    spec = InfluenceSpec(architecture=architecture, blocks=2)
    plan = clinical_plan(spec, noise_multiplier=Decimal("0.000001"), clip_norm=Decimal("0.5"))
    sums = [influence(plan, patients) for patients in (0, 1, 30, 31)]
    assert 0 < np.linalg.norm(sums[1] - sums[0]) <= 0.5 + 1e-3
    assert 0 < np.linalg.norm(sums[3] - sums[2]) <= 0.5 + 1e-3


def test_balance_gives_rare_labels_their_weight_and_the_clip_norm_bounds_it() -> None:
    """With a clip norm that clips nobody the vector is the weighted sum of gradients; slow truth by autograd."""
    spec = InfluenceSpec()
    plan = clinical_plan(spec, noise_multiplier=Decimal("0.0000001"), clip_norm=Decimal(1000))
    dataset, network = series_dataset(60).select(np.arange(25)), build_series_classifier(SERIES_LAYOUT, spec)
    load_parameter_vector(network, model(spec))
    weights = np.array([1 / 1.4, 1 / 0.6], np.float32)
    learner = ClinicalLearner(
        network=network, dataset=dataset, layout=SERIES_LAYOUT, anchor=ANCHOR, weights=weights, device="cpu"
    )
    loss = learner.loss(network, learner.batch(np.arange(25), 25)).sum()
    truth = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(network.parameters()))])
    np.testing.assert_allclose(influence(plan, 25), truth.numpy(), atol=2e-3)
    gradients = PatientGradients(network, learner.loss, 0.1)
    assert float(gradients.clipped_sum([learner.batch(np.arange(25), 32)]).norm()) <= 25 * 0.1


def test_what_a_clinical_plan_needs_and_has_no_use_for() -> None:
    with pytest.raises(ValueError, match="warm_start is missing"):
        TrainPlan.model_validate({**clinical_plan(ClassifierSpec()).model_dump(), "warm_start": None})
    broken = clinical_plan(InfluenceSpec()).model_dump()
    with pytest.raises(ValueError, match="rounds has no meaning"):
        TrainPlan.model_validate({**broken, "federation": {"rounds": 3, "steps_per_round": 1}})
    assert clinical_plan(InfluenceSpec()).round_kind(1) == "influence"
    assert [one.tag for one in clinical_plan(InfluenceSpec()).mechanisms()] == ["gaussian-sum/1"]
    randomness = SecretRandomness(bytes(32))
    plan, vector = clinical_plan(ClassifierSpec()), model(ClassifierSpec())
    with pytest.raises(PlanError, match="influence"):
        release_influence(plan, 1, SERIES_LAYOUT, series_dataset(3), vector, ANCHOR, SHARES, "cpu", randomness)


def test_a_site_of_more_patients_than_are_summed_at_once_gives_the_same_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = clinical_plan(InfluenceSpec(), noise_multiplier=Decimal("0.0000001"), clip_norm=Decimal(1))
    whole = influence(plan, 50)
    monkeypatch.setattr(clinical, "PATIENTS_SUMMED", 7)
    np.testing.assert_allclose(influence(plan, 50), whole, atol=1e-5)
