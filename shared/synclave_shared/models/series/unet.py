"""Convolutions over the steps at several resolutions (a U-Net, Ronneberger et al. 2015): deep part of the denoiser.

Whatever looks beyond its own step finds 0 after the end of a stay, as it does before its beginning. Layers and
nonlinearities are chosen as in :mod:`synclave_shared.models.series.transformer`.

Shapes: ``R`` rows, ``T`` steps, ``W`` numbers per step.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synclave_shared.models.tower import smooth_gate

__all__ = ["SeriesUnet", "doubled", "halved"]

KERNEL: Final = 3
"""Steps that a convolution sees: its own and its neighbours."""


class ConvolutionBlock(nn.Module):
    """``h + convolve(gate(convolve(norm(h) * (1 + scale) + shift)))``; scale and shift from the context."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.condition = nn.Linear(width, 2 * width)
        self.first = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2)
        self.second = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2)
        for value in (*self.condition.parameters(), *self.second.parameters()):
            nn.init.zeros_(value)

    def forward(self, hidden: Tensor, context: Tensor, within: Tensor) -> Tensor:
        """Map [R, T, W] to [R, T, W]; ``context`` [R, W], ``within`` bool [R, T, 1]."""
        scale, shift = self.condition(context)[:, None].chunk(2, dim=-1)
        # Over the numbers of one step: neither other steps nor other patients have a part in it.
        inner = torch.where(within, self.norm(hidden) * (1.0 + scale) + shift, 0.0)
        inner = torch.where(within, smooth_gate(self.first(inner.mT).mT), 0.0)
        added: Tensor = self.second(inner.mT).mT
        return hidden + added


class SeriesUnet(nn.Module):
    """Down to half as many steps and again, and up the same way, where each resolution meets itself again.

    Args:
        width: W, at every resolution.
        resolutions: how many; the last one is of ``T / 2**(resolutions - 1)`` steps.
    """

    def __init__(self, width: int, resolutions: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(ConvolutionBlock(width) for _ in range(resolutions - 1))
        self.bottom = ConvolutionBlock(width)
        self.coarse = nn.ModuleList(nn.Linear(width, width) for _ in range(resolutions - 1))
        self.up = nn.ModuleList(ConvolutionBlock(width) for _ in range(resolutions - 1))

    def forward(self, hidden: Tensor, context: Tensor, inside: Tensor) -> Tensor:
        """Map [R, T, W] to [R, T, W]; ``context`` [R, W], ``inside`` bool [R, T]."""
        within = inside[..., None]
        passed = []
        for block in self.down:
            hidden = block(hidden, context, within)
            passed.append((hidden, within))
            hidden, within = halved(hidden, within)
        hidden = self.bottom(hidden, context, within)
        for read, block in zip(self.coarse, self.up, strict=True):
            fine, within = passed.pop()
            hidden = block(fine + doubled(read(hidden), fine.shape[1]), context, within)
        return hidden


def halved(hidden: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
    """Means over pairs of steps, of those within the stay: [R, T, W] to [R, ceil(T / 2), W]."""
    odd = (0, 0, 0, hidden.shape[1] % 2)
    pairs = torch.unflatten(functional.pad(hidden, odd), 1, (-1, 2))
    inside = torch.unflatten(functional.pad(within, odd), 1, (-1, 2))
    total = torch.where(inside, pairs, 0.0).sum(dim=2)
    return total / inside.sum(dim=2).clamp_min(1), inside.any(dim=2)


def doubled(hidden: Tensor, steps: int) -> Tensor:
    """Every step twice: [R, ceil(T / 2), W] to [R, T, W]."""
    return hidden[:, :, None].expand(-1, -1, 2, -1).flatten(1, 2)[:, :steps]
