"""Opacus' own two ways to clip, behind the same interface: the one module that knows Opacus.

*hooks* forms every patient's gradient (exact, and by far the most memory); *ghost* takes norms in a first backward pass
and sums in a second one. They serve as references and where a machine prefers them; neither changes what is promised.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from opacus.grad_sample import (
    GradSampleModule,
    GradSampleModuleFastGradientClipping,
    register_grad_sampler,
)
from torch import Tensor, nn

from synclave_client.training.private.batch import PatientBatch, PatientRows
from synclave_client.training.private.book_keeping import check_losses
from synclave_client.training.private.rules import trained_parameters
from synclave_shared.errors import ClippingError
from synclave_shared.models.coupling import SymmetricCoupling

__all__ = ["Ghost", "Hooks"]

Loss = Callable[[nn.Module, Any], Tensor]
Autocast = Callable[[], AbstractContextManager[Any]]


def _levels(values: Tensor) -> Tensor:
    return values[:, None] if values.dim() == 2 else values


@register_grad_sampler(SymmetricCoupling)  # type: ignore[untyped-decorator]
def _coupling_gradients(
    layer: SymmetricCoupling, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    outer = torch.bmm(_levels(backprops).mT, _levels(activations[0]))
    rows, columns = torch.triu_indices(layer.width, layer.width, device=outer.device)
    return {layer.weight: (outer.triu() + outer.tril(-1).mT)[:, rows, columns]}


@contextmanager
def _expected_hook_warning() -> Iterator[None]:
    """Silence torch's remark that the first layer's input needs no gradient: it is data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        yield


@dataclass(slots=True, kw_only=True)
class _HooksPass:
    losses: Tensor
    squared_bounds: Tensor
    gradients: dict[str, Tensor]

    @torch.no_grad()
    def add_weighted(self, weights: Tensor, totals: dict[str, Tensor], *, first: bool) -> None:
        bad = (weights == 0).nonzero()[:, 0]
        for name, own in self.gradients.items():
            own = own.index_fill_(0, bad, 0).to(totals[name].dtype)
            if first:
                totals[name].zero_()
            totals[name].add_(torch.tensordot(weights.to(own.dtype), own, dims=1))


class Hooks:
    """Every patient's gradient is formed (``GradSampleModule``).

    Raises:
        ClippingError: for what Opacus would get wrong without a word.
    """

    def __init__(self, network: nn.Module, loss: Loss, autocast: Autocast) -> None:
        _check_embeddings(network)
        self._network = network
        self._loss = loss
        self._autocast = autocast
        self._parameters = trained_parameters(network)

    def run(self, batch: PatientBatch) -> _HooksPass:
        """One forward and one backward pass.

        Raises:
            ClippingError: if Opacus cannot do it.
        """
        rows = PatientRows.of(batch)
        with _hooked(GradSampleModule, self._network) as hooked:
            losses = _losses(self._loss, hooked, batch, self._autocast)
            torch.autograd.backward(losses.sum())
            gradients = {name: rows.sum(_sample(name, value)) for name, value in self._parameters.items()}
        squared = sum(
            (own.double().flatten(1).square().sum(1) for own in gradients.values()),
            torch.zeros(len(batch), dtype=torch.float64, device=losses.device),
        )
        return _HooksPass(losses=losses.detach(), squared_bounds=squared, gradients=gradients)


def _sample(name: str, parameter: nn.Parameter) -> Tensor:
    sample = getattr(parameter, "grad_sample", None)
    if isinstance(sample, list):
        sample = torch.stack(sample).sum(0)
    if not isinstance(sample, Tensor):
        raise ValueError(f"no gradient of {name} for each patient")
    return sample


@dataclass(slots=True, kw_only=True)
class _GhostPass:
    losses: Tensor
    squared_bounds: Tensor
    graph: Tensor
    engine: Ghost
    batch: PatientBatch

    def add_weighted(self, weights: Tensor, totals: dict[str, Tensor], *, first: bool) -> None:
        if first:
            for total in totals.values():
                total.zero_()
        self.engine.add_weighted(self.batch, self.graph, weights, totals)


