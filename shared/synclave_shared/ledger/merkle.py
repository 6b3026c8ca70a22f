"""The Merkle tree of RFC 9162 (section 2.1): hashes, proofs and their verification, as pure functions of bytes.

The tree over the leaves ``d[0:n]`` splits at the largest power of two below ``n``; a leaf hashes as
``SHA-256(0x00 || data)``, a node as ``SHA-256(0x01 || left || right)``, so no leaf can pass for a node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MerkleTree",
    "leaf_hash",
    "node_hash",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162, 2.1.1)."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf's data."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(count: int) -> int:
    """The largest power of two smaller than ``count`` (``count`` > 1)."""
    return 1 << ((count - 1).bit_length() - 1)


class MerkleTree:
    """An append-only tree that keeps the hash of every complete subtree, so roots and proofs cost O(log n).

    A leaf takes 64 bytes of memory: the hashes of each level lie one after another in one array of bytes.

    Args:
        leaves: leaf *hashes* to begin with.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        # Hash i of _levels[k] is that over the leaves [i * 2**k, (i + 1) * 2**k), for complete subtrees only.
        self._levels: list[bytearray] = [bytearray()]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> int:
        """Add one leaf hash of 32 bytes; returns its index.

        Raises:
            ValueError: if it is no hash.
        """
        if len(leaf) != HASH_BYTES:
            raise ValueError(f"a leaf hash of {len(leaf)} bytes")
        level = self._levels[0]
        level += leaf
        size = len(level) // HASH_BYTES
        above, rest = 1, size
        while rest % 2 == 0:
            if above == len(self._levels):
                self._levels.append(bytearray())
            node = hashlib.sha256(b"\x01" + level[-2 * HASH_BYTES :]).digest()
            level = self._levels[above]
            level += node
            above, rest = above + 1, rest // 2
        return size - 1

    def truncate(self, size: int) -> None:
        """Forget all leaves but the first ``size``.

        Raises:
            IndexError: if the tree has fewer.
        """
        self._require(size)
        for number, level in enumerate(self._levels):
            del level[(size >> number) * HASH_BYTES :]

    def complete_subtrees(self, level: int, start: int, stop: int) -> bytes:
        """Hashes of the complete subtrees of ``2**level`` leaves numbered ``start`` to ``stop - 1``, concatenated."""
        return bytes(self._levels[level][start * HASH_BYTES : stop * HASH_BYTES]) if level < len(self._levels) else b""

    def leaf(self, index: int) -> bytes:
        """The leaf hash at ``index``.

        Raises:
            IndexError: if there is no such leaf.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"leaf {index} of a tree with {self.size} leaves")
        return self.complete_subtrees(0, index, index + 1)

    def _range(self, start: int, stop: int) -> bytes:
        count = stop - start
        if count & (count - 1) == 0 and start % count == 0:
            place = start // count
            return self.complete_subtrees(count.bit_length() - 1, place, place + 1)
        middle = start + _split(count)
        return node_hash(self._range(start, middle), self._range(middle, stop))

    def _require(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise IndexError(f"size {size} of a tree with {self.size} leaves")
        return size

    def root(self, size: int | None = None) -> bytes:
        """Root over the first ``size`` leaves (all by default).

        Raises:
            IndexError: if the tree has fewer leaves.
        """
        size = self._require(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Path from leaf ``index`` to the root over the first ``size`` leaves (RFC 9162, 2.1.3.1), leaf side first.

        Raises:
            IndexError: if there is no such leaf.
        """
        size = self._require(size)
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} of a tree with {size} leaves")
        start, stop, path = 0, size, []
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                path.append(self._range(middle, stop))
                stop = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency_proof(self, old_size: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the first ``old_size`` leaves are a prefix of the first ``size`` (RFC 9162, 2.1.4.1).

        Empty if the sizes are equal or ``old_size`` is 0: every tree extends the empty one.

        Raises:
            IndexError: unless ``0 <= old_size <= size``.
        """
        size = self._require(size)
        if not 0 <= old_size <= size:
            raise IndexError(f"from size {old_size} to {size}")
        if old_size in (0, size):
            return ()
        start, stop, whole, path = 0, size, True, []
        # Walk down to the subtree that ends at old_size; `whole` tells whether the verifier knows its hash already.
        while stop != old_size:
            middle = start + _split(stop - start)
            if old_size <= middle:
                path.append(self._range(middle, stop))
                stop = middle
            else:
                path.append(self._range(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._range(start, stop))
        return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows the leaf hash at ``index`` of the tree with this size and root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and computed == root


def verify_consistency(old_size: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes) -> bool:
    """Whether ``proof`` shows that the old tree is a prefix of the new one (RFC 9162, 2.1.4.2)."""
    if not 0 <= old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    # The RFC prepends the old root when the old tree is itself a complete subtree of the new one.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        return False
    position, last = old_size - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_computed = computed = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_computed = node_hash(sibling, old_computed)
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old_computed == old_root and computed == root
