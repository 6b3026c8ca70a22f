"""The copula's one round: a noisy sum of second moments, of which a model is fitted without any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.release import release_sum
from synclave_shared.data.shares import share_of
from synclave_shared.errors import PlanError
from synclave_shared.models.copula import second_moments
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import TrainPlan

if TYPE_CHECKING:
    from synclave_shared.data.patients import PatientDataset
    from synclave_shared.data.schema import Schema
    from synclave_shared.models.anchor import Anchor

__all__ = ["release_moments"]


def release_moments(
    plan: TrainPlan,
    round_number: int,
    schema: Schema,
    dataset: PatientDataset,
    anchor: Anchor,
    randomness: SecretRandomness,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """The site's noisy second moments, by :func:`synclave_client.training.release.release_sum`.

    Args:
        plan: the accepted plan; it fixes clip norm and noise.
        round_number: the round.
        schema: columns and label values.
        dataset: the site's patients.
        anchor: what the coordinator sent, checked. It decides what is summed and not how much a patient may count for.
        randomness: the site's secret randomness.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [M], fixed point.

    Raises:
        PlanError: if the round is another one.
        ProtocolError: if a value is not finite; nothing is released then.
    """
    if plan.round_kind(round_number) != "moments":
        raise PlanError(
            expected="a round of second moments",
            found=f"round {round_number}",
            remedy="Ask for a plan with model.kind = copula.",
        )
    mechanism, layout = plan.mechanism(round_number), CodeLayout.of(schema)
    clip_norm = float(mechanism.clip_norm)

    def alone(patient: int) -> tuple[float, float]:
        one = dataset.select(np.array([patient]))
        own = second_moments(one.features, one.labels, anchor, layout, clip_norm, one.shares)
        return float(np.linalg.norm(own)), share_of(dataset.shares, patient)

    sums = second_moments(dataset.features, dataset.labels, anchor, layout, clip_norm, dataset.shares)
    return release_sum(sums, mechanism, len(dataset), alone, randomness, watch)
