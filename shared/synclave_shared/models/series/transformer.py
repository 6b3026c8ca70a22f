"""Steps that attend to each other: the deep part of the series denoiser.

Layers and nonlinearities are those whose gradients can be clipped per patient, and which give the same number for the
same argument wherever it stands in a tensor (see ``diffusion.preconditioning.sigmoid``).
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from synclave_shared.models.tower import smooth_gate

__all__ = ["HEAD_WIDTH", "SeriesTransformer"]

HEAD_WIDTH: Final = 32
"""Width of an attention head."""

WIDENING: Final = 2
"""Width inside a block over the transformer's width."""


class AttentionBlock(nn.Module):
    """Attention over the steps, then a residual layer per step; both are scaled and shifted by the context."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.norm_steps = nn.LayerNorm(width)
        self.norm_step = nn.LayerNorm(width)
        self.condition = nn.Linear(width, 4 * width)
        self.queries = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.widen = nn.Linear(width, WIDENING * width)
        self.narrow = nn.Linear(WIDENING * width, width)
        for layer in (self.condition, self.mix, self.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, context: Tensor, inside: Tensor) -> Tensor:
        """Map [R, T, W] to [R, T, W]; ``context`` [R, W], ``inside`` bool [R, T]."""
        scale, shift, scale_step, shift_step = self.condition(context)[:, None].chunk(4, dim=-1)
        hidden = hidden + self.mix(self._attended(self.norm_steps(hidden) * (1.0 + scale) + shift, inside))
        inner = self.norm_step(hidden) * (1.0 + scale_step) + shift_step
        added: Tensor = self.narrow(smooth_gate(self.widen(inner)))
        return hidden + added

    def _attended(self, inner: Tensor, inside: Tensor) -> Tensor:
        rows, steps, width = inner.shape
        parts = self.queries(inner).reshape(rows, steps, 3, self.heads, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        # Nobody looks at a step after the end of the stay; step 0 is in every stay.
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=inside[:, None, None, :])
        return found.transpose(1, 2).reshape(rows, steps, width)


class SeriesTransformer(nn.Module):
    """Blocks of attention one after another.

    Args:
        width: W, a multiple of :data:`HEAD_WIDTH`.
        blocks: number of blocks.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AttentionBlock(width) for _ in range(blocks))

    def forward(self, hidden: Tensor, context: Tensor, inside: Tensor) -> Tensor:
        """Map [R, T, W] to [R, T, W]; ``context`` [R, W], ``inside`` bool [R, T]."""
        for block in self.blocks:
            hidden = block(hidden, context, inside)
        return hidden
