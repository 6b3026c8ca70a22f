"""The code denoiser's network: how columns bear on each other.

Its output is a *correction* in logits. What each column's own noisy value and its noisy prevalence say is added
outside (:mod:`synclave_shared.diffusion.preconditioning`), so the untrained network, whose weights are zero where it
matters, is already the exact denoiser of independent columns, and all that the privacy budget has to pay for are the
correlations.

The network is one symmetric matrix of couplings between standardised columns: the first-order expansion of the exact
posterior in the correlations (a Boltzmann machine's mean-field step). One patient's gradient is then an outer product
of standardised residuals, its expectation the matrix of correlations that the model misses: under noise it learns in
a few steps what a multilayer network cannot find at all. One bilinear layer also has per-patient gradients whose norms
can be bounded with a proof, rounding included, whatever model the coordinator sends.

Shapes: ``B`` patients, ``K`` noise levels, ``D`` columns, ``L`` label values, ``P`` parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_shared.errors import SnapshotError
from synclave_shared.models.layout import CodeLayout

if TYPE_CHECKING:
    from synclave_shared.data.schema import Schema

__all__ = [
    "CodeDenoiser",
    "SymmetricCoupling",
    "anchor_size",
    "build_code_denoiser",
    "load_parameter_vector",
    "model_payload_size",
    "parameter_count",
    "parameter_vector",
    "split_payload",
]


class SymmetricCoupling(nn.Module):
    """``x -> M x`` with a symmetric matrix M, of which the D*(D+1)/2 free values are the parameters.

    Sharing the value of (i, j) and (j, i) halves the coordinates that receive noise, and a patient's clip norm is not
    spent on an antisymmetric part that means nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.zeros(width * (width + 1) // 2))

    def matrix(self) -> Tensor:
        """M [D, D]."""
        rows, columns = torch.triu_indices(self.width, self.width, device=self.weight.device)
        upper = self.weight.new_zeros(self.width, self.width).index_put((rows, columns), self.weight)
        return upper + upper.triu(1).T

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return values @ self.matrix()


class CodeDenoiser(nn.Module):
    """Correction of the independent columns' posterior logits, both sides standardised.

    Args:
        layout: columns and label values.
    """

    def __init__(self, layout: CodeLayout) -> None:
        super().__init__()
        self.coupling = SymmetricCoupling(layout.width)

    def forward(self, evidence: Tensor) -> Tensor:
        """Correction logits.

        Args:
            evidence: [B, K, D], standardised difference of each column's independent posterior and its prior.

        Returns:
            [B, K, D], zero before any training.
        """
        correction: Tensor = self.coupling(evidence)
        return correction


def build_code_denoiser(layout: CodeLayout) -> CodeDenoiser:
    """The untrained network: all couplings zero."""
    return CodeDenoiser(layout)


def parameter_count(schema: Schema) -> int:
    """Number of parameters P: the free values of a symmetric D x D matrix."""
    return schema.width * (schema.width + 1) // 2


def anchor_size(schema: Schema) -> int:
    """Number of anchor logits in a payload: one per label value and column."""
    return len(schema.label.values) * schema.width


def model_payload_size(schema: Schema) -> int:
    """Number of float32 values that go to a site each round: P parameters, then L*D anchor logits."""
    return parameter_count(schema) + anchor_size(schema)


def split_payload(payload: NDArray[np.float32], schema: Schema) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take a round's payload apart.

    Returns:
        Parameters [P] and anchor logits [L, D] (zeros: no anchor).

    Raises:
        SnapshotError: if the length is not :func:`model_payload_size`.
    """
    parameters = parameter_count(schema)
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
