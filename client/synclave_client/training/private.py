"""Per-patient clipped gradients: the one place that knows Opacus.

Formal statement. Let g_i be the gradient of patient i's own loss. :meth:`PatientGradients.clipped_sum` returns the sum
over the given patients of ``g_i * min(1, C / |g_i|)``, a patient with a gradient that is not finite contributing 0.
Adding or removing one patient therefore moves the result by at most C in L2, up to float32 rounding, for which C is
lowered by a relative :data:`ROUNDING_MARGIN`.

Opacus measures the norms without forming the per-patient gradients (ghost clipping: Lee and Kifer 2021, Li et al.
2022); a second backward pass of the weighted losses gives the clipped sum. That is exact only if each parameter
belongs to one layer whose norms are exact and is used once, which the constructor and Opacus check.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModuleFastGradientClipping, register_norm_sampler
from torch import Tensor, nn

from synclave_shared.models.codes import SymmetricCoupling

__all__ = ["PatientGradients"]

ROUNDING_MARGIN: Final = 1e-4
"""Relative reserve under the clip norm for norms and sums computed in float32."""

EXACT_LEAVES: Final = (nn.Linear, nn.LayerNorm, SymmetricCoupling)
"""Layers whose per-patient norms our tests compare with one-at-a-time backward passes."""


@register_norm_sampler(SymmetricCoupling)  # type: ignore[untyped-decorator]
def _coupling_norms(
    layer: SymmetricCoupling, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-patient gradient norms [B] of a symmetric coupling, without the D x D gradients.

    With ``G = sum_k g_k x_k^T`` over a patient's K levels the gradient is ``G_ij + G_ji`` for i < j and ``G_ii`` on the
    diagonal; its squared norm is ``|G|^2 + tr(G G) - sum_i G_ii^2``, all from K x K products.
    """
    # float64: for strongly correlated columns the three terms nearly cancel.
    x, g = activations[0].double(), backprops.double()
    if x.dim() == 2:
        x, g = x[:, None], g[:, None]
    crossed = g @ x.transpose(1, 2)
    squared = ((g @ g.transpose(1, 2)) * (x @ x.transpose(1, 2))).sum((1, 2))
    squared = squared + (crossed * crossed.transpose(1, 2)).sum((1, 2)) - (g * x).sum(1).square().sum(1)
    return {layer.weight: squared.clamp_min(0).sqrt().to(backprops.dtype)}


class PatientBatch(Protocol):
    """Inputs of some patients: the first axis of everything inside is the patient."""

    def __len__(self) -> int:
        """Number of patients."""
        ...

    def select(self, chosen: Tensor) -> Self:
        """The patients where the boolean tensor ``chosen`` [B] is true."""
        ...


Batch = TypeVar("Batch", bound=PatientBatch)


class PatientGradients(Generic[Batch]):
    """Clipped sums of per-patient gradients of one network.

    Args:
        network: the network; every parameter must belong to one of :data:`EXACT_LEAVES`.
        loss: ``loss(network, batch)`` -> [B], each patient's own loss; it must not mix patients.
        clip_norm: C, L2 bound of one patient's contribution.

    Raises:
        ValueError: if the network has a parameter that cannot be clipped exactly, or a buffer.
    """

    def __init__(self, network: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], clip_norm: float) -> None:
        for name, module in network.named_modules():
            if next(module.parameters(recurse=False), None) is not None and type(module) not in EXACT_LEAVES:
                raise ValueError(f"{name or 'the network'} holds parameters in a {type(module).__name__}")
            if next(module.buffers(recurse=False), None) is not None:
                raise ValueError(f"{name or 'the network'} holds a buffer, which could carry data between patients")
        self._network = GradSampleModuleFastGradientClipping(
            network.train(), loss_reduction="sum", max_grad_norm=clip_norm
        )
        self._parameters = list(network.parameters())
        self._loss = loss
        self._limit = clip_norm * (1.0 - ROUNDING_MARGIN)
        self._size = sum(parameter.numel() for parameter in self._parameters)

    def clipped_sum(self, batches: Iterable[Batch]) -> NDArray[np.float64]:
        """Sum of clipped gradients over all patients of ``batches``: one step's sum, in pieces that fit into memory.

        Returns:
            [P]; zeros if there is no patient.
        """
        total = np.zeros(self._size)
        for batch in batches:
            while len(batch) > 0:
                finite, piece = self._clipped_piece(batch)
                if piece is not None:
                    total += piece
                    break
                batch = batch.select(finite)
        return total

    def _clipped_piece(self, batch: Batch) -> tuple[Tensor, NDArray[np.float64] | None]:
        """Which patients have finite gradients, and the clipped sum if all have."""
        self._clear()
        self._network.enable_hooks()
        losses = self._loss(self._network, batch)
        if losses.shape != (len(batch),):
            raise ValueError(f"the loss must give one value per patient, not shape {tuple(losses.shape)}")
        with _expected_hook_warning():
            torch.autograd.backward(losses.sum(), retain_graph=True)
        norms = self._network.get_norm_sample().detach()
        finite = torch.isfinite(norms) & torch.isfinite(losses.detach())
        self._network.disable_hooks()
        if not bool(finite.all()):
            # A weight of 0 would not do: 0 * NaN is NaN. The others are computed again without them.
            return finite, None
        self._clear()
        weights = (self._limit / norms.clamp_min(1e-30)).clamp_max(1.0)
        with _expected_hook_warning():
            torch.autograd.backward((losses * weights).sum())
        flat = torch.cat([_gradient(parameter) for parameter in self._parameters])
        self._clear()
        return finite, flat.cpu().to(torch.float64).numpy()

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


@contextmanager
def _expected_hook_warning() -> Iterator[None]:
    """Silence torch's remark that the first layer's input needs no gradient: it is data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        yield


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros(parameter.numel(), device=parameter.device)
    return parameter.grad.reshape(-1)
