"""Random numbers that belong to a patient: Philox4x32-10 (Salmon et al. 2011), on any device of torch.

The numbers of patient i depend on the seed, on i and on the purpose, and on nothing else, so a cohort does not change
with the batch size, with the number of devices, or when it is made longer. Integers and uniform numbers are the same on
every device; normal numbers may differ in their last bits, because logarithms and cosines do.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

__all__ = ["MAX_PATIENTS", "PatientRandomness", "philox4x32"]

_MULTIPLIER_0: Final = 0xD2511F53
_MULTIPLIER_1: Final = 0xCD9E8D57
_WEYL_0: Final = 0x9E3779B9
_WEYL_1: Final = 0xBB67AE85
_LOW: Final = 0xFFFFFFFF
_ROUNDS: Final = 10

MAX_PATIENTS: Final = 2**32
"""Patients are numbered by one 32-bit word of the counter."""


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox.

    Products of two 32-bit words overflow int64 into the sign; the shift then copies the sign, which the mask removes.

    Args:
        counter: four int64 tensors of 32-bit words, broadcastable to one shape. They stay as they are; as long as
            their shapes differ, the first rounds are cheap.
        key: two 32-bit words.

    Returns:
        Four int64 tensors of 32-bit words, of the common shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        high_0, high_1 = (product_0 >> 32).bitwise_and_(_LOW), (product_1 >> 32).bitwise_and_(_LOW)
        c0, c1 = (high_1 ^ c1).bitwise_xor_(k0), product_1.bitwise_and_(_LOW)
        c2, c3 = (high_0 ^ c3).bitwise_xor_(k1), product_0.bitwise_and_(_LOW)
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


class PatientRandomness:
    """Streams of numbers, one per patient and purpose.

    Args:
        seed: 0 <= seed < 2**64.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError("a seed lies between 0 and 2**64 - 1")
        self._key = (seed & _LOW, seed >> 32)

    def words(self, patients: Tensor, width: int, purpose: int | Tensor, first: int = 0) -> Tensor:
        """Uniform 32-bit integers, int64 [patients, width]; the first ones do not depend on the width.

        Args:
            patients: int64 [patients], numbers below 2**32; the result is on their device.
            width: integers per patient.
            purpose: which stream, 0 <= purpose < 2**32; each purpose gives independent numbers. A compiled caller gives
                a tensor, which is not compiled anew for each value.
            first: how many of each patient's integers to leave out, a multiple of 4.
        """
        if first % 4:
            raise ValueError("integers are made four at a time: leave out a multiple of 4")
        blocks = self._blocks(patients, -(-width // 4), purpose, first // 4)
        return torch.stack(blocks, dim=-1).flatten(1)[:, :width]

    def uniform(self, patients: Tensor, width: int, purpose: int | Tensor, first: int = 0) -> Tensor:
        """Uniform numbers inside (0, 1), float64 [patients, width], exactly ``(word + 1/2) / 2**32``.

        Args:
            patients: as in :meth:`words`.
            width: numbers per patient.
            purpose: as in :meth:`words`.
            first: as in :meth:`words`.
        """
        return self.words(patients, width, purpose, first).double().add_(0.5).mul_(2.0**-32)

    def normal(self, patients: Tensor, width: int, purpose: int | Tensor) -> Tensor:
        """Standard normal numbers, float32 [patients, width], by Box-Muller; the tails reach 6.7 standard deviations.

        Args:
            patients: as in :meth:`words`.
            width: numbers per patient.
            purpose: as in :meth:`words`.
        """
        unit = [block.float().add_(0.5).mul_(2.0**-32) for block in self._blocks(patients, -(-width // 4), purpose)]
        values = []
        for first, second in ((unit[0], unit[1]), (unit[2], unit[3])):
            # float32 keeps small numbers exact to 24 bits; near 1, where it does not, the radius is near 0.
            radius = first.log_().mul_(-2.0).sqrt_()
            angle = second.mul_(2.0 * math.pi)
            values += [radius * angle.cos(), radius * angle.sin()]
        return torch.cat(values, dim=1)[:, :width]

    def _blocks(self, patients: Tensor, blocks: int, purpose: int | Tensor, first: int = 0) -> list[Tensor]:
        """The four words of each block of each patient: 4 times int64 [patients, blocks]."""
        device = patients.device
        stream = purpose if isinstance(purpose, Tensor) else torch.tensor(purpose, device=device)
        stream = stream.reshape(1, 1)
        # Plus a zero that is read from memory: torch.compile computes a bare range in 32 bits, which the multipliers of
        # the first round do not fit into.
        numbers = torch.arange(first, first + blocks, device=device)[None, :] + (stream ^ stream)
        counter = (
            numbers,
            patients[:, None],
            stream,
            torch.zeros((1, 1), dtype=torch.int64, device=device),
        )
        return list(philox4x32(counter, self._key))
