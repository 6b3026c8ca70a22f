"""How a drawn patient is kept: as a row of 0 and 1, or of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["DrawnPatients", "RowForm", "synthetic_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowForm:
    """Rows uint8 [n, W], and how they are stored.

    Attributes:
        width: W.
        binary: whether all numbers are 0 or 1; they are then stored eight to a byte.
    """

    width: int
    binary: bool

    @property
    def stored_bytes(self) -> int:
        """Bytes of a stored row."""
        return -(-self.width // 8) if self.binary else self.width

    def pack(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Rows as stored, [n, stored_bytes]."""
        return np.packbits(rows, axis=1) if self.binary else rows

    def unpack(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The inverse of :meth:`pack`."""
        return np.unpackbits(stored, axis=1, count=self.width) if self.binary else stored


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPatients:
    """Some patients on their way into files.

    Attributes:
        rows: uint8 [n, W].
        labels: label numbers, [n].
        numbers: patient numbers, [n].
        within: [n, fields of numbers], where in its bin each number lies; None: in the middle.
    """

    rows: NDArray[np.uint8]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]
    within: NDArray[np.float64] | None = None

    @classmethod
    def nobody(cls, width: int) -> Self:
        """No patients, with rows of ``width``."""
        none = np.zeros(0, np.int64)
        return cls(rows=np.zeros((0, width), np.uint8), labels=none, numbers=none)

    @property
    def ids(self) -> list[str]:
        """Their identifiers, [n]."""
        return [synthetic_id(number) for number in self.numbers.tolist()]


def synthetic_id(number: int) -> str:
    """Identifier of a synthetic patient by its number, from 0."""
    return f"synthetic-{number:010d}"
