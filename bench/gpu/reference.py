"""The published reference beside which samplers are fast: Gaussian diffusion by ancestral sampling in 1,000 steps.

The network is that of ``bench.codes.edm`` with random weights, compiled; the sampler adds and takes away noise at each
step (Karras et al. 2022, appendix on ancestral sampling by Song et al. 2021, variance exploding).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench.codes.edm import RHO, SIGMA_MAX, SIGMA_MIN, Network, denoise
from synclave_server.sampling.generator import tile_patients

__all__ = ["Reference"]

WIDTH: Final = 1782
STEPS: Final = 1000


class Reference:
    """The network on a device; made, it is compiled."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.steps = device, 20 if quick else STEPS
        self.width = 300 if quick else WIDTH
        self.patients = tile_patients(device.type, self.width)
        torch.manual_seed(0)
        network: nn.Module = Network(self.width + 2).to(device)
        self.denoise = denoise
        if device.type == "cuda":
            self.denoise = torch.compile(denoise, dynamic=False)
        self.network = network
        for precision in ("float32", "bfloat16"):
            self.drawn(precision, 2)

    @torch.no_grad()
    def drawn(self, precision: str, steps: int) -> Tensor:
        """Rows [patients, D] rounded to 0 and 1, in the memory of the host."""
        ramp = torch.linspace(0, 1, steps)
        levels = (SIGMA_MAX ** (1 / RHO) + ramp * (SIGMA_MIN ** (1 / RHO) - SIGMA_MAX ** (1 / RHO))) ** RHO
        levels = torch.cat([levels, torch.zeros(1)]).to(self.device)
        state = levels[0] * torch.randn(self.patients, self.width + 2, device=self.device)
        for now, then in itertools.pairwise(levels):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                found = self.denoise(self.network, state, now.expand(self.patients)).float()
            down = (then**2 / now).clamp_max(then)
            up = (then**2 - down**2).clamp_min(0.0).sqrt()
            state = found + down / now * (state - found) + up * torch.randn_like(state)
        return state.clamp(0, 1).round().to(torch.uint8).cpu()

    def rows(self) -> Iterator[dict[str, Any]]:
        for precision in ("bfloat16", "float32"):
            begun = time.perf_counter()
            self.drawn(precision, self.steps)
            seconds = time.perf_counter() - begun
            yield {
                "columns": self.width,
                "precision": precision,
                "calls": self.steps,
                "patients_per_s": self.patients / seconds,
            }
