"""A clinical model of time series at a site: DP-SGD on its loss, and the noisy sum of gradients that guides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.allocator import freed_memory_kept
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.loop import run_steps
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.private.batch import PatientBatch
from synclave_client.training.release import release_sum
from synclave_shared.data.shares import places
from synclave_shared.errors import PlanError
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.patient_tensors import PatientTensors
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.standard import StandardRows
from synclave_shared.plan import ClassifierSpec, InfluenceSpec, TrainPlan

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = [
    "ClinicalBatch",
    "ClinicalLearner",
    "clinical_loss",
    "clinical_values_of",
    "release_influence",
    "train_clinical_round",
]

PATIENTS_SUMMED: Final = 2**16
"""Patients of one clipped sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalBatch(PatientTensors):
    """Some patients.

    Attributes:
        values, observed, inside, context, labels: as in
            :class:`~synclave_shared.models.series.standard.StandardRows`.
        weight: [B], what a patient's loss counts for.
    """

    values: Tensor
    observed: Tensor
    inside: Tensor
    context: Tensor
    labels: Tensor
    weight: Tensor


def clinical_values_of(layout: SeriesLayout) -> int:
    """Numbers of one patient at the network's input."""
    return layout.steps * 2 * layout.channels


def clinical_loss(network: nn.Module, batch: PatientBatch, /) -> Tensor:
    """Weighted cross-entropy of each patient's label, [B], in nats."""
    assert isinstance(batch, ClinicalBatch)  # noqa: S101 - made by the learner
    logits = network(batch.values, batch.observed, batch.context, batch.inside)
    nats: Tensor = -logits.log_softmax(dim=-1).gather(1, batch.labels[:, None])[:, 0]
    return batch.weight * nats


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalLearner:
    """The site's patients with a clinical model; see :class:`synclave_client.training.loop.Learner`.

    Attributes:
        network: the model, on its device.
        dataset: the patients.
        layout: of the schema.
        anchor: quantiles.
        weights: what a patient of each label value counts for, [L].
        device: where to compute.
    """

    network: nn.Module
    dataset: SeriesDataset
    layout: SeriesLayout
    anchor: SeriesAnchor
    weights: NDArray[np.float32]
    device: torch.device | str

    @classmethod
    def of(
        cls,
        spec: ClassifierSpec,
        dataset: SeriesDataset,
        layout: SeriesLayout,
        anchor: SeriesAnchor,
        device: torch.device | str,
        weights: NDArray[np.float32] | None = None,
    ) -> Self:
        """A plan's model, not yet trained; ``weights`` None: patients of all label values count alike."""
        return cls(
            network=build_series_classifier(layout, spec).to(device),
            dataset=dataset,
            layout=layout,
            anchor=anchor,
            weights=np.ones(layout.label_values, np.float32) if weights is None else weights,
            device=device,
        )

    @property
    def values(self) -> int:
        """Numbers of one patient at the network's input."""
        return clinical_values_of(self.layout)

    def __len__(self) -> int:
        return len(self.dataset)

    def loss(self, network: nn.Module, batch: PatientBatch, /) -> Tensor:
        """See :func:`clinical_loss`."""
        return clinical_loss(network, batch)

    def batch(
        self, rows: NDArray[np.int64], size: int, _streams: PatientStreams | None = None, _step: int = 0
    ) -> ClinicalBatch:
        """Some patients, padded to ``size``; nothing of them is drawn by chance."""
        seen = StandardRows.of(self.dataset, rows, self.anchor, self.layout, size)
        batch = ClinicalBatch(
            values=torch.from_numpy(seen.values),
            observed=torch.from_numpy(seen.observed),
            inside=torch.from_numpy(seen.inside),
            context=torch.from_numpy(seen.context),
            labels=torch.from_numpy(seen.labels),
            weight=torch.from_numpy(self.weights[seen.labels]),
            present=torch.from_numpy(places(self.dataset.shares, rows, size)),
        )
        return batch.to(self.device)


def train_clinical_round(
    plan: TrainPlan,
    site_name: str,
    layout: SeriesLayout,
    dataset: SeriesDataset,
    model_vector: NDArray[np.float32],
    anchor: SeriesAnchor,
    device: torch.device | str,
    randomness: SecretRandomness,
    performance: Performance | None = None,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """One round of a clinical model; see :func:`synclave_client.training.loop.run_steps`.

    Args:
        plan: the accepted plan.
        site_name: this site in the plan's roster.
        layout: of the schema.
        dataset: the site's patients.
        model_vector: [P], the global model.
        anchor: public, from an earlier run.
        device: where to compute.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [P], fixed point.

    Raises:
        PlanError: if the plan has no clinical model.
    """
    if not isinstance(plan.model, ClassifierSpec):
        raise PlanError(
            expected="a plan of a clinical model",
            found=f"model.kind = {plan.model.kind}",
            remedy="Ask for another plan.",
        )
    learner = ClinicalLearner.of(plan.model, dataset, layout, anchor, device)
    return run_steps(plan, site_name, learner, model_vector, randomness, performance or Performance(), watch)


def release_influence(
    plan: TrainPlan,
    round_number: int,
    layout: SeriesLayout,
    dataset: SeriesDataset,
    model_vector: NDArray[np.float32],
    anchor: SeriesAnchor,
    label_shares: NDArray[np.float32],
    device: torch.device | str,
    randomness: SecretRandomness,
    performance: Performance | None = None,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """The site's noisy sum of clipped gradients of the clinical model's loss over all its patients.

    Released by :func:`synclave_client.training.release.release_sum`.

    Args:
        plan: the accepted plan; it fixes clip norm and noise.
        round_number: the round.
        layout: of the schema.
        dataset: the site's patients.
        model_vector: [P], the clinical model.
        anchor: public, from an earlier run.
        label_shares: public, [L]; by them patients are weighted if the plan says so.
        device: where to compute.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [P], fixed point.

    Raises:
        PlanError: if the round is another one.
        ProtocolError: if a value is not finite; nothing is released then.
    """
    spec, mechanism = plan.model, plan.mechanism(round_number)
    if plan.round_kind(round_number) != "influence" or not isinstance(spec, InfluenceSpec):
        raise PlanError(
            expected="a round of an influence vector",
            found=f"round {round_number} of model.kind = {spec.kind}",
            remedy="Ask for a plan with model.kind = influence.",
        )
    performance = performance or Performance()
    weights = np.array(spec.label_weights(label_shares.tolist()), np.float32)
    learner = ClinicalLearner.of(spec, dataset, layout, anchor, device, weights)
    load_parameter_vector(learner.network, model_vector)
    gradients = PatientGradients(learner.network, learner.loss, float(mechanism.clip_norm), performance)
    tile = performance.tile(learner.values)

    def batches(first: int, stop: int) -> Iterator[ClinicalBatch]:
        for start in range(first, stop, tile):
            yield learner.batch(np.arange(start, min(start + tile, stop)), tile)

    total = np.zeros(model_vector.size)
    with freed_memory_kept():
        # As many at a time as the clipping's bounds are made for: a site may have more patients than any step selects.
        for first in range(0, len(dataset), PATIENTS_SUMMED):
            stop = min(first + PATIENTS_SUMMED, len(dataset))
            total += gradients.clipped_sum(batches(first, stop)).double().cpu().numpy()

    def alone(patient: int) -> tuple[float, float]:
        batch = learner.batch(np.array([patient]), 1)
        return gradients.contribution_norm(batch), float(batch.present[0])

    return release_sum(total, mechanism, len(dataset), alone, randomness, watch)
