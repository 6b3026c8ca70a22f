"""Anderson acceleration of DDIM, in both readings: over successive states, and over the whole trajectory.

Both fit, for each patient alone and in float64, the last differences of the residuals ``g = x - f(x)`` to the newest
residual (type II; Anderson 1965, Walker and Ni 2011):

    gamma = (Y'Y + ridge * (|S|**2 + |Y|**2) * I)**-1 Y' g,    next x = f(x) - (S - Y) gamma,

S the last differences of x, Y those of g.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from synclave_shared.diffusion.denoiser import Denoise, Noise

__all__ = ["PARALLEL_ITERATIONS", "Trajectory", "sample_anderson", "sample_parallel", "solve_trajectory"]

RIDGE: Final = 1e-8
"""Share of the differences' squared norms that keeps the least squares solvable."""


def sample_anderson(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    window: int = 2,
    damping: float = 0.01,
) -> Tensor:
    """Anderson mixing over successive DDIM states, as MedDiff's authors describe it (arXiv 2302.04355).

    DDIM's map changes from level to level, so this is no fixed-point iteration but a multistep method whose weights are
    fitted instead of derived. It jumps towards the fixed point of each map, which is the posterior mean and not a point
    of the flow, so more steps make it worse, and any share of the correction is worse than DDIM. Kept for comparison.

    Args:
        denoise: posterior mean; called ``len(sigmas) - 1`` times.
        x: [..., D], state at ``sigmas[0]``.
        sigmas: descending levels.
        noise: not used by a deterministic sampler.
        window: differences that are fitted.
        damping: share of Anderson's correction that is applied: 0 is DDIM, 1 is undamped.

    Returns:
        State at ``sigmas[-1]``.
    """
    states: list[Tensor] = []
    residuals: list[Tensor] = []
    for current, following in pairwise(sigmas.tolist()):
        clean = denoise(x, current)
        stepped = clean + (following / current) * (x - clean)
        states = [*states[-window:], x.double()]
        residuals = [*residuals[-window:], (x - stepped).double()]
        x = stepped
        if len(states) > 1:
            s, y = _differences(states), _differences(residuals)
            gamma = _fit(_gram(y), _gram(s), (y * residuals[-1][..., None, :]).sum(-1))
            correction = ((s - y) * gamma[..., None]).sum(-2)
            x = (stepped - damping * correction).to(stepped.dtype)
    return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A DDIM trajectory solved for all levels at once.

    Attributes:
        end: [..., D], state at the last level.
        iterations: int64 [...], calls of the denoiser until the patient's trajectory was within the tolerance, or all.
        calls: calls of the denoiser: the most iterations of any patient.
        rows: rows per patient in all calls together; DDIM in sequence has ``len(sigmas) - 1``.
    """

    end: Tensor
    iterations: Tensor
    calls: int
    rows: int


PARALLEL_ITERATIONS: Final = 8
"""Calls that :func:`sample_parallel` makes at most."""


def sample_parallel(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    iterations: int = PARALLEL_ITERATIONS,
    window: int = 2,
) -> Tensor:
    """DDIM with all levels in each call: few calls in sequence, more rows in all. A fixed number of iterations.

    Args:
        denoise: posterior mean; called ``min(iterations, len(sigmas) - 1)`` times with many levels.
        x: [..., D], state at ``sigmas[0]``.
        sigmas: descending levels.
        noise: not used by a deterministic sampler.
        iterations: calls.
        window: differences that are fitted; 0 is Picard's iteration.

    Returns:
        State at ``sigmas[-1]``.
    """
    return solve_trajectory(denoise, x, sigmas, iterations=iterations, window=window).end


def solve_trajectory(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, iterations: int, window: int = 2, tolerance: float = 0.0
) -> Trajectory:
    """Solve DDIM's recursion as one fixed point over all levels (Shih et al. 2023; ParaTAA, Tang et al. 2024).

    An iteration calls the denoiser once, on the states of all levels that are not yet exact, and runs the recursion
    over its answers. Iteration i makes one more level exact, so that ``len(sigmas) - 1`` iterations give DDIM's very
    result; Anderson's correction makes far fewer enough. It is block upper triangular: the weights of a level are
    fitted to the residuals of that level and of noisier ones only, since cleaner levels do not act on it.

    Args:
        denoise: posterior mean; receives [..., K, D] and levels [K, 1].
        x: [..., D], state at ``sigmas[0]``.
        sigmas: descending levels.
        iterations: calls at most.
        window: differences that are fitted; 0 is Picard's iteration.
        tolerance: a patient is done, and no longer changed, when no column of a state differs from the recursion's by
            more than this many sigmas of its level. 0: all iterations.

    Returns:
        The end of the trajectory, the same whoever else is in the batch, and what it cost.
    """
    steps = len(sigmas) - 1
    levels = sigmas.to(device=x.device, dtype=x.dtype)[:, None]
    shares = (sigmas[1:] / sigmas[:-1]).tolist()
    needed = torch.zeros(x.shape[:-1], dtype=torch.int64, device=x.device)
    if steps == 0 or iterations < 1:
        return Trajectory(end=x, iterations=needed, calls=0, rows=0)
    # The first call is for the first level alone; its answer serves all levels, which makes a straight path.
    straight = denoise(x, float(sigmas[0]))[..., None, :].expand(*x.shape[:-1], steps, x.shape[-1])
    path = _recursion(x, straight, shares)
    needed += 1
    calls, rows = 1, 1
    unfinished = torch.ones_like(needed, dtype=torch.bool)
    states: list[Tensor] = []
    residuals: list[Tensor] = []
    for _ in range(1, min(iterations, steps)):
        # The path's first state is DDIM's own by now: it is asked once more, for its answer, and then dropped.
        start, old = path[..., 0, :], path[..., 1:, :]
        first = steps - old.shape[-2]
        new = _recursion(start, denoise(path[..., :-1, :], levels[first:-1]), shares[first:])
        calls, rows = calls + 1, rows + steps - first
        states = [*(state[..., 1:, :] for state in states), old.double()][-window - 1 :]
        residuals = [*(residual[..., 1:, :] for residual in residuals), (old - new).double()][-window - 1 :]
        found = new
        if len(states) > 1:
            found = new - _triangular_correction(states, residuals).to(new.dtype)
            found[..., 0, :] = new[..., 0, :]  # exact: there is nothing to correct
        path = torch.where(unfinished[..., None, None], found, old)
        needed += unfinished
        unfinished = unfinished & ((old - new).abs() / levels[first + 1 :] > tolerance).flatten(-2).any(-1)
        if tolerance > 0 and not bool(unfinished.any()):
            break
    return Trajectory(end=path[..., -1, :], iterations=needed, calls=calls, rows=rows)


def _recursion(start: Tensor, answers: Tensor, shares: list[float]) -> Tensor:
    """DDIM's states [..., K, D] after a start [..., D], given the denoiser's answers [..., K, D]."""
    states = []
    x = start
    for clean, share in zip(answers.unbind(-2), shares, strict=True):
        x = clean + share * (x - clean)
        states.append(x)
    return torch.stack(states, dim=-2)


def _triangular_correction(states: list[Tensor], residuals: list[Tensor]) -> Tensor:
    """Anderson's correction of every level [..., K, D], fitted to the residuals of levels up to it."""
    s, y = _differences(states), _differences(residuals)
    products = (y * residuals[-1][..., None, :]).sum(-1)
    gamma = _fit(_gram(y).cumsum(-3), _gram(s).cumsum(-3), products.cumsum(-2))
    return ((s - y) * gamma[..., None]).sum(-2)


def _differences(history: list[Tensor]) -> Tensor:
    """Successive differences, stacked before the columns: [..., m, D]."""
    return torch.stack([after - before for before, after in pairwise(history)], dim=-2)


def _gram(rows: Tensor) -> Tensor:
    """Inner products [..., m, m] of rows [..., m, D]."""
    return (rows[..., :, None, :] * rows[..., None, :, :]).sum(-1)


def _fit(y_gram: Tensor, s_gram: Tensor, products: Tensor) -> Tensor:
    """Ridge regression, gamma [..., m], of the newest residual on differences of residuals.

    Args:
        y_gram: [..., m, m], Y'Y.
        s_gram: [..., m, m], S'S, of which the ridge uses the trace.
        products: [..., m], Y'g.
    """
    trace = (y_gram + s_gram).diagonal(dim1=-2, dim2=-1).sum(-1)
    ridge = RIDGE * trace + torch.finfo(trace.dtype).tiny  # a patient whose state rests has no differences at all
    identity = torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)
    gamma: Tensor = torch.linalg.solve(y_gram + ridge[..., None, None] * identity, products)
    return gamma
