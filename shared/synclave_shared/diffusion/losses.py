"""Cross-entropy of posterior logits: a proper score, whose minimiser is the true posterior at every noise level."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from synclave_shared.diffusion.preconditioning import sigmoid, split_columns
from synclave_shared.models.layout import CodeLayout

__all__ = ["cross_entropy"]


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


def cross_entropy(logits: Tensor, clean: Tensor, layout: CodeLayout) -> Tensor:
    """Negative log-probability of clean rows, summed over columns, in nats.

    Args:
        logits: [..., D], posterior logits.
        clean: [..., D], rows of 0 and 1; one-hot groups hold one 1.
        layout: columns.

    Returns:
        [...]: one number per row. Nothing is averaged over patients, because clipping is per patient.
    """
    total = torch.zeros(logits.shape[:-1], dtype=logits.dtype, device=logits.device)
    for (piece, one_hot), (truth, _) in zip(split_columns(logits, layout), split_columns(clean, layout), strict=True):
        if one_hot:
            total = total - (piece.log_softmax(-1) * truth).sum(-1)
        else:
            total = total + _BernoulliNats.apply(piece, truth).sum(-1)  # type: ignore[no-untyped-call]
    return total
