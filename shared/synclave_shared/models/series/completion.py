"""Scores for what was not measured, and latent gaps for what was or was not: drawn from the patient's own process.

To carry the last value forward would teach the model that channels stand still, and to draw channels by themselves that
they do not bear on each other. First the latent gaps are drawn: above their threshold where a value was measured, below
it where not (the data augmentation of Albert and Chib 1993, in which both conditionals are exact). Then the scores,
given those: a draw from the process, corrected by what was measured of it (Matheron's rule). Each patient is completed
by itself, so that nobody else decides a last bit of it, and no patient can make it fail: whether a round fails is seen
outside, without noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv
from scipy.special import ndtr, ndtri

from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.process import cosines, covariances, expectations

__all__ = ["DRAWS", "Completion"]

JITTER: Final = 1e-2
"""Of a measured value's own: that of a measurement, in variances of the channel. Keeps the equations well posed."""

OWN: Final = 0.01
"""Likewise of a latent gap's."""

LEAST_TOLD: Final = 0.1
"""Of a combination of gaps, variance below which it tells less of the scores: such are data that no process has."""

SWEEPS: Final = 4
"""Rounds of drawing gaps and the process below them by turns."""

DRAWS: Final = 2 * SWEEPS + 1
"""Standard normal numbers that a completion takes per step and channel."""

FARTHEST: Final = 1e-250
"""Probability below which a tail is not followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stay:
    """The process over a stay of n steps, in cosines.

    Attributes:
        waves: cosines, [n, n].
        variances, modes: of the latent gaps in each, less what is their own; [n, C], [n, C, C].
        told: what the mean of latent gaps says of that of the scores, [C, C].
        left: covariance of the scores that the gaps leave open, [n, C, C].
        factor: times its transpose ``left``.
    """

    waves: NDArray[np.float64]
    variances: NDArray[np.float64]
    modes: NDArray[np.float64]
    told: NDArray[np.float64]
    left: NDArray[np.float64]
    factor: NDArray[np.float64]

    @classmethod
    def of(cls, anchor: SeriesAnchor, length: int) -> _Stay:
        channels = len(anchor.inertia)
        blocks = covariances(anchor, length)
        values, modes = np.linalg.eigh(blocks[:, channels:, channels:])
        values = np.maximum(values, OWN)
        across, left = blocks[0, :channels, channels:], blocks[:, :channels, :channels].copy()
        told = (across @ modes[0] / np.maximum(values[0], LEAST_TOLD)) @ modes[0].T
        left[0] -= told @ across.T
        free, vectors = np.linalg.eigh(left)
        return cls(
            waves=cosines(length),
            variances=values - OWN,
            modes=modes,
            told=told,
            left=left,
            factor=vectors * np.sqrt(np.maximum(free, 0.0))[:, None],
        )

    def course(self, parts: NDArray[np.float64], blocks: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is in the cosines [n, C], each times its block [n, C, C], over the steps: [n, C]."""
        return np.asarray(self.waves @ np.matmul(blocks, parts[:, :, None])[:, :, 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The processes of an anchor.

    Attributes:
        stays: by number of steps, from 1.
        expected: means under each label value, [L, T, 2C].
        effect: what the context changes, [S, 2C].
        usual: the context about which it does, [S].
    """

    stays: tuple[_Stay, ...]
    expected: NDArray[np.float64]
    effect: NDArray[np.float64]
    usual: NDArray[np.float64]

    @classmethod
    def of(cls, anchor: SeriesAnchor) -> Self:
        """Those of an anchor."""
        relations = anchor.relations
        return cls(
            stays=tuple(_Stay.of(anchor, length) for length in range(1, anchor.inertia.shape[1] + 1)),
            expected=expectations(anchor),
            effect=relations.effect.astype(np.float64),
            usual=relations.usual.astype(np.float64),
        )

    def complete(
        self,
        scores: NDArray[np.float32],
        observed: NDArray[np.floating],
        length: int,
        label: int,
        context: NDArray[np.floating],
        noise: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """One patient without gaps.

        Args:
            scores: [T, C], normal scores; what was not measured is not looked at.
            observed: [T, C], 0/1.
            length: steps of the stay.
            label: its label number.
            context: [S], 0/1.
            noise: [DRAWS, T, C], standard normal.

        Returns:
            float32 [T, 2C]: scores, of which what was measured stays as it is, then latent gaps; 0 after the stay. Of
            processes that are none, NaN.
        """
        channels, stay = scores.shape[1], self.stays[length - 1]
        seen, drawn = observed[:length] > 0, noise[:, :length].astype(np.float64)
        expected = self.expected[label, :length] + (context - self.usual) @ self.effect
        gaps = self._gaps(stay, expected[:, channels:], seen, drawn[1:])
        told = (gaps - expected[:, channels:]).mean(axis=0) @ stay.told.T
        free = expected[:, :channels] + told + stay.course(drawn[0], stay.factor)
        completed = np.zeros((len(scores), 2 * channels), np.float32)
        completed[:length, :channels] = np.where(seen, scores[:length], self._corrected(stay, scores, seen, free))
        completed[:length, channels:] = gaps
        return completed

    @staticmethod
    def _gaps(
        stay: _Stay, expected: NDArray[np.float64], seen: NDArray[np.bool_], noise: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Latent gaps [n, C] above 0 where ``seen`` and below where not."""
        sign = np.where(seen, 1.0, -1.0)
        process, own = np.zeros_like(expected), 1.0
        gain = stay.variances / (stay.variances + OWN)
        for mine, below in zip(noise[::2], noise[1::2], strict=True):
            centre = sign * (expected + process)
            # The upper tail of a normal law of such a centre: what lies beyond 0.
            tail = np.maximum(ndtr(mine) * ndtr(centre / own), FARTHEST)
            gaps = sign * np.maximum(centre - own * ndtri(tail), 0.0)
            parts = np.matmul((stay.waves.T @ (gaps - expected))[:, None], stay.modes)[:, 0]
            process = stay.course(gain * parts + np.sqrt(gain * OWN) * below, stay.modes)
            own = OWN**0.5
        return np.asarray(gaps)

    @staticmethod
    def _corrected(
        stay: _Stay, scores: NDArray[np.float32], seen: NDArray[np.bool_], free: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """A free draw of the scores [n, C], moved by what was measured."""
        when, what = np.nonzero(seen)
        if not len(when):
            return free
        # Covariance of every measured value with all others, [measured, n, C].
        across = stay.waves @ (stay.waves[when][:, :, None] * stay.left[:, what].transpose(1, 0, 2))
        system = across[:, when, what]
        system[np.diag_indices(len(when))] += JITTER
        missed = scores[when, what] - free[when, what]
        # Eigenvalues are at least JITTER, whatever was measured and whatever the anchor: ``left`` has none below 0. If
        # it were otherwise, LAPACK would say so without an exception; a patient of NaN does not count.
        _, weights, failed = dposv(system, missed)
        return np.asarray(free + np.tensordot(weights if not failed else np.full_like(missed, np.nan), across, axes=1))
