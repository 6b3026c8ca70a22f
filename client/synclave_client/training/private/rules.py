"""Which layers the engine knows, and what their parameters' gradients are made of.

A layer that is not here and comes from ``torch.nn`` is refused: whether it mixes patients is not known. A module from
elsewhere that holds parameters of its own is recomputed row by row (:mod:`.recompute`), which is exact for any module
that treats rows apart, and slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from synclave_client.training.private.batch import PatientRows
from synclave_client.training.private.convolution import ConvOuter
from synclave_client.training.private.coupling import Coupled
from synclave_client.training.private.factors import Dense, Factor, Lookup, Outer
from synclave_shared.errors import ClippingError
from synclave_shared.models.coupling import SymmetricCoupling

__all__ = [
    "FORMED_AT_ONCE",
    "LAYER_RULES",
    "LayerUse",
    "check_network",
    "is_recomputed",
    "own_parameters",
    "sum_type",
    "trained_parameters",
]

_REFUSED: Final = (_NormBase, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Refused with their subclasses: they mix patients or hold weights in ways that row-wise recomputation does not see."""


@dataclass(slots=True, kw_only=True)
class LayerUse:
    """One call of a layer in a forward pass.

    Attributes:
        name: of the layer in the network.
        layer: the layer.
        args, kwargs: what it was called with.
        versions: how often each tensor among them had been written to by then.
        pull: gradient of the summed losses at its output; None until the backward pass came by.
        factors: what its parameters' gradients are made of, where that was worked out as soon as the pull arrived.
    """

    name: str
    layer: nn.Module
    args: tuple[object, ...]
    kwargs: dict[str, object]
    versions: tuple[int, ...]
    pull: Tensor | None = None
    factors: dict[str, Factor] | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)]

    @property
    def input(self) -> Tensor:
        """The one input of a layer with a rule."""
        return self.tensors[0]

    @property
    def input_is_ours(self) -> bool:
        """Whether the input was computed by the network, so that nobody misses it after the backward pass."""
        return self.input.grad_fn is not None

    @property
    def output_gradient(self) -> Tensor:
        """The recorded pull."""
        if self.pull is None:
            raise ValueError("the backward pass has not come by")
        return self.pull


Rule = Callable[[LayerUse, PatientRows], dict[str, Factor]]


