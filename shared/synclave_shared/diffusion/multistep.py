"""Multistep samplers: one call per step, and answers of earlier steps extrapolated for a higher order.

With ``lambda = -log(sigma)`` the probability-flow equation is linear but for the denoiser's answer m(lambda):

    x(lambda + h) = exp(-h) * x(lambda) + integral over v from 0 to h of exp(v - h) * m(lambda + v).

Only m is approximated, by a polynomial through answers that are already known; the linear part is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import expm1, factorial, log

import torch
from torch import Tensor

from synclave_shared.diffusion.denoiser import Denoise, Noise

__all__ = ["sample_dpmpp_2m", "sample_sde_dpmpp_2m", "sample_unipc"]


def sample_dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None) -> Tensor:
    """DPM-Solver++(2M), second order; its first step is DDIM's (Lu et al. 2022, algorithm 2).

    Args:
        denoise: posterior mean; called ``len(sigmas) - 1`` times.
        x: state at ``sigmas[0]``.
        sigmas: descending levels.
        noise: not used by a deterministic sampler.

    Returns:
        State at ``sigmas[-1]``.
    """
    earlier: Tensor | None = None
    width = 0.0
    for current, following in pairwise(sigmas.tolist()):
        h = log(current / following)
        clean = denoise(x, current)
        ahead = clean if earlier is None else clean + (0.5 * h / width) * (clean - earlier)
        x = ahead + (following / current) * (x - ahead)
        earlier, width = clean, h
    return x


def sample_sde_dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None) -> Tensor:
    """SDE-DPM-Solver++(2M): ancestral sampling with the posterior mean extrapolated (Lu et al. 2022, appendix).

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
        raise ValueError("stochastic DPM-Solver++ needs noise")
    earlier: Tensor | None = None
    width = 0.0
    for step, (current, following) in enumerate(pairwise(sigmas.tolist())):
        h = log(current / following)
        clean = denoise(x, current)
        ahead = clean if earlier is None else clean + (0.5 * h / width) * (clean - earlier)
        keep = (following / current) ** 2
        x = ahead + keep * (x - ahead) + following * (1.0 - keep) ** 0.5 * noise(step)
        earlier, width = clean, h
    return x


def sample_unipc(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, order: int = 3) -> Tensor:
    """UniPC with B(h) = exp(h) - 1 (Zhao et al. 2023, algorithms 5 and 6): a corrector that costs no call.

    The answer at a predicted state corrects that state and then serves as the newest answer of the next prediction.
    The last state is predicted only, because its answer is the caller's final draw.

    Args:
        denoise: posterior mean; called ``len(sigmas) - 1`` times.
        x: state at ``sigmas[0]``.
        sigmas: descending levels.
        noise: not used by a deterministic sampler.
        order: answers that a prediction uses, >= 1; the first steps have fewer.

    Returns:
        State at ``sigmas[-1]``.
    """
    levels = sigmas.tolist()
    places = [-log(level) for level in levels]
    known: list[_Answer] = []
    origin = x
    for step, level in enumerate(levels[:-1]):
        known.append((places[step], denoise(x, level)))
        if step:
            newest, start, *earlier = known[::-1]
            x = _advance(origin, start, places[step], [*earlier[: order - 1], newest])
        origin = x
        start, *earlier = known[::-1]
        x = _advance(origin, start, places[step + 1], earlier[: order - 1])
    return x


_Answer = tuple[float, Tensor]
"""A place on the axis of lambda and the denoiser's answer there."""


def _advance(x: Tensor, start: _Answer, end: float, others: Sequence[_Answer]) -> Tensor:
    """The state at ``end`` from x at ``start``, by the start's answer and differences of the others to it.

    Equation 3 of Zhao et al. 2023 for data prediction. With one difference the weight 1/2 is exact enough, and better
    than the solution of the order conditions, which for one difference depends on h.
    """
    place, clean = start
    h = end - place
    gain = -expm1(-h)
    x = x + gain * (clean - x)
    if not others:
        return x
    ratios = [(other - place) / h for other, _ in others]
    weights = [0.5] if len(others) == 1 else _weights(ratios, h)
    for weight, ratio, (_, answer) in zip(weights, ratios, others, strict=True):
        x = x + (gain * weight / ratio) * (answer - clean)
    return x


def _weights(ratios: Sequence[float], h: float) -> list[float]:
    """Weights that make the integral exact for polynomials of degree ``len(ratios)``: ``R @ weights = b``."""
    scale = expm1(-h)
    phi = scale / -h - 1.0
    goals = []
    for power in range(1, len(ratios) + 1):
        goals.append(factorial(power) * phi / scale)
        phi = phi / -h - 1.0 / factorial(power + 1)
    nodes = torch.tensor(ratios, dtype=torch.float64)
    powers = torch.stack([nodes**power for power in range(len(ratios))])
    solved: list[float] = torch.linalg.solve(powers, torch.tensor(goals, dtype=torch.float64)).tolist()
    return solved