class Ghost:
    """Norms in a first backward pass, the clipped sum in a second (``GradSampleModuleFastGradientClipping``).

    Raises:
        ClippingError: for what Opacus would get wrong without a word.
    """

    def __init__(self, network: nn.Module, loss: Loss, autocast: Autocast) -> None:
        _check_embeddings(network)
        if any(isinstance(module, SymmetricCoupling) for module in network.modules()):
            raise ClippingError(
                expected="couplings, whose sums are proved in float64, with another way to clip",
                found="ghost clipping, which sums in float32",
                remedy='Use clipping = "book-keeping", or "hooks".',
            )
        self._network = network
        self._loss = loss
        self._autocast = autocast
        self._parameters = trained_parameters(network)

    def run(self, batch: PatientBatch) -> _GhostPass:
        """The first of the two passes.

        Raises:
            ClippingError: if Opacus cannot do it, or patients have several rows.
        """
        if batch.patient_of_row is not None:
            raise ClippingError(
                expected="one row per patient with ghost clipping",
                found="several",
                remedy='Use clipping = "book-keeping", which folds rows into patients.',
            )
        with _hooked(GradSampleModuleFastGradientClipping, self._network) as hooked:
            losses = _losses(self._loss, hooked, batch, self._autocast)
            torch.autograd.backward(losses.sum(), retain_graph=True)
            bounds = hooked.get_norm_sample().detach().double()
        return _GhostPass(
            losses=losses.detach(), squared_bounds=bounds.square(), graph=losses, engine=self, batch=batch
        )

    def add_weighted(self, batch: PatientBatch, graph: Tensor, weights: Tensor, totals: dict[str, Tensor]) -> None:
        """The second pass; without the patients of weight 0 if there are any, whose gradients may not be finite."""
        kept = (weights > 0).nonzero()[:, 0]
        if not len(kept):
            return
        if len(kept) < len(weights):
            weights = weights[kept]
            with torch.enable_grad(), self._autocast():
                graph = self._loss(self._network, batch.select(kept))
        with _expected_hook_warning():
            torch.autograd.backward((graph * weights.to(graph.dtype)).sum())
        for name, value in self._parameters.items():
            if value.grad is not None:
                totals[name].add_(value.grad)
                value.grad = None


def _losses(loss: Loss, network: nn.Module, batch: PatientBatch, autocast: Autocast) -> Tensor:
    with torch.enable_grad(), autocast():
        losses = loss(network, batch)
    check_losses(losses, len(batch))
    return losses


def _check_embeddings(network: nn.Module) -> None:
    padded = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Embedding) and module.weight.requires_grad and module.padding_idx is not None
    ]
    if padded:
        raise ClippingError(
            expected="embeddings without padding_idx, whose entry Opacus would train",
            found=", ".join(padded),
            remedy='Use clipping = "book-keeping", or leave padding out of the loss instead.',
        )


@contextmanager
def _hooked(wrapper: type[Any], network: nn.Module) -> Iterator[Any]:
    """The network under Opacus' hooks, which are gone afterwards; what Opacus cannot do is an error of ours."""
    try:
        hooked = wrapper(network, loss_reduction="sum")
    except (NotImplementedError, ValueError) as error:
        raise _refusal(error) from error
    try:
        with _expected_hook_warning():
            yield hooked
    except (NotImplementedError, RuntimeError, ValueError, AttributeError) as error:
        raise _refusal(error) from error
    finally:
        # Off for the second pass of ghost clipping too, which goes back through the same graph.
        hooked.disable_hooks()
        hooked.zero_grad(set_to_none=True)
        hooked.cleanup()


def _refusal(error: Exception) -> ClippingError:
    text = str(error).splitlines()
    return ClippingError(
        expected="a network that Opacus can clip",
        found=f"{type(error).__name__}: {text[0] if text else ''}",
        remedy='Use clipping = "book-keeping", which covers more layers.',
    )
