"""Classifier-free guidance (Ho and Salimans 2022) on posterior logits."""

from __future__ import annotations

from torch import Tensor

__all__ = ["guided_logits"]


def guided_logits(conditional: Tensor, hidden: Tensor, weight: float) -> Tensor:
    """``(1 + w) * conditional - w * hidden``.

    Extrapolating logits instead of means keeps every probability inside (0, 1), whatever the weight.

    Args:
        conditional: [..., D], logits with the label given.
        hidden: [..., D], logits with the label hidden.
        weight: w >= 0; 0 is plain conditional sampling.

    Returns:
        [..., D].
    """
    return conditional + weight * (conditional - hidden)
