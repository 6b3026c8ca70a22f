"""Samplers: pure functions from noise at the first level to a state at the last.

All solve the probability-flow equation ``dx/dsigma = (x - E[x0 | x, sigma]) / sigma`` of variance-exploding diffusion,
or its stochastic counterpart, and share one signature. They stop *at* the last level: the caller draws the clean row
from the posterior there, because a 0/1 value must be drawn, not rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from torch import Tensor

__all__ = ["SAMPLERS", "Denoise", "Noise", "Sampler", "evaluations", "sample_ancestral", "sample_ddim", "sample_heun"]

Denoise = Callable[[Tensor, float], Tensor]
"""``denoise(x, sigma)``: the posterior mean of the clean row, of the shape of x."""

Noise = Callable[[int], Tensor]
"""``noise(step)``: standard normal numbers of the shape of x, for stochastic samplers."""

Sampler = Callable[..., Tensor]
"""``sampler(denoise, x, sigmas, *, noise) -> x``."""


def sample_ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None) -> Tensor:
    """Euler steps of the probability-flow equation: deterministic DDIM, first order (Song et al. 2021).

    Args:
        denoise: posterior mean; called ``len(sigmas) - 1`` times.
        x: state at ``sigmas[0]``.
        sigmas: descending levels.
        noise: not used by a deterministic sampler.

    Returns:
        State at ``sigmas[-1]``.
    """
    levels = sigmas.tolist()
    for current, following in pairwise(levels):
        clean = denoise(x, current)
        x = clean + (following / current) * (x - clean)
    return x


def sample_heun(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None) -> Tensor:
    """Heun's method, second order, without churn (Karras et al. 2022, algorithm 1).

    Args:
        denoise: posterior mean; called ``2 * (len(sigmas) - 1)`` times.
        x: state at ``sigmas[0]``.
        sigmas: descending levels.
        noise: not used by a deterministic sampler.

    Returns:
        State at ``sigmas[-1]``.
    """
    levels = sigmas.tolist()
    for current, following in pairwise(levels):
        slope = (x - denoise(x, current)) / current
        guess = x + (following - current) * slope
        guess_slope = (guess - denoise(guess, following)) / following
        x = x + (following - current) * 0.5 * (slope + guess_slope)
    return x


def sample_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None) -> Tensor:
    """Ancestral sampling: each step draws from the Gaussian bridge to the posterior mean (Ho et al. 2020). Slow truth.

    Args:
        denoise: posterior mean; called ``len(sigmas) - 1`` times.
        x: state at ``sigmas[0]``.
        sigmas: descending levels.
        noise: fresh normal numbers for each step.

    Returns:
        State at ``sigmas[-1]``.

    Raises:
        ValueError: if no noise is given.
    """
    if noise is None:
        raise ValueError("ancestral sampling needs noise")
    levels = sigmas.tolist()
    for step, (current, following) in enumerate(pairwise(levels)):
        clean = denoise(x, current)
        keep = following**2 / current**2
        spread = following * (1.0 - keep) ** 0.5
        x = clean + keep * (x - clean) + spread * noise(step)
    return x


SAMPLERS: Final[Mapping[str, Sampler]] = MappingProxyType(
    {"ddim": sample_ddim, "heun": sample_heun, "ancestral": sample_ancestral}
)
"""Samplers by the name that a user types."""


def evaluations(sampler: str, levels: int) -> int:
    """Calls of the denoiser for one patient, the final draw's included."""
    return (levels - 1) * (2 if sampler == "heun" else 1) + 1
