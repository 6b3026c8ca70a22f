"""The right edge of a Merkle tree: all that is needed to append to it and to know its root, in O(log n) hashes.

A tree of ``n`` leaves is a row of complete subtrees, one for each set bit of ``n``, the largest first; their roots are
its *peaks*. Whoever keeps them can follow a ledger of a million entries without reading them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from synclave_shared.ledger.merkle import EMPTY_ROOT, HASH_BYTES, node_hash

__all__ = ["EMPTY", "Frontier"]


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree's size and peaks.

    Attributes:
        size: number of leaves.
        peaks: roots of its complete subtrees, the largest (leftmost) first.
    """

    size: int
    peaks: tuple[bytes, ...]

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Self:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            ValueError: if a tree of this size has another number of peaks.
        """
        if size < 0 or len(data) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"{len(data)} bytes for the peaks of {size} leaves")
        return cls(size, tuple(data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)))

    def to_bytes(self) -> bytes:
        """The peaks, one after another."""
        return b"".join(self.peaks)

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes."""
        size, peaks = self.size, list(self.peaks)
        for leaf in leaves:
            peak, carry = leaf, size
            # As in binary addition: each one at the end of the size joins a peak with its equal.
            while carry & 1:
                peak, carry = node_hash(peaks.pop(), peak), carry >> 1
            peaks.append(peak)
            size += 1
        return Frontier(size, tuple(peaks))

    def root(self) -> bytes:
        """The tree's root (RFC 9162, 2.1.1)."""
        if not self.peaks:
            return EMPTY_ROOT
        *others, root = self.peaks
        for peak in reversed(others):
            root = node_hash(peak, root)
        return root


EMPTY: Final = Frontier(0, ())
"""The tree without leaves."""
