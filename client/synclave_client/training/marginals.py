"""Round 0: one noisy sum that tells the coordinator how common each code is under each label value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.release import release_sum
from synclave_shared.data.shares import limits, share_of
from synclave_shared.errors import PlanError
from synclave_shared.plan import MARGINALS_ROUND, TrainPlan

if TYPE_CHECKING:
    from synclave_shared.data.patients import PatientDataset
    from synclave_shared.data.schema import Schema
    from synclave_shared.data.sparse_rows import SparseRows

__all__ = ["clipped_marginals", "release_marginals"]


def clipped_marginals(
    features: SparseRows,
    labels: NDArray[np.int64],
    label_values: int,
    clip_norm: float,
    shares: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Sum of the patients' marginal rows, each scaled down to ``clip_norm`` in L2.

    A patient's row is its codes in the block of its label, and a 1 in the label counts: scaling both alike keeps their
    ratio, the prevalence, unbiased by patients of equal length.

    Args:
        features: [N, D], 0/1.
        labels: [N], label numbers.
        label_values: L.
        clip_norm: L2 bound of one patient's row.
        shares: [N], what share of it each patient may have; None: all of it.

    Returns:
        [L*D + L]: column sums per label value, then label counts.
    """
    # A 0/1 row's squared length is its number of ones; one more for the label count.
    scale = np.minimum(1.0, limits(shares, len(labels), clip_norm) / np.sqrt(features.counts + 1.0))
    sums = features.sums(labels, label_values, scale)
    return np.concatenate([sums.reshape(-1), np.bincount(labels, scale, minlength=label_values)])


def release_marginals(
    plan: TrainPlan,
    schema: Schema,
    dataset: PatientDataset,
    randomness: SecretRandomness,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """The site's noisy marginals, by :func:`synclave_client.training.release.release_sum`.

    Args:
        plan: the accepted plan; it fixes clip norm and noise.
        schema: columns and label values.
        dataset: the site's patients.
        randomness: the site's secret randomness.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [L*D + L], fixed point.

    Raises:
        PlanError: if the plan has no marginals release.
    """
    if plan.privacy.marginals is None:
        raise PlanError(
            expected="a plan with a marginals release",
            found="none",
            remedy="Start this plan with round 1.",
        )
    mechanism = plan.mechanism(MARGINALS_ROUND)
    clip_norm, label_values = float(mechanism.clip_norm), len(schema.label.values)

    def alone(patient: int) -> tuple[float, float]:
        one = dataset.select(np.array([patient]))
        own = clipped_marginals(one.features, one.labels, label_values, clip_norm, one.shares)
        return float(np.linalg.norm(own)), share_of(dataset.shares, patient)

    sums = clipped_marginals(dataset.features, dataset.labels, label_values, clip_norm, dataset.shares)
    return release_sum(sums, mechanism, len(dataset), alone, randomness, watch)
