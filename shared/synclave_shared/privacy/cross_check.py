"""One spend by three accountants: privacy loss distributions, Rényi divergences, and Opacus' PRV accountant.

The first is what the ledger states. It must not be above the Rényi bound, which is looser and shares with it no more
than the description of the mechanisms; and it must be what Opacus comes to, whose code is another one altogether:
below it by no more than :func:`tolerance`, above it by no more than that and :func:`rounding`, since losses are
rounded up.

What was not compared is named, and is never an agreement: an auditor's installation has no Opacus, and beyond a number
of steps, or of an epsilon that protects anybody, rounding and time grow without telling anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from synclave_shared.privacy.accountant import (
    FINE_GRID,
    FINE_UP_TO,
    GRID,
    MAX_GRID_DISTINCT,
    bounds,
    distinct,
    epsilon_prv,
)
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["CrossCheck", "cross_check", "rounding", "tolerance"]

PRV_ERROR: Final = 0.01
"""What Opacus adds to its estimate, to be an upper bound."""

MOST_STEPS: Final = 20_000
"""Beyond, the rounding of so many losses alone comes near the tolerance, and Opacus takes more than seconds."""

MOST_DISTINCT: Final = 8
"""Different mechanisms in one comparison with Opacus, each of which costs it up to a second."""

MOST_WORK: Final = 150
"""Different mechanisms times the root of all steps: about as many tenths of a second at worst. One mechanism is
compared up to :data:`MOST_STEPS`, two up to 5,625 steps."""

LARGEST_EPSILON: Final = 20.0
"""Beyond, nobody is protected, and Opacus' grid takes seconds."""

SMALLEST_RATE: Final = 1e-6
"""Selection rates below it are lost in the rounding of Opacus' formulas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """What the accountants say of one composition, at one delta.

    Attributes:
        pld: by privacy loss distributions; None where none is computed.
        rdp: by Rényi divergences.
        prv: by Opacus, :data:`PRV_ERROR` included; None where it was not asked.
        tolerance: by how much PLD may be below PRV less its error.
        rounding: by how much more it may be above, and above RDP.
        disagreements: what contradicts what, in words; empty if nothing that was compared does.
        not_checked: what was not compared, and why.
    """

    pld: float | None
    rdp: float
    prv: float | None
    tolerance: float
    rounding: float
    disagreements: tuple[str, ...]
    not_checked: tuple[str, ...]


def tolerance(epsilon: float) -> float:
    """How far accountants may lie apart at an epsilon: 0.005 and 0.3 %."""
    return 0.005 + 0.003 * epsilon


def rounding(steps: int, grid: float) -> float:
    """What rounding the losses of so many steps up to a grid can add to an epsilon: the grid times their root.

    The distribution's connected dots keep the mean of ``exp(-loss)`` in every cell, so that only its variance grows,
    by less than a quarter of the grid's square in a step.
    """
    return grid * math.sqrt(steps)


def cross_check(mechanisms: Sequence[PoissonGaussian | GaussianSum], delta: float) -> CrossCheck:
    """Compose by each accountant and compare.

    Args:
        mechanisms: everything that was done to one data set, in any order.
        delta: at which epsilon is asked.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    counts = distinct(mechanisms)
    found = bounds(mechanisms, delta)
    steps = sum(times for _, times in counts)
    allowed = tolerance(found.smaller)
    rounded_up = rounding(steps, FINE_GRID if found.by_divergence <= FINE_UP_TO else GRID)
    pld = found.by_distribution if math.isfinite(found.by_distribution) else None
    prv: float | None = None
    disagreements, not_checked = [], []
    if pld is None:
        not_checked.append(
            f"PLD: none is computed for more than {MAX_GRID_DISTINCT} different mechanisms"
            if len(counts) > MAX_GRID_DISTINCT
            else "PLD: none is computed for so little noise, or so large an epsilon"
        )
    elif steps > MOST_STEPS:
        not_checked.append(f"PLD against RDP and PRV: more than {MOST_STEPS} steps")
    elif counts:
        if pld > found.by_divergence + allowed + rounded_up:
            disagreements.append(f"PLD {pld:.6g} is above RDP {found.by_divergence:.6g}, the looser bound")
        prv, why_not = _prv(mechanisms, delta, found.smaller, counts)
        if prv is None:
            not_checked.append(f"PLD against PRV: {why_not}")
        elif not -allowed <= pld - max(prv - PRV_ERROR, 0.0) <= allowed + rounded_up:
            disagreements.append(f"PLD {pld:.6g} is not PRV {prv:.6g} less its error of {PRV_ERROR}")
    return CrossCheck(
        pld=pld,
        rdp=found.by_divergence,
        prv=prv,
        tolerance=allowed,
        rounding=rounded_up,
        disagreements=tuple(disagreements),
        not_checked=tuple(not_checked),
    )


def _prv(
    mechanisms: Sequence[PoissonGaussian | GaussianSum],
    delta: float,
    epsilon: float,
    counts: Sequence[tuple[PoissonGaussian | GaussianSum, int]],
) -> tuple[float | None, str]:
    """Opacus' number, or None and why there is none."""
    rates = [float(each.selection_rate) for each, _ in counts if isinstance(each, PoissonGaussian)]
    if len(counts) > MOST_DISTINCT:
        return None, f"more than {MOST_DISTINCT} different mechanisms"
    if len(counts) * math.sqrt(sum(times for _, times in counts)) > MOST_WORK:
        return None, f"{len(counts)} different mechanisms of so many steps"
    if epsilon > LARGEST_EPSILON:
        return None, f"an epsilon above {LARGEST_EPSILON:g}"
    if min(rates, default=1.0) < SMALLEST_RATE:
        return None, f"a selection rate below {SMALLEST_RATE:g}"
    try:
        prv = epsilon_prv(mechanisms, delta)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        return None, f"Opacus gave up ({type(error).__name__})"
    if prv is None:
        return None, "Opacus is not installed"
    return (prv, "") if math.isfinite(prv) else (None, "Opacus came to no number")
