"""How much noise a target epsilon takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from synclave_shared.errors import PlanError
from synclave_shared.privacy.accountant import epsilon
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

    def affordable(thousandths: int) -> bool:
        return epsilon(mechanisms_of(thousandths * GRID), float(delta)) <= float(target_epsilon)

    most = int(MAX_NOISE_MULTIPLIER / GRID)
    if not target_epsilon > 0:
        raise PlanError(
            expected="a target epsilon above 0", found=str(target_epsilon), remedy="State how much may be spent."
        )
    # Double from 0.5 until it is enough: small multipliers are the expensive ones to account for.
    high = 500
    while not affordable(high):
        if high == most:
            raise PlanError(
                expected=f"an epsilon of {target_epsilon} to be reachable with a noise multiplier up to"
                f" {MAX_NOISE_MULTIPLIER}",
                found="more is needed",
                remedy="Plan fewer steps, a lower selection rate, or a larger epsilon.",
            )
        high = min(2 * high, most)
    low = high // 2 if high > 500 else 0
    while high - low > 1:
        middle = (low + high) // 2
        if affordable(middle):
            high = middle
        else:
            low = middle
    return high * GRID
