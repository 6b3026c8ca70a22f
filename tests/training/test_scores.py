"""Noisy histograms of a clinical model's predictions at a site."""

from decimal import Decimal

import numpy as np
import pytest
import torch

from synclave_client.performance import Performance
from synclave_client.training.clinical import ClinicalLearner
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.rehearsal import rehearse_clinical
from synclave_client.training.scores import release_scores
from synclave_shared.errors import PlanError
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.series.classifier import SeriesClassifier, build_series_classifier
from synclave_shared.plan import ClassifierSpec, Federation, InfluenceSpec, Privacy, ScoresSpec, TrainPlan
from synclave_shared.score_histogram import BINS, score_histogram
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_plan
from tests.training.test_clinical import ANCHOR, SHARES, clinical_plan, model
from tests.training.test_noise import has_std

QUIET = Decimal("0.000001")


def scores_plan(noise_multiplier: Decimal = QUIET, **changes: object) -> TrainPlan:
    """A plan of one round, clip norm 2."""
    return TrainPlan.model_validate(
        {
            **series_plan().model_dump(exclude={"model", "privacy", "federation", "optimiser"}),
            "model": ScoresSpec().model_dump(),
            "privacy": Privacy(noise_multiplier=noise_multiplier, clip_norm=Decimal(2)).model_dump(),
            "federation": Federation().model_dump(),
            "warm_start": "0" * 64,
            **changes,
        }
    )


def told(
    patients: np.ndarray,
    vector: np.ndarray,
    *,
    noise: Decimal = QUIET,
    key: int = 0,
    performance: Performance | None = None,
) -> np.ndarray:
    """Release of some of sixty patients."""
    dataset, randomness = series_dataset(60).select(patients), SecretRandomness(bytes([key]) * 32)
    plan = scores_plan(noise)
    return from_fixed(release_scores(plan, 1, SERIES_LAYOUT, dataset, vector, ANCHOR, "cpu", randomness, performance))


def test_the_release_is_the_histogram_of_each_patient_scored_alone() -> None:
    vector, dataset = model(ScoresSpec()), series_dataset(60)
    network = build_series_classifier(SERIES_LAYOUT, ScoresSpec())
    load_parameter_vector(network, vector)
    learner = ClinicalLearner(
        network=network, dataset=dataset, layout=SERIES_LAYOUT, anchor=ANCHOR, weights=SHARES, device="cpu"
    )
    logits = []
    for row in range(60):
        batch = learner.batch(np.array([row]), 1)
        with torch.no_grad():
            logits.append(network(batch.values, batch.observed, batch.context, batch.inside)[0].double().numpy())
    truth = 2 * score_histogram(np.stack(logits), dataset.labels).reshape(-1)
    assert len(np.unique(np.nonzero(truth)[0])) > 5
    for tile in (7, 256):
        found = told(np.arange(60), vector, performance=Performance(patients_at_once=tile))
        np.testing.assert_allclose(found, truth, atol=1e-4)


def test_the_noise_has_the_plans_size_also_where_nobody_is() -> None:
    noise = np.concatenate([told(np.arange(0), model(ScoresSpec()), noise=Decimal(3), key=key) for key in range(40)])
    assert len(noise) == 40 * 2 * BINS
    assert has_std(noise, 6.0)
    assert not has_std(noise, 4.0)
    assert not has_std(noise, 9.0)


@pytest.mark.parametrize("size", [0.1, 1e30, 1e38])
def test_a_patient_more_changes_one_cell_by_the_clip_norm_whatever_the_model(size: float) -> None:
    vector = (model(ScoresSpec()) * size).astype(np.float32)
    for without in (0, 29):
        rest = np.delete(np.arange(30), without)
        moved = told(np.arange(30), vector) - told(rest, vector)
        assert np.count_nonzero(np.abs(moved) > 1e-4) == 1
        assert np.linalg.norm(moved) == pytest.approx(2.0, abs=1e-3)


def test_scores_are_computed_in_the_precision_in_which_they_were_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that trains in bfloat16: what is proved of its numbers must be proved of these."""
    low: list[bool] = []
    forward = SeriesClassifier.forward

    def watched(self: SeriesClassifier, *given: torch.Tensor) -> torch.Tensor:
        low.append(torch.is_autocast_enabled("cpu"))
        return forward(self, *given)

    monkeypatch.setattr(SeriesClassifier, "forward", watched)
    performance = Performance(precision="bfloat16")
    rehearse_clinical(SERIES_LAYOUT, ClassifierSpec(), performance)
    assert any(low)
    low.clear()
    rehearse_clinical(SERIES_LAYOUT, ScoresSpec(), performance)
    vector = model(ScoresSpec())
    found = told(np.arange(60), vector, performance=performance)
    assert low
    assert not any(low)
    assert np.array_equal(found, told(np.arange(60), vector))


def test_what_a_plan_of_scores_needs_and_has_no_use_for() -> None:
    assert scores_plan().round_kind(1) == "scores"
    assert [one.tag for one in scores_plan().mechanisms()] == ["gaussian-sum/1"]
    for change, complaint in (
        ({"warm_start": None}, "warm_start is missing"),
        ({"federation": {"rounds": 3, "steps_per_round": 1}}, "rounds has no meaning"),
        ({"optimiser": {"name": "adam"}}, "optimiser has no meaning"),
        ({"privacy": {"noise_multiplier": "1", "selection_rate": "0.1"}}, "selection_rate has no meaning"),
        ({"privacy": {"noise_multiplier": "1", "marginals": {"noise_multiplier": "1"}}}, "marginals has no meaning"),
    ):
        with pytest.raises(ValueError, match=complaint):
            scores_plan(**change)  # type: ignore[arg-type]
    dataset, vector = series_dataset(3), model(ScoresSpec())
    for spec in (ClassifierSpec(), InfluenceSpec()):
        with pytest.raises(PlanError, match="scores"):
            release_scores(
                clinical_plan(spec), 1, SERIES_LAYOUT, dataset, vector, ANCHOR, "cpu", SecretRandomness(bytes(32))
            )
