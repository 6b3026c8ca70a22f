"""What can still be trained with what is left of a budget: rounds against noise against batch.

Every offer is a whole training on top of everything that was spent and promised before, and is within the budget by
:func:`~synclave_shared.privacy.budget.check_budget` itself, which also decides when a plan comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Final

from synclave_shared.errors import PlanError
from synclave_shared.privacy.budget import Budget, check_budget
from synclave_shared.privacy.calibrate import noise_multiplier_for
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["Offer", "affordable", "affordable_sum"]

NOISE_GRID: Final = Decimal("0.01")
"""Noise multipliers are offered in hundredths: a table is for choosing by."""

TOLD_APART: Final = 50
"""An offer has at most about 2 % more noise than it would need: to the last digit it would take twice the time."""

RATE_GRID: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One training, and the noise with which it fits.

    Attributes:
        rounds: training rounds.
        batch: public expected number of patients in a step.
        selection_rate: that of the plan, ``batch`` / patients rounded up.
        noise_multiplier: the smallest that fits; None if none does.
        epsilon_after: cumulative epsilon after the training; None likewise.
    """

    rounds: int
    batch: int
    selection_rate: Decimal
    noise_multiplier: Decimal | None
    epsilon_after: float | None


def affordable(
    budget: Budget,
    spent: Sequence[PoissonGaussian | GaussianSum],
    *,
    patients: int,
    steps_per_round: int,
    rounds: Sequence[int],
    batches: Sequence[int],
    floor: Decimal = Decimal(0),
) -> list[Offer]:
    """For every batch and number of rounds the smallest noise with which the training fits into the budget.

    Args:
        budget: the data set's.
        spent: everything that was spent or promised on it.
        patients: public, rounded number of its patients, as in plans.
        steps_per_round: steps of a round.
        rounds: numbers of rounds.
        batches: expected numbers of patients in a step, 1 to ``patients``.
        floor: smallest noise multiplier that the site's policy accepts.

    Returns:
        Batch by batch, rounds rising.

    Raises:
        PlanError: if a batch is larger than the number of patients, or a number is below 1.
    """
    if min(patients, steps_per_round, *rounds, *batches) < 1 or max(batches) > patients:
        raise PlanError(
            expected=f"patients, steps and rounds of 1 or more, and batches of 1 to {patients}",
            found=f"{patients} patients, {steps_per_round} steps, rounds {[*rounds]}, batches {[*batches]}",
            remedy="Correct the numbers.",
        )
    offers = []
    for batch in batches:
        least = floor
        rate = min((Decimal(batch) / patients).quantize(RATE_GRID, ROUND_UP), Decimal(1))
        for number in sorted(rounds):

            def training(noise: Decimal, rate: Decimal = rate, number: int = number) -> list[PoissonGaussian]:
                step = PoissonGaussian(
                    noise_multiplier=noise, clip_norm=Decimal(1), selection_rate=rate, steps=steps_per_round
                )
                return [step] * number

            noise, after = _smallest(budget, spent, training, least)
            # More rounds take more noise: the next search starts here.
            least = noise or least
            offers.append(
                Offer(rounds=number, batch=batch, selection_rate=rate, noise_multiplier=noise, epsilon_after=after)
            )
    return offers


def affordable_sum(
    budget: Budget, spent: Sequence[PoissonGaussian | GaussianSum], floor: Decimal = Decimal(0)
) -> Decimal | None:
    """The smallest noise with which one sum over all patients fits (marginals, second moments, scores); None if none.

    Args:
        budget: the data set's.
        spent: everything that was spent or promised on it.
        floor: smallest noise multiplier that the site's policy accepts.
    """
    return _smallest(budget, spent, lambda noise: [GaussianSum(noise_multiplier=noise, clip_norm=Decimal(1))], floor)[0]


def _smallest(
    budget: Budget,
    spent: Sequence[PoissonGaussian | GaussianSum],
    mechanisms_of: Callable[[Decimal], Sequence[PoissonGaussian | GaussianSum]],
    least: Decimal,
) -> tuple[Decimal | None, float | None]:
    if not check_budget(budget, spent, []).allowed:
        return None, None
    try:
        noise = noise_multiplier_for(
            budget.epsilon,
            budget.delta,
            mechanisms_of,
            spent=spent,
            grid=NOISE_GRID,
            at_least=least,
            told_apart=TOLD_APART,
        )
    except PlanError:
        return None, None
    verdict = check_budget(budget, spent, mechanisms_of(noise))
    return (noise, verdict.after_epsilon) if verdict.allowed else (None, None)
