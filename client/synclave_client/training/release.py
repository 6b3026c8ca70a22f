"""The last door: what a site computed becomes what leaves it. Everything here is post-processing of noised values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synclave_shared.errors import ProtocolError
from synclave_shared.fixed_point import to_fixed

__all__ = ["fixed_point_update"]


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
