"""Random numbers that belong to a patient: Philox4x32-10 (Salmon et al. 2011), vectorised over patients.

The numbers of patient i depend on the seed, on i and on the purpose, and on nothing else, so a cohort does not change
with the batch size, with the number of devices, or when it is made longer.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PatientRandomness", "philox4x32"]

_MULTIPLIER_0: Final = np.uint64(0xD2511F53)
_MULTIPLIER_1: Final = np.uint64(0xCD9E8D57)
_WEYL_0: Final = 0x9E3779B9
_WEYL_1: Final = 0xBB67AE85
_LOW: Final = np.uint64(0xFFFFFFFF)
_SHIFT: Final = np.uint64(32)
_ROUNDS: Final = 10

MAX_PATIENTS: Final = 2**32
"""Patients are numbered by one 32-bit word of the counter."""


def philox4x32(counter: tuple[NDArray[np.uint64], ...], key: tuple[int, int]) -> tuple[NDArray[np.uint64], ...]:
    """Ten rounds of Philox.

    Args:
        counter: four arrays of 32-bit words (held in uint64), broadcastable to one shape.
        key: two 32-bit words.

    Returns:
        Four arrays of 32-bit words.
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW,
            (product_0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL_0) & 0xFFFFFFFF, (k1 + _WEYL_1) & 0xFFFFFFFF
    return c0, c1, c2, c3


class PatientRandomness:
    """Streams of numbers, one per patient and purpose.

    Args:
        seed: 0 <= seed < 2**64.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError("a seed lies between 0 and 2**64 - 1")
        self._key = (seed & 0xFFFFFFFF, seed >> 32)

    def uniform(self, patients: NDArray[np.int64], width: int, purpose: int) -> NDArray[np.float64]:
        """Uniform numbers inside (0, 1), [patients, width].

        Args:
            patients: patient numbers, below 2**32.
            width: numbers per patient.
            purpose: which stream, 0 <= purpose < 2**32; each purpose gives independent numbers.
        """
        blocks = np.arange(-(-width // 4), dtype=np.uint64)[None, :]
        rows = patients.astype(np.uint64)[:, None]
        words = philox4x32((blocks, rows, np.full((1, 1), purpose, np.uint64), np.zeros((1, 1), np.uint64)), self._key)
        stacked = np.stack(words, axis=-1).reshape(len(patients), -1)[:, :width]
        return (stacked.astype(np.float64) + 0.5) * 2.0**-32

    def normal(self, patients: NDArray[np.int64], width: int, purpose: int) -> NDArray[np.float32]:
        """Standard normal numbers [patients, width] by Box-Muller; the tails reach 6.7 standard deviations."""
        half = -(-width // 2)
        uniform = self.uniform(patients, 2 * half, purpose)
        radius = np.sqrt(-2.0 * np.log(uniform[:, :half]))
        angle = (2.0 * np.pi) * uniform[:, half:]
        values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return values[:, :width].astype(np.float32)
