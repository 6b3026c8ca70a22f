"""A small re-implementation after TimeVAE (Desai, Freeman, Beaver and Wang 2021, arXiv 2111.08095).

For the benchmark only. As published: strided convolutions of 50, 100 and 200 filters into 8 latent numbers; a decoder
that adds level, polynomial trend and a residual of transposed convolutions; squared errors times 3 plus the divergence;
Adam at 1e-3. Different here: a trend of degree 2 (the authors' code leaves it to the user), batches of 64 instead of
16, the label beside the course and beside the latent numbers, and Bernoulli likelihoods for the 0/1 channels, which are
then drawn, since their means would never call a rare test observed.
"""

from __future__ import annotations

import itertools
from typing import Final

import torch
from torch import Tensor, nn

from bench.series.rows import Clock, Fitted, PeerRows, batches

__all__ = ["fit_timevae"]

FILTERS: Final = (50, 100, 200)
LATENT: Final = 8
DEGREE: Final = 2
WEIGHT: Final = 3.0
BATCH: Final = 64
RATE: Final = 1e-3
EPOCHS: Final = 1_000


class TimeVae(nn.Module):
    """Encoder and decoder; X columns (values and flags), L label values, Z latent numbers."""

    def __init__(self, steps: int, columns: int, labels: int) -> None:
        super().__init__()
        widths = (columns + labels, *FILTERS)
        self.lengths = [steps]
        for _ in FILTERS:
            self.lengths.append((self.lengths[-1] + 1) // 2)
        self.down = nn.ModuleList(nn.Conv1d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        flat = FILTERS[-1] * self.lengths[-1]
        self.moments = nn.Linear(flat, 2 * LATENT)
        given = LATENT + labels
        self.level = nn.Sequential(nn.Linear(given, columns), nn.ReLU(), nn.Linear(columns, columns))
        trend = columns * DEGREE
        self.trend = nn.Sequential(nn.Linear(given, trend), nn.ReLU(), nn.Linear(trend, trend))
        self.open = nn.Sequential(nn.Linear(given, flat), nn.ReLU())
        back = (*reversed(FILTERS), FILTERS[0])
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(a, b, 3, 2, 1, output_padding=1) for a, b in itertools.pairwise(back)
        )
        self.residual = nn.Linear(FILTERS[0] * self.lengths[0], steps * columns)
        moments = torch.arange(steps) / steps
        self.register_buffer("powers", torch.stack([moments**power for power in range(1, DEGREE + 1)]))

    def encode(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, X] and [B, L] -> mean and logarithm of the variance, [B, Z] each."""
        hidden = torch.cat([x, labels[:, None].expand(-1, x.shape[1], -1)], dim=2).transpose(1, 2)
        for layer in self.down:
            hidden = torch.relu(layer(hidden))
        mean, log_variance = self.moments(hidden.flatten(1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 10)

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """[B, Z] and [B, L] -> [B, T, X]."""
        given = torch.cat([z, labels], dim=1)
        hidden = self.open(given).unflatten(1, (FILTERS[-1], self.lengths[-1]))
        for layer, length in zip(self.up, self.lengths[-2::-1], strict=True):
            hidden = torch.relu(layer(hidden))[..., :length]
        residual: Tensor = self.residual(hidden.flatten(1)).unflatten(1, (self.lengths[0], -1))
        trend = torch.einsum("bxp,pt->btx", self.trend(given).unflatten(1, (-1, DEGREE)), self.powers)
        return self.level(given)[:, None] + trend + residual


def fit_timevae(rows: PeerRows, clock: Clock, seed: int) -> Fitted:
    """Train until the time is over, at most for 1,000 epochs."""
    torch.manual_seed(seed)
    x, channels = torch.cat([rows.values, rows.flags], dim=2), rows.values.shape[2]
    network = TimeVae(x.shape[1], x.shape[2], rows.labels.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    batch = batches(len(x), BATCH, torch.Generator().manual_seed(seed))
    steps = 0
    while steps * BATCH < EPOCHS * len(x) and not clock.over():
        chosen = batch()
        mean, log_variance = network.encode(x[chosen], rows.labels[chosen])
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        found = network.decode(z, rows.labels[chosen])
        errors = WEIGHT * ((found[..., :channels] - rows.values[chosen]) ** 2).sum(dim=(1, 2))
        errors = errors + nn.functional.binary_cross_entropy_with_logits(
            found[..., channels:], rows.flags[chosen], reduction="none"
        ).sum(dim=(1, 2))
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)
        optimiser.zero_grad()
        (errors + divergence).mean().backward()
        optimiser.step()
        steps += 1

    @torch.no_grad()
    def draw(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        found = network.decode(torch.randn(len(labels), LATENT, generator=generator), labels)
        return found[..., :channels], torch.bernoulli(found[..., channels:].sigmoid(), generator=generator)

    return Fitted(draw=draw, steps=steps, calls=1)
