"""One-step samplers: each step looks at the state it starts from and at nothing earlier."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from synclave_shared.diffusion.denoiser import Denoise, Noise

__all__ = ["sample_ancestral", "sample_ddim", "sample_heun"]


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
