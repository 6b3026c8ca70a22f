"""How well a clinical model predicts the site's patients, told as noisy histograms of its predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.training.clinical import ClinicalLearner
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.release import release_sum
from synclave_shared.data.shares import share_of
from synclave_shared.errors import PlanError
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import ScoresSpec, TrainPlan
from synclave_shared.score_histogram import score_histogram

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = ["release_scores"]


def release_scores(
    plan: TrainPlan,
    round_number: int,
    layout: SeriesLayout,
    dataset: SeriesDataset,
    model_vector: NDArray[np.float32],
    anchor: SeriesAnchor,
    device: torch.device | str,
    randomness: SecretRandomness,
    performance: Performance | None = None,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """The site's noisy histograms of the clinical model's predictions for all its patients.

    Released by :func:`synclave_client.training.release.release_sum`: a patient adds a vector of length 1
    whatever the model predicts (:func:`~synclave_shared.score_histogram.score_histogram`), here in units of the plan's
    clip norm; less, by its share, if it is at other sites too.

    Args:
        plan: the accepted plan; it fixes clip norm and noise.
        round_number: the round.
        layout: of the schema.
        dataset: the site's patients.
        model_vector: [P], the clinical model.
        anchor: public, from an earlier run.
        device: where to compute.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only. Scores are float32 whatever its precision.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [:func:`~synclave_shared.score_histogram.histogram_size`], fixed point.

    Raises:
        PlanError: if the round is another one.
    """
    spec, mechanism = plan.model, plan.mechanism(round_number)
    if plan.round_kind(round_number) != "scores" or not isinstance(spec, ScoresSpec):
        raise PlanError(
            expected="a round of scores",
            found=f"round {round_number} of model.kind = {spec.kind}",
            remedy="Ask for a plan with model.kind = scores.",
        )
    learner = ClinicalLearner.of(spec, dataset, layout, anchor, device)
    load_parameter_vector(learner.network, model_vector)
    tile = (performance or Performance()).tile(learner.values)
    logits = np.zeros((len(dataset), layout.label_values))
    for start in range(0, len(dataset), tile):
        # Full tiles, and float32 at any site, as in the rehearsal: a patient's score hangs on that patient to the last
        # bit. Otherwise one patient more could move others over the borders of bins.
        rows = np.arange(start, min(start + tile, len(dataset)))
        batch = learner.batch(rows, tile)
        found = learner.network(batch.values, batch.observed, batch.context, batch.inside)
        logits[rows] = found.detach()[: len(rows)].double().cpu().numpy()
    clip_norm = float(mechanism.clip_norm)

    def alone(patient: int) -> tuple[float, float]:
        one = dataset.select(np.array([patient]))
        own = score_histogram(logits[patient : patient + 1], one.labels, one.shares)
        return clip_norm * float(np.linalg.norm(own)), share_of(dataset.shares, patient)

    total = clip_norm * score_histogram(logits, dataset.labels, dataset.shares).reshape(-1)
    return release_sum(total, mechanism, len(dataset), alone, randomness, watch)
