"""What was done to the data, as a value: closed tags with exact parameters, kept apart from what it costs.

The ledger carries these values; :mod:`synclave_shared.privacy.accountant` turns them into an epsilon. The adjacency is
*add or remove one patient*, with everything that the patient ever contributed; the unit is the patient.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from synclave_shared.canonical import ExactDecimal, FrozenModel

if TYPE_CHECKING:
    from dp_accounting import dp_event

__all__ = ["LARGEST_DELTA", "MECHANISM", "Delta", "GaussianSum", "Mechanism", "PoissonGaussian", "to_event"]

MAX_STEPS = 1_000_000
"""Upper bound of a mechanism's repetitions: beyond it a plan is a typing error, and composing it takes minutes."""

LARGEST_DELTA: Final = Decimal("0.1")
"""Beyond it a promise means nothing; and the float of every delta stays far from 1, where no epsilon is defined."""

Delta = Annotated[ExactDecimal, Field(gt=0, le=LARGEST_DELTA)]
PositiveDecimal = Annotated[ExactDecimal, Field(gt=0, le=1_000_000)]
Probability = Annotated[ExactDecimal, Field(gt=0, le=1)]


class PoissonGaussian(FrozenModel):
    """DP-SGD: ``steps`` Gaussian releases, each on a Poisson selection of patients (Abadi et al. 2016).

    Attributes:
        noise_multiplier: noise standard deviation / clip_norm, dimensionless.
        clip_norm: L2 bound of one patient's contribution to one step's sum.
        selection_rate: probability with which each patient takes part in a step, independently.
        steps: number of steps.
    """

    tag: Literal["poisson-gaussian/1"] = "poisson-gaussian/1"
    noise_multiplier: PositiveDecimal
    clip_norm: PositiveDecimal
    selection_rate: Probability
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]


class GaussianSum(FrozenModel):
    """One noisy sum over all patients, each clipped to ``clip_norm`` in L2 (marginals, guidance vectors).

    Attributes:
        noise_multiplier: noise standard deviation / clip_norm, dimensionless.
        clip_norm: L2 bound of one patient's contribution.
    """

    tag: Literal["gaussian-sum/1"] = "gaussian-sum/1"
    noise_multiplier: PositiveDecimal
    clip_norm: PositiveDecimal


Mechanism = Annotated[PoissonGaussian | GaussianSum, Field(discriminator="tag")]
"""Everything a site may ever do with patients' data on behalf of a plan."""

MECHANISM: TypeAdapter[PoissonGaussian | GaussianSum] = TypeAdapter(Mechanism)
"""Validates JSON into a mechanism; an unknown tag is refused."""


def to_event(mechanism: PoissonGaussian | GaussianSum) -> dp_event.DpEvent:
    """Map a mechanism to the ``dp_accounting`` event that describes it (adjacency: add or remove one patient)."""
    # Imported here: it takes most of a second, and the gateway reads messages without ever composing anything.
    from dp_accounting import dp_event

    gaussian = dp_event.GaussianDpEvent(float(mechanism.noise_multiplier))
    match mechanism:
        case GaussianSum():
            return gaussian
        case PoissonGaussian():
            step = dp_event.PoissonSampledDpEvent(float(mechanism.selection_rate), gaussian)
            return dp_event.SelfComposedDpEvent(step, mechanism.steps)
