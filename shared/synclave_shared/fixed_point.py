"""Fixed point: how released numbers travel, so that no float of a site's computation ever leaves it.

A float64 ``x`` becomes the integer ``rint(x * 2**SCALE_BITS)``. Rounding moves each coordinate by at most half a unit,
so a vector of ``n`` coordinates by at most ``sqrt(n) / 2**(SCALE_BITS + 1)`` in L2. Rounding a noised value is
post-processing and costs no privacy; it removes the low-order bits on which attacks on floating-point noise rest
(Mironov 2012).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.errors import ProtocolError

__all__ = ["MAX_MAGNITUDE", "SCALE_BITS", "from_fixed", "to_fixed"]

SCALE_BITS: Final = 20
"""Fraction bits: a resolution of about 1e-6, far below any noise that is added."""

MAX_MAGNITUDE: Final = float(2**30)
"""Largest absolute value that may be sent: leaves 13 bits of an int64 free for sums over sites."""


def to_fixed(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round a finite float64 vector to fixed point.

    Raises:
        ProtocolError: if a value is not finite or exceeds :data:`MAX_MAGNITUDE`.
    """
    if not np.all(np.isfinite(values)) or np.any(np.abs(values) > MAX_MAGNITUDE):
        raise ProtocolError(
            expected=f"finite values of magnitude at most {MAX_MAGNITUDE:g}",
            found="a value outside",
            remedy="Nothing was released. Lower the learning rate or the noise of the plan.",
        )
    return np.rint(np.asarray(values, dtype=np.float64) * 2.0**SCALE_BITS).astype(np.int64)


def from_fixed(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """The float64 values that fixed-point integers stand for."""
    return np.asarray(values, dtype=np.float64) / 2.0**SCALE_BITS
