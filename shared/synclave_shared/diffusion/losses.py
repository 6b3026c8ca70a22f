"""Cross-entropy of posterior logits: a proper score, whose minimiser is the true posterior at every noise level."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from synclave_shared.diffusion.preconditioning import sigmoid, split_columns
from synclave_shared.models.layout import CodeLayout

__all__ = ["bernoulli_nats", "cross_entropy"]


class _BernoulliNats(torch.autograd.Function):
    """Binary cross-entropy of logits; its gradient does not depend on the place in the tensor (see ``sigmoid``)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, truth: Tensor) -> Tensor:
        ctx.save_for_backward(logits, truth)
        return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor, None]:
        logits, truth = ctx.saved_tensors
        return (sigmoid(logits) - truth) * pulls[0], None


def bernoulli_nats(logits: Tensor, truth: Tensor) -> Tensor:
    """Negative log-probability of 0/1 numbers, one by one, in nats; of the shape of both."""
    nats: Tensor = _BernoulliNats.apply(logits, truth)  # type: ignore[no-untyped-call]
    return nats


def cross_entropy(logits: Tensor, clean: Tensor, layout: CodeLayout, weight: Tensor | None = None) -> Tensor:
    """Negative log-probability of clean rows, summed over columns, in nats.

    Args:
        logits: [..., D], posterior logits.
        clean: [..., D], rows of 0 and 1; one-hot groups hold one 1.
        layout: columns.
        weight: [..., D], of each column's share in the sum, the same throughout a one-hot group; None: 1.

    Returns:
        [...]: one number per row. Nothing is averaged over patients, because clipping is per patient.
    """
    total = torch.zeros(logits.shape[:-1], dtype=logits.dtype, device=logits.device)
    weights = None if weight is None else [piece for piece, _ in split_columns(weight, layout)]
    pairs = zip(split_columns(logits, layout), split_columns(clean, layout), strict=True)
    for number, ((piece, one_hot), (truth, _)) in enumerate(pairs):
        nats = -piece.log_softmax(-1) * truth if one_hot else bernoulli_nats(piece, truth)
        total = total + (nats if weights is None else weights[number] * nats).sum(-1)
    return total
