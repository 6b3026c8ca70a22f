"""The nonlinear part of the code denoiser: residual blocks that know the noise level and the label.

Every parameter lies in a layer whose gradients can be clipped per patient, and every nonlinearity gives the same number
for the same argument wherever it stands in a tensor (see ``diffusion.preconditioning.sigmoid``).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from synclave_shared.diffusion.preconditioning import sigmoid
from synclave_shared.model_spec import LEVEL_KNOTS

__all__ = ["ResidualTower"]

LEVEL_RANGE: Final = 8.0
"""Visibility is told as log-odds, kept within +-8: a share of 0.03 % of the signal is none, for a patient's columns."""

LARGEST_ARGUMENT: Final = 80.0
"""exp(80) is still a float32, and sigmoid(-80) is nothing."""

WIDENING: Final = 2
"""Width inside a block over the tower's width."""


def gate(values: Tensor) -> Tensor:
    """The logistic function. Far below 0 its slope is 0, not infinity times 0."""
    return sigmoid(values.clamp_min(-LARGEST_ARGUMENT))


def smooth_gate(values: Tensor) -> Tensor:
    """``x * sigmoid(x)``: SiLU (Elfwing et al. 2018)."""
    return values * gate(values)


class LevelFeatures(nn.Module):
    """Visibility, 0 (nothing is seen) to 1 (the clean row), as :data:`LEVEL_KNOTS` overlapping hats."""

    knots: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(-LEVEL_RANGE, LEVEL_RANGE, LEVEL_KNOTS), persistent=False)

    def forward(self, visible: Tensor) -> Tensor:
        """Map [...] to [..., LEVEL_KNOTS]."""
        odds = torch.log(visible) - torch.log1p(-visible)
        position = odds.clamp(-LEVEL_RANGE, LEVEL_RANGE)[..., None]
        spacing = 2 * LEVEL_RANGE / (LEVEL_KNOTS - 1)
        return (1.0 - (position - self.knots).abs() / spacing).clamp_min(0.0)


class Block(nn.Module):
    """``h + W2 gate(W1 (norm(h) * (1 + scale) + shift))``; scale and shift from level and label (Perez et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.condition = nn.Linear(width, 2 * width)
        self.widen = nn.Linear(width, WIDENING * width)
        self.narrow = nn.Linear(WIDENING * width, width)
        for layer in (self.condition, self.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Map [..., W] to [..., W]."""
        scale, shift = self.condition(context).chunk(2, dim=-1)
        inner = self.norm(hidden) * (1.0 + scale) + shift
        added: Tensor = self.narrow(smooth_gate(self.widen(inner)))
        return hidden + added


class ResidualTower(nn.Module):
    """Standardised evidence of all columns -> correction logits; 0 before any training.

    Args:
        columns: D.
        label_values: L; the label number L is the hidden label.
        width: W, of the hidden layer.
        blocks: number of residual blocks.
    """

    def __init__(self, columns: int, label_values: int, width: int, blocks: int) -> None:
        super().__init__()
        self.level = LevelFeatures()
        self.read = nn.Linear(columns, width)
        self.level_in = nn.Linear(LEVEL_KNOTS, width)
        self.label_in = nn.Embedding(label_values + 1, width)
        self.mix = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, columns)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, evidence: Tensor, visible: Tensor, labels: Tensor) -> Tensor:
        """Correction [B, K, D] from evidence [B, K, D], visibility [B, K] and labels [B]."""
        label = self.label_in(labels)[:, None, :]
        context = smooth_gate(self.mix(smooth_gate(self.level_in(self.level(visible)) + label)))
        hidden = self.read(evidence) + label
        for block in self.blocks:
            hidden = block(hidden, context)
        correction: Tensor = self.write(self.norm(hidden))
        return correction
