"""Per-patient clipped gradients: the one place that knows Opacus.

Formal statement. :meth:`PatientGradients.clipped_sum` returns a sum of one contribution per patient, each of L2 norm at
most C. Adding or removing one patient moves the *returned floating-point numbers* by at most C, whatever finite model,
anchor and clip norm the coordinator chose, for up to 2^18 patients in a step and 2^15 columns, as long as the others'
losses do not depend on the patient (so the loop computes them in tiles of one shape).

Opacus' hooks hand over, per coupling layer, what the K levels of a patient bring in float32: inputs x_k and gradients
of the output g_k. The patient's gradient is G = sum_k g_k x_k^T, folded to the symmetric parameters; it is weighted and
summed here in float64 and never formed for one patient alone (ghost clipping: Lee and Kifer 2021, Li et al. 2022).

Why C holds although every step rounds. Write S = sum_k |g_k| |x_k|, n the true norm of the folded G, u = 2^-53:

1. *The norm.* ``n^2`` is the sum of three terms (:func:`_norm_bounds`), each at most S^2 in size and made of products
   of float32 numbers, exact in float64. Inner products of D terms and sums over K^2 pairs err by at most
   ``6 (D + K^2 + 4) u S^2 < 2^-34 S^2`` for D <= 2^15, K <= 64. So the root errs by at most 2^-17 S, and
   ``b = computed norm + 2^-14 S`` (:data:`NORM_RESERVE`) is above n. If the levels nearly cancel, n is lost in
   rounding; b is then about 2^-14 S and the weight shrinks accordingly.
2. *The contribution.* With the weight ``w = C' / b``, or 1 if smaller, ``w n <= C'``, where ``C' = C (1 - 2^-9)``
   (:data:`ROUNDING_MARGIN`), and ``w S <= 2^14 C'``.
3. *The sum.* A product of at most 2^10 rows (:data:`ROWS_AT_ONCE`) errs by at most ``2 * 2^10 u sum_i w_i S_i``, both
   triangles counted: over N patients ``2^11 2^-53 2^14 N C = 2^-28 N C``, and adding up the pieces by far less. Twice,
   with and without the patient, that is below ``2^-9 C`` for N <= 2^18.

Contribution and rounding together are at most C. A patient whose gradient is not finite has weight 0, its numbers are
replaced by zeros before any product, and the work is the same whatever the data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModuleFastGradientClipping, register_norm_sampler
from torch import Tensor, nn

from synclave_shared.models.codes import SymmetricCoupling

__all__ = ["PatientGradients"]

NORM_RESERVE: Final = 2.0**-14
"""Share of ``sum_k |g_k| |x_k|`` that is added to a computed norm (see above): 0.01 % of the signal."""

ROUNDING_MARGIN: Final = 2.0**-9
"""Relative reserve under the clip norm for the rounding of the sums."""

ROWS_AT_ONCE: Final = 2**10
"""Rows (patients times levels) of one matrix product; the bound on its rounding grows with it."""

SMALLEST_NORM: Final = 1e-300
"""In place of a norm of 0, which needs no weight but must not divide."""

_captured: WeakKeyDictionary[SymmetricCoupling, tuple[Tensor, Tensor]] = WeakKeyDictionary()


@register_norm_sampler(SymmetricCoupling)  # type: ignore[untyped-decorator]
def _coupling_norms(
    layer: SymmetricCoupling, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Upper bounds [B] of the per-patient gradient norms; keeps what the gradients are made of."""
    x, g = activations[0].double(), backprops.double()
    if x.dim() == 2:
        x, g = x[:, None], g[:, None]
    _captured[layer] = (x, g)
    return {layer.weight: _norm_bounds(x, g)}


def _norm_bounds(x: Tensor, g: Tensor) -> Tensor:
    """Upper bounds [B] of the gradient norms of a symmetric coupling, without the D x D gradients.

    With ``G = sum_k g_k x_k^T`` over a patient's K levels the gradient is ``G_ij + G_ji`` for i < j and ``G_ii`` on the
    diagonal; its squared norm is ``|G|^2 + tr(G G) - sum_i G_ii^2``, all from K x K products.

    Args:
        x: [B, K, D], float32 values in float64.
        g: [B, K, D], likewise.

    Returns:
        Not finite exactly where a value of the patient is not finite.
    """
    crossed = g @ x.transpose(1, 2)
    squared = ((g @ g.transpose(1, 2)) * (x @ x.transpose(1, 2))).sum((1, 2))
    squared = squared + (crossed * crossed.transpose(1, 2)).sum((1, 2)) - (g * x).sum(1).square().sum(1)
    bounds: Tensor = squared.clamp_min(0).sqrt() + NORM_RESERVE * (g.norm(dim=-1) * x.norm(dim=-1)).sum(1)
    return bounds


