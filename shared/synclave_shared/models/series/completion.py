"""Values for what was not measured: drawn from the channel's own process, given what was.

To carry the last value forward would teach the model that channels stand still. A gap is filled by Matheron's rule: a
draw from the process, corrected by what was measured of it; a channel that was never measured is a draw. Each patient
is completed by itself, so that nobody else decides a last bit of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from synclave_shared.models.series.anchor import SeriesAnchor

__all__ = ["Completion"]

JITTER: Final = 1e-2
"""Of a measured value's own: that of a measurement, in variances of the channel. Keeps the equations well posed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The processes of an anchor.

    Attributes:
        covariance: float64 [C, T, T].
        factor: float64 [C, T, T], times its transpose the covariance.
        shift: means under each label value, float64 [L, C].
    """

    covariance: NDArray[np.float64]
    factor: NDArray[np.float64]
    shift: NDArray[np.float64]

    @classmethod
    def of(cls, anchor: SeriesAnchor) -> Self:
        """Those of an anchor."""
        steps = anchor.inertia.shape[1]
        lag = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
        covariance = anchor.inertia.astype(np.float64)[:, lag]
        values, vectors = np.linalg.eigh(covariance)
        factor = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        return cls(covariance=covariance, factor=factor, shift=anchor.shift.astype(np.float64))

    def complete(
        self, scores: NDArray[np.float32], observed: NDArray[np.uint8], label: int, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """One patient without gaps.

        Args:
            scores: [T, C], normal scores; what was not measured is not looked at.
            observed: [T, C], 0/1.
            label: its label number.
            noise: [T, C], standard normal.

        Returns:
            float32 [T, C]; what was measured stays as it is.
        """
        seen = observed.T.astype(bool)
        drawn = self.shift[label][:, None] + np.einsum("cts,sc->ct", self.factor, noise.astype(np.float64))
        missed = np.where(seen, scores.T - drawn, 0.0)
        both = seen[:, :, None] & seen[:, None, :]
        system = np.where(both, self.covariance, 0.0)
        diagonal = np.arange(system.shape[1])
        system[:, diagonal, diagonal] = np.where(seen, self.covariance[:, diagonal, diagonal] + JITTER, 1.0)
        weights = np.linalg.solve(system, missed[:, :, None])
        completed = drawn + (np.where(seen[:, None, :], self.covariance, 0.0) @ weights)[:, :, 0]
        return np.where(seen, scores.T, completed).T.astype(np.float32)
