"""The published reference without privacy: Gaussian EDM diffusion of the 0/1 rows with an MLP, rounded at the end.

After EHRDiff (Yuan, Zhou and Yu 2023) with the settings of METHODS: sigma_data .14, sigma from .02 to 80, rho 7,
P_mean -1.2, P_std 1.2, Heun's method in 32 steps (63 network calls), AdamW 3e-4, batch 1,024, weights averaged with
.999. Its MLP [1024, 384, 384, 384, 1024] is scaled down to what two cores train in five minutes. The label is one-hot
columns of the row. Bench only.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from bench.codes.task import Sampler, Task
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.sparse_rows import SparseRows

__all__ = ["fit_edm"]

HIDDEN: Final = (512, 192, 192, 192, 512)
TIME_WIDTH: Final = 192
STEPS: Final = 4_000
BATCH: Final = 1_024
LEARNING_RATE: Final = 3e-4
AVERAGE: Final = 0.999
SIGMA_DATA, SIGMA_MIN, SIGMA_MAX, RHO = 0.14, 0.02, 80.0, 7.0
P_MEAN, P_STD = -1.2, 1.2
HEUN_STEPS: Final = 32


class Network(nn.Module):
    """MLP whose hidden layers are shifted by the noise level's embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH))
        sizes = (width, *HIDDEN)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.shifts = nn.ModuleList(nn.Linear(TIME_WIDTH, size) for size in HIDDEN)
        self.out = nn.Linear(HIDDEN[-1], width)

    def forward(self, values: Tensor, level: Tensor) -> Tensor:
        frequencies = torch.exp(
            -math.log(10_000.0) * torch.arange(TIME_WIDTH // 2, device=level.device) / (TIME_WIDTH // 2)
        )
        angles = level[:, None] * frequencies
        embedding = self.time(torch.cat([angles.cos(), angles.sin()], dim=1))
        for layer, shift in zip(self.layers, self.shifts, strict=True):
            values = nn.functional.silu(layer(values) + shift(embedding))
        result: Tensor = self.out(values)
        return result


def denoise(network: nn.Module, noisy: Tensor, sigma: Tensor) -> Tensor:
    """The preconditioned denoiser (Karras et al. 2022, table 1); ``sigma`` [B]."""
    total = (sigma**2 + SIGMA_DATA**2)[:, None]
    output: Tensor = network(noisy / total.sqrt(), sigma.log() / 4)
    return SIGMA_DATA**2 / total * noisy + sigma[:, None] * SIGMA_DATA / total.sqrt() * output


def fit_edm(task: Task, *, steps: int = STEPS) -> Sampler:
    """Train on all sites' patients together."""
    if task.epsilon is not None:
        raise ValueError("the published reference knows no privacy")
    random = torch.Generator().manual_seed(task.seed)
    torch.manual_seed(task.seed)
    values = len(task.schema.label.values)
    rows = torch.from_numpy(
        np.hstack([task.train.features[:], np.eye(values, dtype=np.uint8)[task.train.labels]])
    ).float()
    network = Network(rows.shape[1])
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    for step in range(steps):
        clean = rows[torch.randint(len(rows), (BATCH,), generator=random)]
        sigma = torch.exp(P_MEAN + P_STD * torch.randn(BATCH, generator=random))
        noisy = clean + sigma[:, None] * torch.randn(clean.shape, generator=random)
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        loss = (weight[:, None] * (denoise(network, noisy, sigma) - clean) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        # The average is one of few weights at first, or the untrained ones would stay in it for thousands of steps.
        weight_of_new = max(1.0 - AVERAGE, 9.0 / (10.0 + step))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, weight_of_new)

    def sample(patients: int, seed: int) -> PatientDataset:
        generator = torch.Generator().manual_seed(seed)
        parts = [
            heun(average, min(4_096, patients - start), rows.shape[1], generator) for start in range(0, patients, 4_096)
        ]
        drawn = torch.cat(parts).numpy()
        return PatientDataset(
            features=SparseRows.of(np.rint(np.clip(drawn[:, :-values], 0.0, 1.0)).astype(np.uint8)),
            labels=drawn[:, -values:].argmax(axis=1).astype(np.int64),
            patient_ids=[str(number) for number in range(patients)],
        )

    return sample


@torch.no_grad()
def heun(network: nn.Module, patients: int, width: int, generator: torch.Generator) -> Tensor:
    """Heun's method down the noise levels (Karras et al. 2022, algorithm 1); [patients, width]."""
    ramp = torch.linspace(0, 1, HEUN_STEPS)
    levels = (SIGMA_MAX ** (1 / RHO) + ramp * (SIGMA_MIN ** (1 / RHO) - SIGMA_MAX ** (1 / RHO))) ** RHO
    levels = torch.cat([levels, torch.zeros(1)])
    state = levels[0] * torch.randn(patients, width, generator=generator)
    for now, then in itertools.pairwise(levels):
        slope = (state - denoise(network, state, now.expand(patients))) / now
        ahead = state + (then - now) * slope
        if then > 0:
            slope_ahead = (ahead - denoise(network, ahead, then.expand(patients))) / then
            ahead = state + (then - now) * 0.5 * (slope + slope_ahead)
        state = ahead
    return state
