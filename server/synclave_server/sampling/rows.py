"""How a drawn patient is kept: as a row of 0 and 1, or of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowForm", "synthetic_id"]


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


def synthetic_id(number: int) -> str:
    """Identifier of a synthetic patient by its number, from 0."""
    return f"synthetic-{number:010d}"
