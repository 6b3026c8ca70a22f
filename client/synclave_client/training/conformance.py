"""What a mechanism really did in one round, seen on the very numbers that were used.

The promise rests on four things: who is selected by which coins, how far one patient can move a sum, how much noise is
added, and that no noise comes twice. A watch stands beside the training, takes what it needs of each step and keeps
sums of it (:class:`~.conformance_evidence.Evidence`); :mod:`.conformance_checks` judges them. It looks at the
selection, the clipped sum and the noised sum as they are, and is told what they should be by the plan's mechanism.

Nothing of this leaves the site. What is kept is a function of the site's own coins and noise and, in
:attr:`~.conformance_evidence.Evidence.largest`, of patients' data.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_client.training.conformance_evidence import CELLS, SKETCH_BYTES, Evidence, Tally
from synclave_client.training.conformance_scores import cell_counts, normal_scores
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["LOOKED_AT", "STEPS_PER_PROBE", "RoundWatch"]

LOOKED_AT: Final = 2**14
"""Coordinates of a step whose noise is looked at, evenly spread over the vector: 30 steps give half a million."""

STEPS_PER_PROBE: Final = 15
"""In so many steps one patient's contribution is computed once more by itself. That costs up to a third of a step."""

FEW: Final = 8
"""Patients of a sum over all of them who are computed once more."""

SKETCHED: Final = 16
"""Coordinates of which a sketch of a step's noise is made. Rounded to 2^-16 they have 280 bits, so a sketch tells
nothing about them."""

SKETCH_GRID: Final = 2.0**16


class RoundWatch:
    """Stands beside one round of a mechanism.

    Memory: some numbers per patient and per coordinate looked at, whatever the number of steps.

    Args:
        mechanism: what the plan says the round does; everything expected is computed from it.
        patients: N.
        seed: of the coins that make counts continuous, and of which coordinates and patients are looked at; fresh by
            default. It decides nothing about the training.
    """

    def __init__(self, mechanism: PoissonGaussian | GaussianSum, patients: int, *, seed: int | None = None) -> None:
        self._clip_norm = float(mechanism.clip_norm)
        self._noise_std = float(mechanism.noise_multiplier) * self._clip_norm
        self._rate = float(mechanism.selection_rate) if isinstance(mechanism, PoissonGaussian) else 1.0
        self._patients = patients
        self._rng = np.random.default_rng(seed)
        self._offset, self._first_probe = self._rng.random(2).tolist()
        self._noise = self._echoes = Tally()
        self._cells = np.zeros(CELLS, np.int64)
        self._noise_before = np.zeros(0)
        self._sketches: list[bytes] = []
        self._sizes: list[int] = []
        self._overlaps: list[int] = []
        self._counts = np.zeros(patients, np.int64)
        self._before = np.zeros(patients, np.bool_)
        self._last: NDArray[np.int64] = np.zeros(0, np.int64)
        self._contributions = 0
        self._largest = self._longest_sum = 0.0

    @property
    def sketches(self) -> list[bytes]:
        """A digest of each step's noise, in order; equal noise has equal ones."""
        return self._sketches

    def selected(self, chosen: NDArray[np.int64]) -> None:
        """Told the numbers of the patients of each step, once per step."""
        if self._sizes:
            self._overlaps.append(int(self._before[chosen].sum()))
        self._sizes.append(len(chosen))
        self._before[self._last] = False
        self._before[chosen] = True
        self._last = chosen
        np.add.at(self._counts, chosen, 1)

    def _scores(self, counts: NDArray[np.int64], trials: int) -> NDArray[np.float64]:
        return normal_scores(counts, trials, self._rate, self._rng.random(counts.size))

    def probe(self, step: int, patients: int) -> int | None:
        """Which of a step's patients is to be computed once more by itself: its place, or None in most steps.

        Args:
            step: number of the step, from 0.
            patients: in it.
        """
        before, after = (math.floor(self._first_probe + number / STEPS_PER_PROBE) for number in (step, step + 1))
        if not patients or before == after:
            return None
        return int(self._rng.integers(patients))

    def few(self, patients: int) -> list[int]:
        """Some of the patients of a sum over all of them, to be computed once more by themselves."""
        return [int(patient) for patient in self._rng.permutation(patients)[:FEW]]

    def contributed(self, norm: float, share: float = 1.0) -> None:
        """Told the L2 norm of what one patient alone adds to a sum, and what share of the clip norm it may have."""
        self._contributions += 1
        self._largest = max(self._largest, norm / (share * self._clip_norm))

    @contextmanager
    def noising(self, values: NDArray[np.float64], patients: int) -> Iterator[None]:
        """Around the lines that add the noise: looks at a clipped sum before and after.

        Args:
            values: [P], the sum of ``patients`` clipped contributions; noised in place within the context.
            patients: whose contributions it holds.
        """
        length = float(np.linalg.norm(values)) / self._clip_norm
        # Of nobody the sum is 0, or too long by all that it is.
        self._longest_sum = max(self._longest_sum, length / patients if patients else length and 1.0 + length)
        stride = max(1, -(-values.size // LOOKED_AT))
        seen = values[int(self._offset * stride) :: stride]
        before, sketched = seen.copy(), values[:SKETCHED].copy()
        yield
        noise = (seen - before) / self._noise_std
        self._noise += Tally.of(noise)
        self._cells += cell_counts(noise, CELLS)
        if self._noise_before.size:
            length = float(np.linalg.norm(self._noise_before))
            self._echoes += Tally.of(np.array([noise @ self._noise_before / length]) if length else np.zeros(0))
        self._noise_before = noise
        rounded = np.round((values[:SKETCHED] - sketched) / self._noise_std * SKETCH_GRID)
        self._sketches.append(hashlib.blake2b(rounded.astype("<i8").tobytes(), digest_size=SKETCH_BYTES).digest())

    def evidence(self, sketches_before: frozenset[bytes] = frozenset()) -> Evidence:
        """What the round has shown.

        Args:
            sketches_before: of the noise of all earlier rounds of the site.
        """
        steps = len(self._sizes)
        sizes = self._scores(np.array(self._sizes, np.int64), self._patients)
        overlaps = [
            self._scores(np.array([again]), before) for again, before in zip(self._overlaps, self._sizes, strict=False)
        ]
        fresh = set(self._sketches) - sketches_before
        return Evidence(
            noise=self._noise,
            cells=tuple(self._cells.tolist()),
            echoes=self._echoes,
            sizes=Tally.of(sizes),
            runs=Tally.of(sizes[1:] * np.where(sizes[:-1] < 0, -1.0, 1.0)),
            overlaps=Tally.of(np.concatenate([np.zeros(0), *overlaps])),
            inclusions=Tally.of(self._scores(self._counts, steps)) if steps else Tally(),
            favoured=self._favoured(steps),
            selected=sum(self._sizes),
            expected=self._patients * self._rate * steps,
            contributions=self._contributions,
            largest=self._largest,
            longest_sum=self._longest_sum,
            steps=len(self._sketches),
            repeated=len(self._sketches) - len(fresh),
        )

    def _favoured(self, steps: int) -> float:
        """By Chernoff's bound for each patient, and their number: -log(N exp(-T KL(most / T, q))), at least 0."""
        if not steps or not self._patients:
            return 0.0
        share = int(self._counts.max()) / steps
        if share <= self._rate:
            return 0.0
        divergence = share * np.log(share / self._rate)
        if share < 1.0:
            divergence += (1.0 - share) * np.log((1.0 - share) / (1.0 - self._rate))
        return max(0.0, float(steps * divergence - np.log(self._patients)))
