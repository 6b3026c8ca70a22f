"""The last door: what a site computed becomes what leaves it, a sum with its noise or the update of noised steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import SecretRandomness
from synclave_shared.errors import ProtocolError
from synclave_shared.fixed_point import to_fixed
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["fixed_point_update", "release_sum"]


def release_sum(
    total: NDArray[np.float64],
    mechanism: PoissonGaussian | GaussianSum,
    patients: int,
    alone: Callable[[int], tuple[float, float]],
    randomness: SecretRandomness,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """One Gaussian release of a sum over all patients, :class:`synclave_shared.privacy.mechanism.GaussianSum`.

    Args:
        total: [P], the sum of the patients' clipped contributions; is noised in place.
        mechanism: clip norm and noise of the plan's round.
        patients: how many there are.
        alone: number of a patient -> L2 norm of what this patient by itself adds, and its share of the clip norm.
        randomness: the site's secret randomness.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [P], fixed point.

    Raises:
        ProtocolError: if a value is not finite; nothing is released then.
    """
    watch = watch or RoundWatch(mechanism, patients)
    for patient in watch.few(patients):
        watch.contributed(*alone(patient))
    with watch.noising(total, patients):
        randomness.add_normal(total, float(mechanism.noise_multiplier) * float(mechanism.clip_norm))
    return to_fixed(total)


def fixed_point_update(
    before: NDArray[np.float32], after: NDArray[np.float64], update_norm: float
) -> NDArray[np.int64]:
    """The update of a round, scaled down to ``update_norm`` in L2 if it is longer, in fixed point.

    Args:
        before: [P], the model the round began with.
        after: [P], the model after the round's private steps.
        update_norm: public L2 bound of one site's update.

    Returns:
        [P], fixed point.

    Raises:
        ProtocolError: if a value is not finite; nothing is released then.
    """
    update = after - before.astype(np.float64)
    norm = float(np.linalg.norm(update))
    if not np.isfinite(norm):
        raise ProtocolError(
            expected="a finite update",
            found="NaN or infinity",
            remedy="Nothing was released. Lower the learning rate or the noise of the plan.",
        )
    return to_fixed(update * (update_norm / norm) if norm > update_norm else update)
