"""Per-patient norms and clipped sums from one forward and one backward pass (book-keeping: Bu et al. 2022).

The backward pass computes gradients of activations only. Afterwards the recorded inputs and output gradients give first
the norms, then, weighted, the clipped sum: the product that autograd would have made, made once. A plain step costs the
same three products per layer; what is added is the norms.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from synclave_client.training.private.batch import PatientBatch, PatientRows, PatientWeights
from synclave_client.training.private.capture import recorded
from synclave_client.training.private.factors import Dense, Factor, Outer, joined, norms_of
from synclave_client.training.private.norms import Norms
from synclave_client.training.private.recompute import recomputed_factors
from synclave_client.training.private.rules import (
    FORMED_AT_ONCE,
    LAYER_RULES,
    LayerUse,
    is_recomputed,
    own_parameters,
    trained_parameters,
)
from synclave_shared.errors import ClippingError

__all__ = ["SMALLEST_SHARE", "BookKeeping", "BookKeepingPass", "check_losses", "recorded_layers"]

SMALL_VALUES: Final = 2**16
"""Numbers that are copied in less time than an operation on them takes to begin."""

SMALLEST_SHARE: Final = 2.0**-7
"""A layer's norm is held to be at least this share of its reach ``sum_t |g_t| |x_t|``, so that no weight makes terms
large that cancel. Random tokens cancel to 1 / sqrt(T) only."""

COVERED: Final = 2.0**-8
"""Relative error of a squared norm that the margin under the clip norm (2^-8 of the norm) covers; half of it."""


@dataclass(slots=True, kw_only=True)
class BookKeepingPass:
    """What one pass over a batch left behind.

    Attributes:
        losses: [B].
        squared_bounds: float64 [B], bounds of the squared gradient norms.
        rows: which rows are whose.
        factors: per parameter, what its gradients are made of; used up by :meth:`add_weighted`.
        formed: small gradients of biases, scales and bare parameters side by side: they are many.
        formed_names: their parameters, in order.
    """

    losses: Tensor
    squared_bounds: Tensor
    rows: PatientRows
    factors: dict[str, list[Factor]]
    formed: Dense
    formed_names: list[str]

    @torch.no_grad()
    def add_weighted(self, weights: Tensor, totals: dict[str, Tensor], *, first: bool) -> None:
        """Add each patient's gradient times its weight [B] to the sums; weight 0 keeps even a NaN out.

        ``first``: what is in ``totals`` is of the step before and is overwritten.
        """
        own = PatientWeights.of(weights, self.rows, next(iter(totals.values())).dtype)
        for name, total in totals.items():
            # Given back one by one: what the next layer needs can take their place.
            parts = self.factors.pop(name, [])
            if first and len(parts) == 1 and isinstance(parts[0], Outer):
                # The largest sums: clearing them first would take as long as a tenth of the product.
                parts[0].put_weighted(own, total, keep=0)
                continue
            if first:
                total.zero_()
            for factor in parts:
                factor.add_weighted(own, total)
        if self.formed_names:
            sides = [totals[name] for name in self.formed_names]
            summed = torch.zeros(self.formed.values.shape[1], dtype=sides[0].dtype, device=sides[0].device)
            self.formed.add_weighted(own, summed)
            parts_of_sum = torch.split(summed, [side.numel() for side in sides])
            torch._foreach_add_([side.view(-1) for side in sides], list(parts_of_sum))


class BookKeeping:
    """The engine's passes over one network.

    Args:
        network: checked by :func:`synclave_client.training.private.rules.check_network`.
        loss: ``loss(network, batch)`` -> [B].
        autocast: context of the forward pass.
        totals: the sums by parameter name; their type is that in which norms and sums are formed.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        autocast: Callable[[], AbstractContextManager[Any]],
        totals: dict[str, Tensor],
    ) -> None:
        self._network = network
        self._loss = loss
        self._autocast = autocast
        self._totals = totals
        self._parameters = trained_parameters(network)
        self._names = {id(value): name for name, value in self._parameters.items()}
        self._layers = recorded_layers(network)
        self._unfolding: dict[str, int] = {}

    def run(self, batch: PatientBatch) -> BookKeepingPass:
        """One forward and one backward pass.

        Raises:
            ClippingError: if a parameter is used outside its layer, or a layer's input was overwritten meanwhile.
        """
        rows = PatientRows.of(batch)
        if rows.count == 0:
            return self._nobody(batch, rows)
        self._forget_gradients()
        arrived = partial(self._arrived, rows=rows)
        try:
            # Whatever the caller switched off: without gradients there is nothing to clip.
            with torch.enable_grad(), recorded(self._layers, rows.count, arrived) as uses:
                with self._autocast():
                    losses = self._loss(self._network, batch)
                check_losses(losses, len(batch))
                torch.autograd.backward(losses.sum())
            self._check_nothing_left()
        finally:
            self._forget_gradients()
        with torch.no_grad():
            factors = self._factors(uses, rows)
            formed_names = [name for name, parts in factors.items() if _is_small(parts)]
            formed = _side_by_side([factors.pop(name)[0] for name in formed_names], rows, losses)
            norms = [norms_of(parts, self._totals[name]) for name, parts in factors.items()] + [formed.norms()]
            squared = _squared_bounds(norms)
        return BookKeepingPass(
            losses=losses.detach(),
            squared_bounds=squared,
            rows=rows,
            factors=factors,
            formed=formed,
            formed_names=formed_names,
        )

    @staticmethod
    def _nobody(batch: PatientBatch, rows: PatientRows) -> BookKeepingPass:
        """Of patients who have no rows at all."""
        zeros = torch.zeros(len(batch), dtype=torch.float64, device=batch.present.device)
        formed = Dense(rows=rows, values=zeros[:, None].float())
        return BookKeepingPass(
            losses=zeros, squared_bounds=zeros, rows=rows, factors={}, formed=formed, formed_names=[]
        )

    def _factors(self, uses: list[LayerUse], rows: PatientRows) -> dict[str, list[Factor]]:
        factors: dict[str, list[Factor]] = {}
        for use in uses:
            if use.factors is None and use.pull is None:
                continue
            own = own_parameters(use.layer)
            for name, factor in (use.factors or self._factors_of(use, rows)).items():
                if name in own:
                    factors.setdefault(self._names[id(own[name])], []).append(factor)
        return {name: joined(parts) for name, parts in factors.items()}

    def _arrived(self, use: LayerUse, rows: PatientRows) -> None:
        """Called within the backward pass: small gradients are formed while their numbers are at hand."""
        if type(use.layer) in FORMED_AT_ONCE:
            with torch.no_grad():
                use.factors = self._factors_of(use, rows)
            use.args, use.kwargs = (), {}

    def _factors_of(self, use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
        if use.versions != tuple(value._version for value in use.tensors):
            raise ClippingError(
                expected=f"an input of {use.name} that stays as it was",
                found="one that was overwritten later in the forward pass",
                remedy="Do not use operations in place (for instance ReLU(inplace=True)) after that layer.",
            )
        if type(use.layer) in LAYER_RULES:
            self._check_unfolding(use, rows)
            return LAYER_RULES[type(use.layer)](use, rows)
        _, held = self._layers[use.name]
        mine = {id(value) for value in held}
        own = own_parameters(use.layer)
        return recomputed_factors(use, rows, [name for name, value in own.items() if id(value) in mine])

    def _check_unfolding(self, use: LayerUse, rows: PatientRows) -> None:
        """A layer that unfolds each row into m does so every time: chosen tokens of all rows are nobody's rows."""
        leading = use.output_gradient.shape[0] if use.output_gradient.dim() else 0
        if (
            leading % rows.count == 0
            and self._unfolding.setdefault(use.name, leading // rows.count) != leading // rows.count
        ):
            raise ClippingError(
                expected=f"{self._unfolding[use.name]} times the number of rows on the first axis of {use.name}",
                found=f"{leading} for {rows.count} rows",
                remedy="Keep the rows on the first axis; gather chosen places row by row, not over the batch.",
            )

    def _forget_gradients(self) -> None:
        for value in self._parameters.values():
            value.grad = None

    def _check_nothing_left(self) -> None:
        left = [name for name, value in self._parameters.items() if value.grad is not None]
        if left:
            raise ClippingError(
                expected="every parameter used by the layer that holds it, and nowhere else",
                found=f"a use outside of it: {', '.join(left)}",
                remedy="Call the layer itself; two layers may share one parameter, a function may not borrow it.",
            )


def _squared_bounds(norms: list[Norms]) -> Tensor:
    """Float64 [B] from the norms of all parameters: what each may lack beyond :data:`COVERED` is added, and a floor."""
    squared, reach, error = (
        torch.stack([column.double() for column in columns]) for columns in zip(*norms, strict=True)
    )
    bounds = torch.maximum(squared, (squared + error) / (1.0 + COVERED))
    return torch.maximum(bounds, (SMALLEST_SHARE * reach).square()).sum(0)


def _is_small(parts: list[Factor]) -> bool:
    """Whether a parameter's gradients are formed, and cheaper to copy than to handle one by one."""
    return len(parts) == 1 and isinstance(parts[0], Dense) and parts[0].values.numel() <= SMALL_VALUES


def _side_by_side(factors: list[Factor], rows: PatientRows, like: Tensor) -> Dense:
    values = [part.values.flatten(1) for part in factors if isinstance(part, Dense)]
    return Dense(rows=rows, values=torch.cat([like.new_zeros(len(like), 0, dtype=torch.float32), *values], dim=1))


def check_losses(losses: Tensor, patients: int) -> None:
    """Refuse what is not one loss per patient.

    Raises:
        ClippingError: if the shape is not [B], or the loss does not depend on the network.
    """
    if losses.shape != (patients,) or not losses.requires_grad:
        raise ClippingError(
            expected=f"one value per patient, [{patients}], that depends on the network's parameters",
            found=f"shape {tuple(losses.shape)}" if losses.requires_grad else "a constant",
            remedy="Average over a patient's own rows and columns only; a mean over the batch would mix patients.",
        )


def recorded_layers(network: nn.Module) -> dict[str, tuple[nn.Module, list[nn.Parameter]]]:
    """Layers to record, each with the parameters whose gradients it accounts for."""
    ruled = {
        id(value)
        for module in network.modules()
        if type(module) in LAYER_RULES
        for value in own_parameters(module).values()
    }
    layers: dict[str, tuple[nn.Module, list[nn.Parameter]]] = {}
    for name, module in network.named_modules():
        own = list(own_parameters(module).values())
        if type(module) in LAYER_RULES and own:
            layers[name] = (module, own)
        elif is_recomputed(module, ruled):
            layers[name] = (module, [value for value in own if id(value) not in ruled])
    return layers
