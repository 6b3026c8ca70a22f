"""The slow truth: one backward pass per patient, alone in its batch."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.private_step.models import Rows
from synclave_client.performance import Performance
from synclave_client.training.private import PatientGradients
from synclave_client.training.private.engine import ROUNDING_MARGIN

Loss = Callable[[Any, Rows], Tensor]


def squared_outputs(network: Any, batch: Rows) -> Tensor:
    """A loss whose gradients differ from row to row: mean square over a patient's own rows."""
    return batch.mean_over_rows(network(batch.x).square().flatten(1).sum(1))


def rows(x: Tensor, owners: list[int] | None = None, patients: int | None = None, y: Tensor | None = None) -> Rows:
    """Rows x [R, ...]; ``owners``: the patient of each row, ascending (None: each row is a patient)."""
    if patients is None:
        patients = len(x) if owners is None else max(owners, default=-1) + 1
    return Rows(
        x=x,
        y=torch.zeros(len(x)) if y is None else y,
        present=torch.ones(patients, dtype=torch.bool),
        patient_of_row=None if owners is None else torch.tensor(owners, dtype=torch.int64),
    )


def true_gradients(network: nn.Module, loss: Loss, batch: Rows, autocast: bool = False) -> list[Tensor]:
    """[P] per patient, float64."""
    parameters = [value for value in network.parameters() if value.requires_grad]
    found = []
    for patient in range(len(batch)):
        alone = batch.select(torch.tensor([patient]))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            own = loss(network, alone).sum()
        parts = torch.autograd.grad(own, parameters, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([part.reshape(-1).double() for part in parts]))
    return found


def true_clipped_sum(gradients: list[Tensor], clip_norm: float) -> Tensor:
    """What the engine promises: each gradient scaled to at most C (1 - 2^-9)."""
    limit = clip_norm * (1 - ROUNDING_MARGIN)
    return torch.stack([own * min(1.0, limit / max(float(own.norm()), 1e-300)) for own in gradients]).sum(0)


def clipped_sum(
    network: nn.Module, loss: Loss, batches: list[Rows], clip_norm: float, performance: Performance | None = None
) -> Tensor:
    """The engine's sum, float64, in memory of its own."""
    return PatientGradients(network, loss, clip_norm, performance).clipped_sum(batches).double().clone()


def deviation(
    network: nn.Module,
    loss: Loss,
    batch: Rows,
    performance: Performance | None = None,
    share: float = 0.5,
) -> float:
    """Deviation of the engine from the slow truth when about ``share`` of the patients are *not* clipped.

    In units of the patients' contributions, as a root sum of squares: their sum may cancel. Where a patient's own terms
    cancel, float32 itself errs; ten times what the slow truth in float32 lacks of that in float64 is not counted.
    """
    low = performance is not None and performance.precision == "bfloat16"
    truth = true_gradients(network, loss, batch, autocast=low)
    norms = torch.stack([own.norm() for own in truth])
    clip_norm = float(norms.quantile(share)) + 1e-9
    expected = true_clipped_sum(truth, clip_norm)
    found = clipped_sum(network, loss, [batch], clip_norm, performance)
    scale = torch.stack([norms, torch.full_like(norms, clip_norm)]).amin(0).norm()
    exact = true_gradients(copy.deepcopy(network).double(), loss, in_float64(batch)) if scale > 0 and not low else truth
    own_error = torch.stack([(a - b).norm() for a, b in zip(truth, exact, strict=True)]).norm()
    return float(((found - expected).norm() - 10 * own_error).clamp_min(0) / scale.clamp_min(1e-12))


def in_float64(batch: Rows) -> Rows:
    """The same batch in float64."""
    x, y = (value.double() if value.is_floating_point() else value for value in (batch.x, batch.y))
    return dataclasses.replace(batch, x=x, y=y)
