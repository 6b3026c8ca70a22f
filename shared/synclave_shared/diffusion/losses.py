"""Cross-entropy of posterior logits: a proper score, whose minimiser is the true posterior at every noise level."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from synclave_shared.models.layout import CodeLayout

__all__ = ["cross_entropy"]


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
    position = 0
    for start, stop in layout.categories:
        if start > position:
            total = total + _bernoulli(logits[..., position:start], clean[..., position:start])
        total = total - (torch.log_softmax(logits[..., start:stop], dim=-1) * clean[..., start:stop]).sum(-1)
        position = stop
    if position < layout.width:
        total = total + _bernoulli(logits[..., position:], clean[..., position:])
    return total


def _bernoulli(logits: Tensor, clean: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, clean, reduction="none").sum(-1)