def _per_row(values: Tensor, use: LayerUse, rows: PatientRows) -> Tensor:
    """[R * m, ...] to [R, m, ...]: a network may unfold each row into m, in order."""
    leading = values.shape[0] if values.dim() else 0
    if rows.count == 0 or leading % rows.count:
        raise ClippingError(
            expected=f"a first axis of {rows.count} rows, or a multiple of it, in layer {use.name}",
            found=f"shape {tuple(values.shape)}",
            remedy="Keep the patients' rows on the first axis in every layer that has parameters.",
        )
    return values.reshape(rows.count, leading // rows.count, *values.shape[1:])


def _linear(use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
    pull = use.output_gradient
    x = _per_row(use.input.detach().to(pull.dtype), use, rows).flatten(1, -2)
    # Once: each product would copy what does not lie in order.
    g = _per_row(pull, use, rows).flatten(1, -2).contiguous()
    ours = use.input_is_ours or use.input.dtype != pull.dtype
    factors: dict[str, Factor] = {"weight": Outer(rows=rows, x=x, g=g, ours=ours)}
    if use.layer.bias is not None:
        factors["bias"] = Dense.of(rows, _over_places(g))
    return factors


def _over_places(values: Tensor) -> Tensor:
    """Sum [R, T, ...] over the places: [R, ...], at least in float32."""
    if values.shape[1] == 1:
        return values[:, 0]
    return values.sum(1, dtype=torch.promote_types(values.dtype, torch.float32))


def _embedding(use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
    layer = use.layer
    assert isinstance(layer, nn.Embedding)  # noqa: S101 - the table of rules says so
    ids = _per_row(use.input, use, rows).flatten(1)
    g = _per_row(use.output_gradient, use, rows).flatten(1, -2)
    if layer.padding_idx is not None:
        g = g.masked_fill((ids == layer.padding_idx)[..., None], 0)
    return {"weight": Lookup(rows=rows, ids=ids, g=g, entries=layer.num_embeddings)}


def _conv1d(use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
    layer = use.layer
    assert isinstance(layer, nn.Conv1d)  # noqa: S101 - the table of rules says so
    pull = use.output_gradient
    x = _per_row(use.input.detach().to(pull.dtype), use, rows)
    g = _per_row(pull, use, rows)
    kernel, stride, dilation = layer.kernel_size[0], layer.stride[0], layer.dilation[0]
    if isinstance(layer.padding, str):
        total = dilation * (kernel - 1) if layer.padding == "same" else 0
        padding = (total // 2, total - total // 2)
    else:
        padding = (layer.padding[0], layer.padding[0])
    factors: dict[str, Factor] = {
        "weight": ConvOuter(
            rows=rows,
            x=x,
            g=g,
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            groups=layer.groups,
            padding=padding,
            ours=use.input_is_ours or use.input.dtype != pull.dtype,
        )
    }
    if layer.bias is not None:
        factors["bias"] = Dense.of(rows, _over_places(g.sum(-1)))
    return factors


def _layer_norm(use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
    layer = use.layer
    assert isinstance(layer, nn.LayerNorm)  # noqa: S101 - the table of rules says so
    normal = functional.layer_norm(use.input.detach().to(layer.weight.dtype), layer.normalized_shape, eps=layer.eps)
    return _scale_and_offset(use, rows, normal, layer.normalized_shape)


def _rms_norm(use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
    layer = use.layer
    assert isinstance(layer, nn.RMSNorm)  # noqa: S101 - the table of rules says so
    x = use.input.detach()
    eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
    normal = functional.rms_norm(x.to(layer.weight.dtype), layer.normalized_shape, eps=eps)
    return _scale_and_offset(use, rows, normal, layer.normalized_shape)


def _scale_and_offset(use: LayerUse, rows: PatientRows, normal: Tensor, shape: tuple[int, ...]) -> dict[str, Factor]:
    """Gradients of ``weight`` and ``bias`` that act on the last axes, of the given shape."""
    pull = use.output_gradient.to(normal.dtype)
    parts = {"weight": pull * normal, "bias": pull}
    own = own_parameters(use.layer)
    return {
        name: Dense.of(rows, _per_row(values, use, rows).reshape(rows.count, -1, *shape).sum(1))
        for name, values in parts.items()
        if name in own
    }


def _group_norm(use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
    layer = use.layer
    assert isinstance(layer, nn.GroupNorm)  # noqa: S101 - the table of rules says so
    normal = functional.group_norm(use.input.detach().to(layer.weight.dtype), layer.num_groups, eps=layer.eps)
    pull = use.output_gradient.to(normal.dtype)
    return {
        name: Dense.of(rows, _per_row(values.reshape(*values.shape[:2], -1).sum(2), use, rows).sum(1))
        for name, values in {"weight": pull * normal, "bias": pull}.items()
    }


def _symmetric_coupling(use: LayerUse, rows: PatientRows) -> dict[str, Factor]:
    x = _per_row(use.input.detach(), use, rows).flatten(1, -2)
    g = _per_row(use.output_gradient, use, rows).flatten(1, -2)
    return {"weight": Coupled(rows=rows, x=x, g=g, ours=use.input_is_ours)}


LAYER_RULES: Final[dict[type[nn.Module], Rule]] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.Conv1d: _conv1d,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    SymmetricCoupling: _symmetric_coupling,
}
"""Exact classes: a subclass may compute something else, and is recomputed."""

FORMED_AT_ONCE: Final = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Layers whose gradients are small: formed as soon as the pull arrives, so that nothing of theirs need be kept."""


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters that a module holds itself, by their names in it."""
    return {name: value for name, value in module.named_parameters(recurse=False) if value.requires_grad}


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name, each once: the order of parameter vectors."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def sum_type(network: nn.Module) -> torch.dtype:
    """Type of a network's clipped sums: float64 with couplings, whose rounding is proved, else at least float32."""
    if any(isinstance(module, SymmetricCoupling) for module in network.modules()):
        return torch.float64
    types = {value.dtype for value in trained_parameters(network).values()}
    return torch.float64 if torch.float64 in types else torch.float32


def is_recomputed(module: nn.Module, ruled: set[int]) -> bool:
    """Whether a module holds parameters that no layer with a rule holds; ``ruled``: identities of those that do."""
    return type(module) not in LAYER_RULES and any(id(value) not in ruled for value in own_parameters(module).values())


def check_network(network: nn.Module) -> None:
    """Refuse a network with layers whose per-patient gradients cannot be bounded, naming all of them at once.

    Raises:
        ClippingError: if there is one, or nothing to train.
    """
    faults = [
        f"{name or 'the network itself'} ({reason})"
        for name, module in network.named_modules()
        if (reason := _fault(module))
    ]
    if faults or not trained_parameters(network):
        known = ", ".join(sorted(layer.__name__ for layer in LAYER_RULES))
        raise ClippingError(
            expected=f"layers whose gradients can be bounded per patient ({known}), or modules of your own that treat"
            " rows apart",
            found="; ".join(faults) or "nothing to train",
            remedy="Replace what is named. Instead of batch normalisation use GroupNorm or LayerNorm; build attention"
            " from Linear and scaled_dot_product_attention.",
        )


def _fault(module: nn.Module) -> str | None:
    """Why a module cannot be clipped exactly, or None."""
    if isinstance(module, _REFUSED):
        return f"{type(module).__name__} mixes patients or hides its weights"
    own = own_parameters(module)
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "Embedding with max_norm, which every token rewrites"
    if isinstance(module, nn.Embedding) and own and (module.scale_grad_by_freq or module.sparse):
        return "Embedding with scale_grad_by_freq or sparse"
    if isinstance(module, nn.Conv1d) and own and module.padding_mode != "zeros":
        return f"Conv1d with padding mode {module.padding_mode}"
    if own and type(module) not in LAYER_RULES and type(module).__module__.partition(".")[0] == "torch":
        return f"{type(module).__name__} has no rule"
    if any(nn.parameter.is_lazy(value) for value in own.values()):
        return "a parameter without a shape yet"
    return None