class PatientBatch(Protocol):
    """Inputs of some patients: the first axis of everything inside is the patient."""

    def __len__(self) -> int:
        """Number of rows, padding included."""
        ...

    @property
    def present(self) -> Tensor:
        """[B], false for rows of padding, which contribute nothing."""
        ...


Batch = TypeVar("Batch", bound=PatientBatch)


class PatientGradients(Generic[Batch]):
    """Clipped sums of per-patient gradients of one network.

    Args:
        network: the network; every parameter must belong to a :class:`SymmetricCoupling`.
        loss: ``loss(network, batch)`` -> [B], each patient's own loss; it must not mix patients.
        clip_norm: C, L2 bound of one patient's contribution.

    Raises:
        ValueError: if the network has a parameter whose gradients cannot be bounded, or a buffer.
    """

    def __init__(self, network: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], clip_norm: float) -> None:
        for name, module in network.named_modules():
            if next(module.parameters(recurse=False), None) is not None and type(module) is not SymmetricCoupling:
                raise ValueError(f"{name or 'the network'} holds parameters in a {type(module).__name__}")
            if next(module.buffers(recurse=False), None) is not None:
                raise ValueError(f"{name or 'the network'} holds a buffer, which could carry data between patients")
        self._layers = [module for module in network.modules() if isinstance(module, SymmetricCoupling)]
        self._network = GradSampleModuleFastGradientClipping(
            network.train(), loss_reduction="sum", max_grad_norm=clip_norm
        )
        self._loss = loss
        self._limit = clip_norm * (1.0 - ROUNDING_MARGIN)
        self._size = sum(layer.weight.numel() for layer in self._layers)

    def clipped_sum(self, batches: Iterable[Batch]) -> NDArray[np.float64]:
        """Sum of clipped gradients over all patients of ``batches``: one step's sum, in pieces that fit into memory.

        Returns:
            [P]; zeros if there is no patient.
        """
        total = np.zeros(self._size)
        for batch in batches:
            if len(batch) > 0:
                total += self._clipped_piece(batch)
        return total

    def _clipped_piece(self, batch: Batch) -> NDArray[np.float64]:
        losses = self._loss(self._network, batch)
        if losses.shape != (len(batch),):
            raise ValueError(f"the loss must give one value per patient, not shape {tuple(losses.shape)}")
        with _expected_hook_warning():
            torch.autograd.backward(losses.sum())
        bounds = self._network.get_norm_sample().detach()
        counted = batch.present & torch.isfinite(bounds) & torch.isfinite(losses.detach())
        weights = torch.where(counted, (self._limit / bounds.clamp_min(SMALLEST_NORM)).clamp_max(1.0), 0.0)
        parts = [_weighted_gradient(*_captured.pop(layer), weights, counted) for layer in self._layers]
        for layer in self._layers:
            layer.weight.grad = None
        return torch.cat(parts).cpu().numpy()


def _weighted_gradient(x: Tensor, g: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
    """``sum_i w_i`` times the gradient of patient i [D*(D+1)/2], float64, over the patients that are counted."""
    # A weight of 0 alone would not do: 0 * NaN is NaN.
    x = torch.where(counted[:, None, None], x, 0.0).flatten(0, 1)
    g = (weights[:, None, None] * torch.where(counted[:, None, None], g, 0.0)).flatten(0, 1)
    outer = x.new_zeros(x.shape[1], x.shape[1])
    for g_rows, x_rows in zip(torch.split(g, ROWS_AT_ONCE), torch.split(x, ROWS_AT_ONCE), strict=True):
        outer += g_rows.T @ x_rows
    rows, columns = torch.triu_indices(*outer.shape, device=outer.device)
    return (outer.triu() + outer.tril(-1).T)[rows, columns]


@contextmanager
def _expected_hook_warning() -> Iterator[None]:
    """Silence torch's remark that the first layer's input needs no gradient: it is data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        yield
