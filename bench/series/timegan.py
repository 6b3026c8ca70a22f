"""A small re-implementation after TimeGAN (Yoon, Jarrett and van der Schaar 2019).

For the benchmark only. As published: embedder, recovery, supervisor, generator and discriminator are stacked gated
recurrent units; first the autoencoder is trained, then the supervisor, then all together, the generator twice for each
step of the discriminator, which rests while its loss is below .15; losses and their weights (10, 0.1, 100, 100, gamma
1), uniform noise at every step, batches of 128, Adam at 1e-3. Different here: 2 layers of 48 instead of 3 of 24, for a
fraction of the 50,000 steps of each phase; the label beside every network's input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

from bench.series.rows import Clock, Fitted, PeerRows, batches

__all__ = ["fit_timegan"]

WIDTH: Final = 48
LAYERS: Final = 2
BATCH: Final = 128
RATE: Final = 1e-3
PHASE_STEPS: Final = 50_000
EMBEDDING, SUPERVISED = 0.2, 0.35
"""Shares of the time that are over when the first two phases end."""
RESTING: Final = 0.15
BOUND: Final = 3.0
"""Standardised values from minus to plus this are 0 to 1."""


class Recurrent(nn.Module):
    """Stacked units, and a reading of their state at each step: [B, T, I] and labels [B, L] -> [B, T, O]."""

    def __init__(self, inputs: int, labels: int, outputs: int, *, bounded: bool, layers: int = LAYERS) -> None:
        super().__init__()
        self.unit = nn.GRU(inputs + labels, WIDTH, layers, batch_first=True)
        self.reading = nn.Linear(WIDTH, outputs)
        self.bounded = bounded

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        state, _ = self.unit(torch.cat([x, labels[:, None].expand(-1, x.shape[1], -1)], dim=2))
        found: Tensor = self.reading(state)
        return found.sigmoid() if self.bounded else found


def told(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of the discriminator's answer."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def moments(found: Tensor, truth: Tensor) -> Tensor:
    """Distance of the batches' means and standard deviations."""
    spread = (found.var(dim=0) + 1e-6).sqrt() - (truth.var(dim=0) + 1e-6).sqrt()
    return spread.abs().mean() + (found.mean(dim=0) - truth.mean(dim=0)).abs().mean()


def fit_timegan(rows: PeerRows, clock: Clock, seed: int) -> Fitted:
    """Train the three phases in 20, 15 and 65 % of the time."""
    torch.manual_seed(seed)
    scaled = (rows.values.clamp(-BOUND, BOUND) + BOUND) / (2 * BOUND)
    x, channels = torch.cat([scaled, rows.flags], dim=2), rows.values.shape[2]
    columns, values = x.shape[2], rows.labels.shape[1]
    embedder = Recurrent(columns, values, WIDTH, bounded=True)
    recovery = Recurrent(WIDTH, values, columns, bounded=True)
    generator = Recurrent(columns, values, WIDTH, bounded=True)
    supervisor = Recurrent(WIDTH, values, WIDTH, bounded=True, layers=LAYERS - 1)
    judge = Recurrent(WIDTH, values, 1, bounded=False)

    def adam(*networks: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam([one for network in networks for one in network.parameters()], lr=RATE)

    of_code, of_steps = adam(embedder, recovery), adam(supervisor)
    of_generator, of_judge = adam(generator, supervisor), adam(judge)
    batch = batches(len(x), BATCH, torch.Generator().manual_seed(seed))

    def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        for network in (embedder, recovery, generator, supervisor, judge):
            network.zero_grad()
        loss.backward()
        optimiser.step()

    def next_step(code: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(supervisor(code, labels)[:, :-1], code[:, 1:])

    def recovered(code: Tensor, truth: Tensor, labels: Tensor) -> Tensor:
        return 10 * nn.functional.mse_loss(recovery(code, labels), truth).sqrt()

    steps = 0
    for share, optimiser in ((EMBEDDING, of_code), (SUPERVISED, of_steps)):
        for _ in range(PHASE_STEPS):
            if clock.over(share):
                break
            chosen = batch()
            truth, labels = x[chosen], rows.labels[chosen]
            if optimiser is of_code:
                step(optimiser, recovered(embedder(truth, labels), truth, labels))
            else:
                step(optimiser, next_step(embedder(truth, labels).detach(), labels))
            steps += 1
    for _ in range(PHASE_STEPS):
        if clock.over():
            break
        for _ in range(2):
            chosen = batch()
            truth, labels = x[chosen], rows.labels[chosen]
            raw = generator(torch.rand(truth.shape), labels)
            stepped = supervisor(raw, labels)
            fooled = told(judge(stepped, labels), True) + told(judge(raw, labels), True)
            follows = next_step(embedder(truth, labels).detach(), labels)
            alike = moments(recovery(stepped, labels), truth)
            step(of_generator, fooled + 100 * (follows + 1e-12).sqrt() + 100 * alike)
            code = embedder(truth, labels)
            step(of_code, recovered(code, truth, labels) + 0.1 * next_step(code, labels))
        chosen = batch()
        truth, labels = x[chosen], rows.labels[chosen]
        with torch.no_grad():
            raw = generator(torch.rand(truth.shape), labels)
            codes: Iterable[tuple[Tensor, bool]] = (
                (embedder(truth, labels), True),
                (supervisor(raw, labels), False),
                (raw, False),
            )
        doubt = sum((told(judge(code, labels), real) for code, real in codes), torch.zeros(()))
        if doubt.item() > RESTING:
            step(of_judge, doubt)
        steps += 1

    @torch.no_grad()
    def draw(labels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.rand(len(labels), *x.shape[1:], generator=random)
        found = recovery(supervisor(generator(noise, labels), labels), labels)
        return found[..., :channels] * (2 * BOUND) - BOUND, found[..., channels:]

    return Fitted(draw=draw, steps=steps, calls=1)
