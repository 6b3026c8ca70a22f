"""A training round at a site: DP-SGD on the diffusion loss, from the coordinator's model to a released update.

The plan fixes every number that privacy depends on. What leaves is the difference of two models, the second of which is
a function of noised gradients only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.allocator import freed_memory_kept
from synclave_client.training.batch_selection import select_patients
from synclave_client.training.marginals import release_marginals
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.release import fixed_point_update
from synclave_shared.diffusion.corruption import corrupt, hidden_cross_entropy
from synclave_shared.diffusion.preconditioning import posterior_logits, prior_logits
from synclave_shared.errors import DataError
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.plan import ModelSpec, TrainPlan

if TYPE_CHECKING:
    from synclave_shared.data.patients import PatientDataset
    from synclave_shared.data.schema import Schema

__all__ = ["DiffusionBatch", "DiffusionLoss", "release_marginals", "train_round"]

_log = logging.getLogger("synclave.vault")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionBatch:
    """Some patients, each seen at K noise levels.

    Attributes:
        clean: [B, D], 0/1 rows.
        labels: [B], label numbers; L where the label is hidden in this step.
        levels: [B, K], standard normal: how much each level hides.
        noise: [B, K, D], standard normal.
        present: [B], false for rows of padding.
    """

    clean: Tensor
    labels: Tensor
    levels: Tensor
    noise: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def patient_of_row(self) -> None:
        """None: the first axis is the patient, whose noise levels lie behind it."""
        return None

    def select(self, patients: Tensor) -> Self:
        """The batch of some patients."""
        return type(self)(**{field.name: getattr(self, field.name)[patients] for field in fields(self)})


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
        self, clean: Tensor, labels: Tensor, streams: PatientStreams, step: int, rows: NDArray[np.int64]
    ) -> DiffusionBatch:
        """Noise levels, noise and hidden labels.

        Args:
            clean: [B, D]; what follows the first ``len(rows)`` rows is padding.
            labels: [B], likewise.
            streams: the patients' diffusion randomness.
            step: number of the step in the round.
            rows: which patients these are.
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
            present=torch.arange(patients, device=clean.device) < len(rows),
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
) -> NDArray[np.int64]:
    """Make the plan's DP-SGD steps of one round and return the update.

    Each step: Poisson selection of patients, per-patient clipping to C, Gaussian noise of standard deviation
    ``noise_multiplier * C`` on the sum, division by the *public* expected batch size. An empty selection makes a step
    of noise alone. Mechanism: :meth:`TrainPlan.mechanism` of a training round.

    Args:
        plan: the accepted plan.
        site_name: this site in the plan's roster.
        schema: columns and label values.
        dataset: the site's patients.
        model_vector: [P], the global model.
        anchor: [L, D] anchor logits, or None.
        device: where to compute.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only. Noise is added once per step, whatever the tiles.

    Returns:
        [P], fixed point, of L2 norm at most ``plan.federation.update_norm`` (up to rounding).

    Raises:
        DataError: if the data does not have the schema's columns or labels.
        ProtocolError: if the update is not finite.
        SnapshotError: if the model vector has another length.
    """
    layout = CodeLayout.of(schema)
    _check_dataset(dataset, layout)
    network = build_code_denoiser(layout, plan.model).to(device)
    load_parameter_vector(network, model_vector)
    logits = np.zeros((layout.label_values, layout.width), np.float32) if anchor is None else anchor
    prior = prior_logits(torch.from_numpy(np.array(logits, dtype=np.float32)), layout).to(device)
    loss = DiffusionLoss(spec=plan.model, layout=layout, prior=prior)
    clip_norm = float(plan.privacy.clip_norm)
    performance = performance or Performance()
    tile = performance.tile(plan.model.noise_levels * layout.width)
    gradients = PatientGradients(network, loss, clip_norm, performance)
    noise_std = float(plan.privacy.noise_multiplier) * clip_norm
    batch_size = plan.expected_batch_size(site_name)

    # The exact model is kept in float64, beside the float32 network that computes gradients.
    exact = torch.from_numpy(model_vector.astype(np.float64)).requires_grad_()
    optimiser = _optimiser(exact, plan)
    exact.grad = torch.zeros_like(exact)
    streams = PatientStreams(randomness)
    with freed_memory_kept():
        for step in range(plan.federation.steps_per_round):
            chosen = select_patients(len(dataset), plan.privacy.selection_rate, randomness)
            batches = _batches(dataset, chosen, loss, streams, step, device, tile)
            exact.grad.copy_(gradients.clipped_sum(batches))
            randomness.add_normal(exact.grad.numpy(), noise_std)
            exact.grad /= batch_size
            optimiser.step()
            load_parameter_vector(network, exact.detach().numpy().astype(np.float32))
    if gradients.left_out:
        _log.warning(
            "%s: %d times a patient's gradient was not finite and did not count", site_name, gradients.left_out
        )
    return fixed_point_update(model_vector, exact.detach().numpy(), float(plan.federation.update_norm))


def _batches(
    dataset: PatientDataset,
    chosen: NDArray[np.int64],
    loss: DiffusionLoss,
    streams: PatientStreams,
    step: int,
    device: torch.device | str,
    tile: int,
) -> Iterator[DiffusionBatch]:
    for start in range(0, len(chosen), tile):
        rows = chosen[start : start + tile]
        # Tiles of one shape: with another shape a matrix product may round other patients' rows in another way, and a
        # model made for it would blow that up.
        clean = np.zeros((tile, dataset.features.shape[1]), np.float32)
        labels = np.zeros(tile, np.int64)
        clean[: len(rows)], labels[: len(rows)] = dataset.features[rows], dataset.labels[rows]
        yield loss.draw(torch.from_numpy(clean).to(device), torch.from_numpy(labels).to(device), streams, step, rows)


def _optimiser(parameters: Tensor, plan: TrainPlan) -> torch.optim.Optimizer:
    kind = torch.optim.SGD if plan.optimiser.name == "sgd" else torch.optim.Adam
    return kind([parameters], lr=plan.learning_rate())


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
