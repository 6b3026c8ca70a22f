"""Which patient has which label: exact counts in a shuffled order, computed for any patient alone.

Sorting all patients by a random number would need all of them at once. A keyed permutation of the patient numbers
(a Feistel network over the smallest sufficient power of two, walked until it lands inside; Black and Rogaway 2002)
gives each patient its place in that order by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from synclave_server.sampling.philox import PatientRandomness

__all__ = ["LABEL_ORDER", "KeyedPermutation", "LabelAssignment"]

LABEL_ORDER: Final = 2
"""Purpose of the random numbers that shuffle labels."""

ROUNDS: Final = 8
"""Even, so that the halves end where they began. Four rounds of random functions suffice in theory for large halves
(Luby and Rackoff 1988); ours may have only a few bits."""


class KeyedPermutation:
    """A permutation of ``0 .. size - 1`` that the seed fixes.

    Args:
        size: how many numbers, 1 to 2**32.
        seed: 0 <= seed < 2**64.
    """

    def __init__(self, size: int, seed: int) -> None:
        bits = max(2, (size - 1).bit_length())
        self._size = size
        self._halves = (bits // 2, bits - bits // 2)
        # A half has at most 16 bits: every round's random function is a table.
        words = PatientRandomness(seed).words(torch.arange(ROUNDS), 1 << self._halves[1], LABEL_ORDER)
        self._rounds = words.numpy()

    def __call__(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of ``numbers`` [n], each below ``size``."""
        places = self._scramble(numbers)
        outside = np.flatnonzero(places >= self._size)
        while outside.size:
            places[outside] = self._scramble(places[outside])
            outside = outside[places[outside] >= self._size]
        return places

    def _scramble(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        left_bits, right_bits = self._halves
        left, right = numbers >> right_bits, numbers & ((1 << right_bits) - 1)
        for function in self._rounds:
            left, right = right, left ^ (function[right] & ((1 << left_bits) - 1))
            left_bits, right_bits = right_bits, left_bits
        return (left << right_bits) | right


class LabelAssignment:
    """The label of each patient of a cohort.

    Args:
        counts: patients of each label value, in the schema's order.
        seed: of the request.
    """

    def __init__(self, counts: Sequence[int], seed: int) -> None:
        self._ends = np.cumsum(counts)
        self._place = KeyedPermutation(int(self._ends[-1]), seed)

    def of(self, patients: NDArray[np.int64]) -> NDArray[np.int64]:
        """Label numbers int64 [n] of the patients with these numbers [n]."""
        return np.searchsorted(self._ends, self._place(patients), side="right").astype(np.int64)
