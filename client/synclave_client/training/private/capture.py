"""Book-keeping: what a layer was given and what came back to it, recorded in one forward and one backward pass.

Two things happen around each layer that holds trainable parameters. While it computes, its parameters do not require
gradients, so autograd skips the product that would mix all patients; and its output passes a tap, an identity whose
backward pass notes the gradient that arrives there. A parameter that is *also* used outside its layer does require a
gradient there, which autograd leaves in ``p.grad``: the engine finds it and refuses, instead of missing a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from synclave_client.training.private.rules import LAYER_RULES, LayerUse
from synclave_shared.errors import ClippingError

__all__ = ["recorded"]


class _Tap(torch.autograd.Function):
    """Identity; notes the gradient that arrives. The anchor makes it part of the graph when the input is mere data."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, use: LayerUse, arrived: Callable[[LayerUse], None]) -> Tensor:
        ctx.use, ctx.arrived = use, arrived
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.use.pull is not None:
            raise ClippingError(
                expected=f"one backward pass through {ctx.use.name}",
                found="a second one",
                remedy="Take no gradients within the loss; per-patient norms of their gradients are not known.",
            )
        ctx.use.pull = pulls[0]
        ctx.arrived(ctx.use)
        return pulls[0], None, None, None


@contextmanager
def recorded(
    layers: dict[str, tuple[nn.Module, list[nn.Parameter]]], rows: int, arrived: Callable[[LayerUse], None]
) -> Iterator[list[LayerUse]]:
    """Record every call of ``layers`` until the context ends.

    Args:
        layers: by name, each with the trainable parameters that it holds.
        rows: R; an input with a first axis of 1 is given to every row.
        arrived: called in the backward pass with each use, as soon as its pull is there.

    Yields:
        The calls, in order; their ``pull`` is filled by the backward pass.
    """
    uses: list[LayerUse] = []
    first = next(iter(layers.values()))[1][0]
    anchor = torch.zeros((), device=first.device, requires_grad=True)
    with ExitStack() as stack:
        # Whatever a forward pass raises, the network is left as it was.
        stack.callback(_require, [value for _, held in layers.values() for value in held], True)
        for name, (layer, held) in layers.items():
            _record(stack, name, layer, held, uses, rows, anchor, arrived)
        yield uses


def _record(
    stack: ExitStack,
    name: str,
    layer: nn.Module,
    held: list[nn.Parameter],
    uses: list[LayerUse],
    rows: int,
    anchor: Tensor,
    arrived: Callable[[LayerUse], None],
) -> None:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if type(layer) in LAYER_RULES:
            args = tuple(_given_to_every_row(value, rows) for value in args)
            kwargs = {key: _given_to_every_row(value, rows) for key, value in kwargs.items()}
        _require(held, False)
        return args, kwargs

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor:
        _require(held, True)
        if not isinstance(output, Tensor):
            raise ClippingError(
                expected=f"one tensor as the output of {name}, which holds parameters",
                found=type(output).__name__,
                remedy="Move its parameters into layers of their own.",
            )
        use = LayerUse(name=name, layer=layer, args=args, kwargs=kwargs, versions=())
        use.versions = tuple(value._version for value in use.tensors)
        uses.append(use)
        tapped: Tensor = _Tap.apply(output, anchor, use, arrived)  # type: ignore[no-untyped-call]
        return tapped

    stack.enter_context(_removed_later(layer.register_forward_pre_hook(before, with_kwargs=True)))
    stack.enter_context(_removed_later(layer.register_forward_hook(after, with_kwargs=True)))


def _given_to_every_row(value: Any, rows: int) -> Any:
    """Say, position numbers [1, T]: without a copy for each row nobody could tell the rows' gradients apart."""
    if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == 1 and rows > 1:
        return value.expand(rows, *value.shape[1:])
    return value


def _require(parameters: list[nn.Parameter], flag: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(flag)


@contextmanager
def _removed_later(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
