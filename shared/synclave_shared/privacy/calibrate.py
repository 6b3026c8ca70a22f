"""How much noise a target epsilon takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from synclave_shared.errors import PlanError
from synclave_shared.privacy.accountant import epsilon, epsilon_rdp
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
) -> Decimal:
    """The smallest noise multiplier, in thousandths, with which a plan stays within a target epsilon.

    Formal guarantee: ``epsilon(mechanisms_of(result), delta) <= target_epsilon``, and one thousandth less exceeds it.

    Args:
        target_epsilon: most that the whole plan may cost.
        delta: at which delta.
        mechanisms_of: the plan's mechanisms for a given noise multiplier; more noise must not cost more.

    Raises:
        PlanError: if the target is not positive, or no noise up to :data:`MAX_NOISE_MULTIPLIER` reaches it.
    """
    if not target_epsilon > 0:
        raise PlanError(
            expected="a target epsilon above 0", found=str(target_epsilon), remedy="State how much may be spent."
        )

    def affordable(thousandths: int, cost: Callable[..., float] = epsilon) -> bool:
        return cost(mechanisms_of(thousandths * GRID), float(delta)) <= float(target_epsilon)

    most = int(MAX_NOISE_MULTIPLIER / GRID)
    # The Rényi bound is a hundred times quicker and mostly within a third of epsilon: the search starts where it ends.
    high = 1
    while high < most and not affordable(high, epsilon_rdp):
        high = min(2 * high, most)
    high = _bisect(high // 2, high, lambda middle: affordable(middle, epsilon_rdp))
    low = high * 3 // 4
    while not affordable(high):
        if high == most:
            raise PlanError(
                expected=f"an epsilon of {target_epsilon} to be reachable with noise multipliers up to"
                f" {MAX_NOISE_MULTIPLIER}",
                found="more is needed",
                remedy="Plan fewer steps, a lower selection rate, or a larger epsilon.",
            )
        low, high = high, min(2 * high, most)
    while low and affordable(low):
        low, high = low * 3 // 4, low
    return _bisect(low, high, affordable) * GRID


def _bisect(low: int, high: int, enough: Callable[[int], bool]) -> int:
    """The boundary between ``low``, which is not enough (or 0), and ``high``, which is."""
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
