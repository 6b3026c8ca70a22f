"""How much noise a target epsilon takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final

from synclave_shared.errors import PlanError
from synclave_shared.privacy.accountant import Continuation, epsilon
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["GRID", "MAX_NOISE_MULTIPLIER", "noise_multiplier_for"]

GRID: Final = Decimal("0.001")
"""Noise multipliers are given in thousandths: a plan shall be readable, and a thousandth is below any effect."""

MAX_NOISE_MULTIPLIER: Final = Decimal(100_000)
"""Noise beyond which there is nothing left to learn."""


def noise_multiplier_for(
    target_epsilon: float | Decimal,
    delta: float | Decimal,
    mechanisms_of: Callable[[Decimal], Sequence[PoissonGaussian | GaussianSum]],
    *,
    spent: Sequence[PoissonGaussian | GaussianSum] = (),
    grid: Decimal = GRID,
    at_least: Decimal = Decimal(0),
    told_apart: int | None = None,
) -> Decimal:
    """The smallest noise multiplier, on a grid, with which a plan stays within a target epsilon.

    Formal guarantee: ``epsilon([*spent, *mechanisms_of(result)], delta) <= target_epsilon``, and one step of the grid
    less exceeds it (but for the last digits, where something was spent before).

    Args:
        target_epsilon: most that the whole plan, and what was spent before, may cost.
        delta: at which delta.
        mechanisms_of: the plan's mechanisms for a given noise multiplier; more noise must not cost more.
        spent: what was done to the same data set before.
        grid: step of the result.
        at_least: the result is not less, which is where the search starts.
        told_apart: 3 or more: about so many results up to the right one are told apart, where the grid is finer; the
            next one above is returned, sooner. None: every step of the grid.

    Raises:
        PlanError: if the target is not positive, or no noise up to :data:`MAX_NOISE_MULTIPLIER` reaches it.
    """
    if not target_epsilon > 0:
        raise PlanError(
            expected="a target epsilon above 0", found=str(target_epsilon), remedy="State how much may be spent."
        )
    before = _after(tuple(spent), float(delta))

    def affordable(steps: int, cost: Callable[[Sequence[PoissonGaussian | GaussianSum]], float]) -> bool:
        return cost(mechanisms_of(steps * grid)) <= float(target_epsilon)

    stride, most = 1, int(MAX_NOISE_MULTIPLIER / grid)

    def enough(strides: int) -> bool:
        return affordable(strides * stride, before.epsilon)

    def enough_by_renyi(steps: int) -> bool:
        return affordable(steps, before.epsilon_rdp)

    first = max(1, math.ceil(at_least / grid))
    low, high = _doubled(first, most, enough_by_renyi)
    if high < most:
        # The Rényi bound is a hundred times quicker and mostly within a third of epsilon: the search starts where it
        # ends.
        high = _bisect(low, high, enough_by_renyi)
        low = max(high * 3 // 4, first - 1)
    else:
        low, high = _doubled(first, most, enough)
    if told_apart:
        stride = max(1, high // told_apart)
        low, high = low // stride, -(-high // stride)
    while low * stride >= first and enough(low):
        low, high = low * 3 // 4, low
    result = _bisect(low, high, enough)
    while not affordable(result * stride, lambda planned: epsilon([*spent, *planned], float(delta))):
        if result * stride >= most:
            raise PlanError(
                expected=f"an epsilon of {target_epsilon} to be reachable with noise multipliers up to"
                f" {MAX_NOISE_MULTIPLIER}",
                found="more is needed",
                remedy="Plan fewer steps, a lower selection rate, or a larger epsilon.",
            )
        result += 1
    return result * stride * grid


@lru_cache(maxsize=4)
def _after(spent: tuple[PoissonGaussian | GaussianSum, ...], delta: float) -> Continuation:
    # The cells of one table go on from the same spend: it is composed once for all of them.
    return Continuation(spent, delta)


def _doubled(first: int, most: int, enough: Callable[[int], bool]) -> tuple[int, int]:
    """Double ``first`` until it is enough, or ``most``; and the last that is not, or one below ``first``."""
    low, high = first - 1, first
    while high < most and not enough(high):
        low, high = high, min(2 * high, most)
    return low, high


def _bisect(low: int, high: int, enough: Callable[[int], bool]) -> int:
    """The boundary between ``low``, which is not enough (or 0), and ``high``, which is."""
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
