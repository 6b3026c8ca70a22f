"""The code denoiser's network: a small residual MLP that predicts how columns bear on each other.

Its output is a *correction* in logits. What each column's own noisy value and its noisy prevalence say is added outside
(:mod:`synclave_shared.diffusion.preconditioning`), so the untrained network, whose last layer is zero, is already the
exact denoiser of independent columns, and all that the privacy budget has to pay for are the correlations.

Shapes: ``B`` patients, ``K`` noise levels, ``D`` columns, ``L`` label values, ``F`` noise features, ``P`` parameters.
All parameters sit in Linear and LayerNorm leaves, each used once per forward pass: what exact per-patient clipping needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_shared.errors import SnapshotError
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import ModelSpec

if TYPE_CHECKING:
    from synclave_shared.data.schema import Schema

__all__ = [
    "CodeDenoiser",
    "anchor_size",
    "build_code_denoiser",
    "load_parameter_vector",
    "model_payload_size",
    "parameter_count",
    "parameter_vector",
    "split_payload",
]


class ResidualBlock(nn.Module):
    """``h + W2 silu(W1 norm(h))``."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, hidden)
        self.narrow = nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, K, hidden] to [B, K, hidden]."""
        narrowed: Tensor = self.narrow(nn.functional.silu(self.widen(self.norm(hidden))))
        return hidden + narrowed


class CodeDenoiser(nn.Module):
    """Correction of the independent columns' posterior logits.

    Args:
        spec: sizes.
        layout: columns and label values.
    """

    def __init__(self, spec: ModelSpec, layout: CodeLayout) -> None:
        super().__init__()
        self.columns = nn.Linear(layout.width, spec.hidden)
        self.condition = nn.Linear(spec.noise_features + layout.label_values + 1, spec.hidden)
        self.blocks = nn.ModuleList(ResidualBlock(spec.hidden) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.hidden)
        self.head = nn.Linear(spec.hidden, layout.width)

    def forward(self, evidence: Tensor, condition: Tensor) -> Tensor:
        """Correction logits.

        Args:
            evidence: [B, K, D], independent posterior minus prior of each column.
            condition: [B, K, F + L + 1], noise features and the one-hot label (last place: hidden label).

        Returns:
            [B, K, D], zero before any training.
        """
        hidden = self.columns(evidence) + self.condition(condition)
        for block in self.blocks:
            hidden = block(hidden)
        correction: Tensor = self.head(self.norm(hidden))
        return correction


def build_code_denoiser(spec: ModelSpec, layout: CodeLayout) -> CodeDenoiser:
    """The untrained network: the same bits for the same spec and layout on one version of torch."""
    generator = torch.Generator().manual_seed(spec.init_seed)
    model = CodeDenoiser(spec, layout)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(model.head.weight)
    return model


def parameter_count(spec: ModelSpec, schema: Schema) -> int:
    """Number of parameters P, without building the network."""
    layout = CodeLayout.of(schema)
    return _count(spec, layout)


def _count(spec: ModelSpec, layout: CodeLayout) -> int:
    with torch.device("meta"):
        model = CodeDenoiser(spec, layout)
    return sum(parameter.numel() for parameter in model.parameters())


def anchor_size(schema: Schema) -> int:
    """Number of anchor logits in a payload: one per label value and column."""
    return len(schema.label.values) * schema.width


def model_payload_size(spec: ModelSpec, schema: Schema) -> int:
    """Number of float32 values that go to a site each round: P parameters, then L*D anchor logits."""
    return parameter_count(spec, schema) + anchor_size(schema)


def split_payload(
    payload: NDArray[np.float32], spec: ModelSpec, schema: Schema
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take a round's payload apart.

    Returns:
        Parameters [P] and anchor logits [L, D] (zeros: no anchor).

    Raises:
        SnapshotError: if the length is not :func:`model_payload_size`.
    """
    parameters = parameter_count(spec, schema)
    expected = parameters + anchor_size(schema)
    if payload.shape != (expected,):
        raise SnapshotError(
            expected=f"{expected} values: {parameters} parameters and {expected - parameters} anchor logits",
            found=f"shape {payload.shape}",
            remedy="Check that coordinator and site run the same version of Synclave.",
        )
    return payload[:parameters], payload[parameters:].reshape(len(schema.label.values), schema.width)


def parameter_vector(model: nn.Module) -> NDArray[np.float32]:
    """All parameters as one float32 vector [P], in the order of ``model.parameters()``."""
    with torch.no_grad():
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    return flat.to(device="cpu", dtype=torch.float32).numpy().copy()


def load_parameter_vector(model: nn.Module, vector: NDArray[np.float32]) -> None:
    """Overwrite all parameters with ``vector`` [P].

    Raises:
        SnapshotError: if the length differs or a value is not finite; the model is then unchanged.
    """
    parameters = list(model.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (size,) or not np.all(np.isfinite(vector)):
        raise SnapshotError(
            expected=f"{size} finite parameters",
            found=f"shape {vector.shape}" if vector.shape != (size,) else "NaN or infinity",
            remedy="Use the snapshot of the plan that this model belongs to.",
        )
    values = torch.from_numpy(np.array(vector, dtype=np.float32))
    position = 0
    with torch.no_grad():
        for parameter in parameters:
            part = values[position : position + parameter.numel()]
            parameter.copy_(part.reshape(parameter.shape))
            position += parameter.numel()
