"""A small re-implementation of TarDiff's backbone without its guidance (Deng et al. 2025, arXiv 2504.17613).

For the benchmark only. As published: noise predicted from 200 levels, beta from 5e-4 to 0.1 even in the square root,
absolute errors, the label's embedding added to that of the level, a 1-D U-Net with residual blocks and self-attention,
an average of the weights, DDIM with eta 1. Different here: width 64 with two resolutions (64, 128) and one block each
instead of four and two; a column's noisy self beside the U-Net's output, since our columns are more than its width;
batches of 32 at 2e-3 instead of 128 at 1e-4, for a fraction of its 20,000 steps; average .995, 50 steps of DDIM instead
of 20.
"""

from __future__ import annotations

import copy
import math
from typing import Final

import torch
from torch import Tensor, nn

from bench.series.rows import Clock, Fitted, PeerRows, batches

__all__ = ["fit_ddpm"]

LEVELS: Final = 200
WIDTH: Final = 64
HEADS: Final = 8
BATCH: Final = 32
RATE: Final = 2e-3
STEPS: Final = 20_000
AVERAGE: Final = 0.995
DDIM_STEPS: Final = 50
PART: Final = 512
"""Patients of a call when drawing."""


class Block(nn.Module):
    """Two convolutions around a shift by the embedding, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(1, inputs), nn.SiLU(), nn.Conv1d(inputs, outputs, 3, padding=1))
        self.shift = nn.Linear(WIDTH, outputs)
        self.second = nn.Sequential(nn.GroupNorm(8, outputs), nn.SiLU(), nn.Conv1d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(x) + self.shift(embedding)[..., None]
        result: Tensor = self.shortcut(x) + self.second(hidden)
        return result


class Attention(nn.Module):
    """Self-attention over the steps, beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        given = self.norm(x).transpose(1, 2)
        found, _ = self.attention(given, given, given, need_weights=False)
        result: Tensor = x + found.transpose(1, 2)
        return result


class UNet(nn.Module):
    """Noise of [B, X, T] at levels [B], given one-hot labels [B, L]; T even."""

    def __init__(self, columns: int, labels: int) -> None:
        super().__init__()
        self.level = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.label = nn.Linear(labels, WIDTH, bias=False)
        self.enter = nn.Conv1d(columns, WIDTH, 3, padding=1)
        self.high, self.high_attention = Block(WIDTH, WIDTH), Attention(WIDTH)
        self.down = nn.Conv1d(WIDTH, WIDTH, 3, 2, 1)
        self.low, self.low_attention, self.middle = (
            Block(WIDTH, 2 * WIDTH),
            Attention(2 * WIDTH),
            Block(2 * WIDTH, 2 * WIDTH),
        )
        self.up = nn.ConvTranspose1d(2 * WIDTH, WIDTH, 4, 2, 1)
        self.joined = Block(2 * WIDTH, WIDTH)
        self.leave = nn.Sequential(nn.GroupNorm(8, WIDTH), nn.SiLU(), nn.Conv1d(WIDTH, columns, 3, padding=1))
        self.gain = nn.Linear(WIDTH, columns)

    def forward(self, x: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(WIDTH // 2) / (WIDTH // 2))
        angles = level[:, None] * frequencies
        embedding = self.level(torch.cat([angles.cos(), angles.sin()], dim=1)) + self.label(labels)
        high = self.high_attention(self.high(self.enter(x), embedding))
        low = self.middle(self.low_attention(self.low(self.down(high), embedding)), embedding)
        result: Tensor = self.leave(self.joined(torch.cat([high, self.up(low)], dim=1), embedding))
        # The noise of more columns than there are channels inside would not pass through them.
        return result + self.gain(embedding)[..., None] * x


def fit_ddpm(rows: PeerRows, clock: Clock, seed: int) -> Fitted:
    """Train until the time is over, at most for 20,000 steps. Flags are -1 and 1."""
    torch.manual_seed(seed)
    x, channels = torch.cat([rows.values, 2 * rows.flags - 1], dim=2).transpose(1, 2), rows.values.shape[2]
    alpha_bar = torch.cumprod(1 - torch.linspace(5e-4**0.5, 0.1**0.5, LEVELS) ** 2, dim=0)
    network = UNet(x.shape[1], rows.labels.shape[1])
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    random = torch.Generator().manual_seed(seed)
    batch, steps = batches(len(x), BATCH, random), 0
    while steps < STEPS and not clock.over():
        chosen = batch()
        level = torch.randint(LEVELS, (BATCH,), generator=random)
        noise = torch.randn(BATCH, *x.shape[1:], generator=random)
        kept = alpha_bar[level][:, None, None]
        noisy = kept.sqrt() * x[chosen] + (1 - kept).sqrt() * noise
        loss = (network(noisy, level, rows.labels[chosen]) - noise).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        # The average is one of few weights at first, or the untrained ones would stay in it.
        weight_of_new = max(1.0 - AVERAGE, 9.0 / (10.0 + steps))
        with torch.no_grad():
            for old, new in zip(average.parameters(), network.parameters(), strict=True):
                old.lerp_(new, weight_of_new)
        steps += 1

    @torch.no_grad()
    def draw(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = [
            ddim(average, part, torch.randn(len(part), *x.shape[1:], generator=generator), alpha_bar, generator)
            for part in labels.split(PART)
        ]
        found = torch.cat(drawn).transpose(1, 2)
        return found[..., :channels], (found[..., channels:] + 1) / 2

    return Fitted(draw=draw, steps=steps, calls=DDIM_STEPS)


def ddim(network: UNet, labels: Tensor, state: Tensor, alpha_bar: Tensor, generator: torch.Generator) -> Tensor:
    """Down the levels with eta 1 (Song, Meng and Ermon 2021, equations 12 and 16)."""
    levels = torch.linspace(LEVELS - 1, 0, DDIM_STEPS).round().long()
    for place, level in enumerate(levels):
        now = alpha_bar[level]
        then = alpha_bar[levels[place + 1]] if place + 1 < len(levels) else torch.ones(())
        noise = network(state, level.expand(len(state)), labels)
        clean = ((state - (1 - now).sqrt() * noise) / now.sqrt()).clamp(-4, 4)
        noise = (state - now.sqrt() * clean) / (1 - now).sqrt()
        fresh = ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
        state = then.sqrt() * clean + (1 - then - fresh**2).clamp(min=0).sqrt() * noise
        state = state + fresh * torch.randn(state.shape, generator=generator)
    return state
