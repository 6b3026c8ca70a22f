"""What training hides of a patient's row: noise on every column, or some columns wholly.

Both are made of the same standard normal numbers, one per noise level and one per column, so that a site draws alike
for either.

Shapes: ``B`` patients, ``K`` noise levels, ``D`` columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synclave_shared.diffusion.losses import cross_entropy
from synclave_shared.diffusion.preconditioning import split_columns
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import ModelSpec

__all__ = ["Corrupted", "corrupt", "hidden_cross_entropy"]

LEAST_HIDDEN = 0.05
"""The loss of few hidden columns stands for that of all; its weight, one over their share, is bounded by 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupted:
    """What is seen of clean rows.

    Attributes:
        x: [B, K, D].
        sigma: [B, K]; infinite where columns are hidden wholly.
        known: bool [B, K, D] in masked diffusion, else None.
    """

    x: Tensor
    sigma: Tensor
    known: Tensor | None


def corrupt(clean: Tensor, levels: Tensor, noise: Tensor, spec: ModelSpec, layout: CodeLayout) -> Corrupted:
    """Hide a part of clean rows.

    Args:
        clean: [B, D], 0/1 rows.
        levels: [B, K], standard normal: the noise level, or how much is known.
        noise: [B, K, D], standard normal.
        spec: the plan's numbers.
        layout: columns.
    """
    rows = clean[:, None, :]
    if spec.corruption == "gaussian":
        sigma = torch.exp(float(spec.log_sigma_mean) + float(spec.log_sigma_std) * levels)
        sigma = sigma.clamp(float(spec.sigma_min), float(spec.sigma_max))
        return Corrupted(x=rows + sigma[..., None] * noise, sigma=sigma, known=None)
    # A column is known if its number lies below the level's: the share of known ones is uniform over levels.
    pieces = [piece[..., :1].expand_as(piece) if one_hot else piece for piece, one_hot in split_columns(noise, layout)]
    known = torch.cat(pieces, dim=-1) < levels[..., None]
    return Corrupted(x=rows * known, sigma=torch.full_like(levels, torch.inf), known=known)


def hidden_cross_entropy(logits: Tensor, clean: Tensor, corrupted: Corrupted, layout: CodeLayout) -> Tensor:
    """Negative log-probability of what is hidden, in nats; of masked rows scaled up to all columns (Sahoo et al. 2024).

    Args:
        logits: [B, K, D], posterior logits.
        clean: [B, D], 0/1 rows.
        corrupted: what was seen.
        layout: columns.

    Returns:
        [B, K].
    """
    rows = clean[:, None, :].expand_as(logits)
    if corrupted.known is None:
        return cross_entropy(logits, rows, layout)
    hidden = corrupted.known.logical_not().to(logits.dtype)
    share = hidden.mean(dim=-1).clamp_min(LEAST_HIDDEN)
    return cross_entropy(logits, rows, layout, weight=hidden) / share
