"""Training the code denoiser at a site: the patients of a step, what is hidden of them, and their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.loop import run_steps
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private.batch import PatientBatch
from synclave_shared.data.shares import places
from synclave_shared.diffusion.corruption import corrupt, hidden_cross_entropy
from synclave_shared.diffusion.preconditioning import posterior_logits, prior_logits
from synclave_shared.errors import DataError, PlanError
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.patient_tensors import PatientTensors
from synclave_shared.plan import CopulaSpec, ModelSpec, TrainPlan

if TYPE_CHECKING:
    from synclave_shared.data.patients import PatientDataset
    from synclave_shared.data.schema import Schema

__all__ = ["CodeLearner", "DiffusionBatch", "DiffusionLoss", "code_model", "train_round", "trained_codes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionBatch(PatientTensors):
    """Some patients, each seen at K noise levels.

    Attributes:
        clean: [B, D], 0/1 rows.
        labels: [B], label numbers; L where the label is hidden in this step.
        levels: [B, K], standard normal: how much each level hides.
        noise: [B, K, D], standard normal.
    """

    clean: Tensor
    labels: Tensor
    levels: Tensor
    noise: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionLoss:
    """Mean cross-entropy over a patient's K noise levels: averaging before clipping costs no privacy."""

    spec: ModelSpec
    layout: CodeLayout
    prior: Tensor

    def __call__(self, network: nn.Module, batch: DiffusionBatch) -> Tensor:
        """One loss per patient, [B], in nats."""
        seen = corrupt(batch.clean, batch.levels, batch.noise, self.spec, self.layout)
        logits = posterior_logits(network, seen.x, seen.sigma, batch.labels, self.prior, self.layout, seen.known)
        return hidden_cross_entropy(logits, batch.clean, seen, self.layout).mean(dim=1)

    def draw(
        self,
        clean: Tensor,
        labels: Tensor,
        streams: PatientStreams,
        step: int,
        rows: NDArray[np.int64],
        shares: NDArray[np.float64] | None = None,
    ) -> DiffusionBatch:
        """Noise levels, noise and hidden labels.

        Args:
            clean: [B, D]; what follows the first ``len(rows)`` rows is padding.
            labels: [B], likewise.
            streams: the patients' diffusion randomness.
            step: number of the step in the round.
            rows: which patients these are.
            shares: of the site's patients; None: everybody counts in full.
        """
        patients, width = clean.shape
        levels = self.spec.noise_levels
        coins = np.ones(patients)
        values = np.zeros((patients, levels * (1 + width)), np.float32)
        coins[: len(rows)], values[: len(rows)] = streams.draw(step, rows, values.shape[1])
        normals = torch.from_numpy(values).to(clean.device)
        hidden = torch.from_numpy(coins < float(self.spec.label_dropout)).to(clean.device)
        return DiffusionBatch(
            clean=clean,
            labels=torch.where(hidden, self.layout.label_values, labels),
            levels=normals[:, :levels],
            noise=normals[:, levels:].reshape(patients, levels, width),
            present=torch.from_numpy(places(shares, rows, patients)).to(clean.device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLearner:
    """The site's rows of codes; see :class:`synclave_client.training.loop.Learner`."""

    network: nn.Module
    objective: DiffusionLoss
    dataset: PatientDataset
    device: torch.device | str

    @property
    def values(self) -> int:
        """Numbers of one patient at the network's input."""
        return self.objective.spec.noise_levels * self.objective.layout.width

    def __len__(self) -> int:
        return len(self.dataset)

    def loss(self, network: nn.Module, batch: PatientBatch, /) -> Tensor:
        """One loss per patient, [B], in nats."""
        assert isinstance(batch, DiffusionBatch)  # noqa: S101 - made below
        return self.objective(network, batch)

    def batch(self, rows: NDArray[np.int64], size: int, streams: PatientStreams, step: int) -> DiffusionBatch:
        """Some patients with their noise, padded to ``size``."""
        clean = np.zeros((size, self.dataset.features.shape[1]), np.float32)
        labels = np.zeros(size, np.int64)
        clean[: len(rows)], labels[: len(rows)] = self.dataset.features[rows], self.dataset.labels[rows]
        on_device = torch.from_numpy(clean).to(self.device), torch.from_numpy(labels).to(self.device)
        return self.objective.draw(*on_device, streams, step, rows, self.dataset.shares)


def code_model(plan: TrainPlan) -> ModelSpec | CopulaSpec:
    """The model of a plan for codes.

    Raises:
        PlanError: if the plan is for another modality.
    """
    if isinstance(plan.model, ModelSpec | CopulaSpec):
        return plan.model
    raise PlanError(
        expected="a plan for codes, as the installed schema's modality is",
        found=f"model.kind = {plan.model.kind}",
        remedy="Use a plan of the schema's modality.",
    )


def trained_codes(plan: TrainPlan) -> ModelSpec:
    """The code denoiser that a plan trains.

    Raises:
        PlanError: if it trains nothing, or something else.
    """
    spec = code_model(plan)
    if isinstance(spec, ModelSpec):
        return spec
    raise PlanError(
        expected="a plan with training rounds",
        found=f"one of a {spec.kind}, which trains nothing",
        remedy="Check that coordinator and site run the same version of Synclave.",
    )


def train_round(
    plan: TrainPlan,
    site_name: str,
    schema: Schema,
    dataset: PatientDataset,
    model_vector: NDArray[np.float32],
    anchor: NDArray[np.float32] | None,
    device: torch.device | str,
    randomness: SecretRandomness,
    performance: Performance | None = None,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """One round on codes; see :func:`synclave_client.training.loop.run_steps`.

    Args:
        plan: the accepted plan.
        site_name: this site in the plan's roster.
        schema: columns and label values.
        dataset: the site's patients.
        model_vector: [P], the global model.
        anchor: [L, D] anchor logits, or None.
        device: where to compute.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [P], fixed point.

    Raises:
        DataError: if the data does not have the schema's columns or labels.
        PlanError: if the plan does not train a code denoiser.
    """
    layout = CodeLayout.of(schema)
    _check_dataset(dataset, layout)
    spec = trained_codes(plan)
    logits = np.zeros((layout.label_values, layout.width), np.float32) if anchor is None else anchor
    prior = prior_logits(torch.from_numpy(np.array(logits, dtype=np.float32)), layout).to(device)
    learner = CodeLearner(
        network=build_code_denoiser(layout, spec).to(device),
        objective=DiffusionLoss(spec=spec, layout=layout, prior=prior),
        dataset=dataset,
        device=device,
    )
    return run_steps(plan, site_name, learner, model_vector, randomness, performance or Performance(), watch)


def _check_dataset(dataset: PatientDataset, layout: CodeLayout) -> None:
    if dataset.features.shape[1] != layout.width:
        raise DataError(
            expected=f"patients with {layout.width} columns",
            found=f"shape {dataset.features.shape}",
            remedy="Load the data with the schema of the plan.",
        )
    if len(dataset.labels) and (dataset.labels.min() < 0 or dataset.labels.max() >= layout.label_values):
        raise DataError(
            expected=f"label numbers from 0 to {layout.label_values - 1}",
            found=f"{dataset.labels.min()} to {dataset.labels.max()}",
            remedy="Load the data with the schema of the plan.",
        )
