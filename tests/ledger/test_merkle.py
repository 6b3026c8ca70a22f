"""The tree against the RFC's own recursion, and proofs that stop proving when a single bit changes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.ledger.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.integers(1, 70)


def naive_root(data: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word for word."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    k = 1
    while k * 2 < len(data):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(data[:k]) + naive_root(data[k:])).digest()


def naive_path(index: int, data: list[bytes]) -> list[bytes]:
    """RFC 9162, 2.1.3.1."""
    if len(data) == 1:
        return []
    k = 1
    while k * 2 < len(data):
        k *= 2
    if index < k:
        return [*naive_path(index, data[:k]), naive_root(data[k:])]
    return [*naive_path(index - k, data[k:]), naive_root(data[:k])]


def naive_consistency(old: int, data: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 9162, 2.1.4.1."""
    if old == len(data):
        return [] if whole else [naive_root(data)]
    k = 1
    while k * 2 < len(data):
        k *= 2
    if old <= k:
        return [*naive_consistency(old, data[:k], whole), naive_root(data[k:])]
    return [*naive_consistency(old - k, data[k:], False), naive_root(data[:k])]


def leaves(count: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(count)]


def tree_of(data: list[bytes]) -> MerkleTree:
    return MerkleTree(leaf_hash(entry) for entry in data)


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_roots_of_all_prefixes_are_those_of_the_naive_recursion(data: list[bytes]) -> None:
    tree = tree_of(data)
    assert tree.root() == naive_root(data)
    for size in range(len(data) + 1):
        assert tree.root(size) == naive_root(data[:size])


@given(SIZES, st.data())
def test_proofs_are_those_of_the_naive_recursion_and_verify(size: int, draw: st.DataObject) -> None:
    data = leaves(size)
    tree = tree_of([*data, b"later"])
    index = draw.draw(st.integers(0, size - 1))
    path = tree.inclusion_proof(index, size)
    assert list(path) == naive_path(index, data)
    assert verify_inclusion(leaf_hash(data[index]), index, size, path, naive_root(data))
    old = draw.draw(st.integers(1, size))
    proof = tree.consistency_proof(old, size)
    assert list(proof) == naive_consistency(old, data)
    assert verify_consistency(old, size, proof, naive_root(data[:old]), naive_root(data))


def test_exhaustively_small_trees_prove_exactly_what_is_true() -> None:
    for size in range(1, 10):
        data = leaves(size)
        tree = tree_of(data)
        for index in range(size):
            path = tree.inclusion_proof(index)
            for other in range(size):
                assert verify_inclusion(leaf_hash(data[other]), index, size, path, tree.root()) == (other == index)
                assert verify_inclusion(leaf_hash(data[index]), other, size, path, tree.root()) == (other == index)
        for old in range(1, size + 1):
            proof = tree.consistency_proof(old)
            for claimed in range(1, size + 1):
                proven = verify_consistency(claimed, size, proof, tree.root(old), tree.root())
                assert proven == (claimed == old)


def flips(data: bytes) -> list[bytes]:
    changed = []
    for position in range(8 * len(data)):
        number = bytearray(data)
        number[position // 8] ^= 1 << (position % 8)
        changed.append(bytes(number))
    return changed


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 2), (4, 5), (2, 7), (6, 7), (12, 13)])
def test_every_flipped_bit_of_an_inclusion_proof_is_noticed(index: int, size: int) -> None:
    data = leaves(size)
    tree = tree_of(data)
    leaf, root, path = leaf_hash(data[index]), tree.root(), tree.inclusion_proof(index)
    assert verify_inclusion(leaf, index, size, path, root)
    for position, node in enumerate(path):
        for changed in flips(node):
            assert not verify_inclusion(leaf, index, size, [*path[:position], changed, *path[position + 1 :]], root)
    for changed in flips(root):
        assert not verify_inclusion(leaf, index, size, path, changed)
    for changed in flips(leaf):
        assert not verify_inclusion(changed, index, size, path, root)
    assert not verify_inclusion(leaf, index, size, [*path, path[-1] if path else leaf], root)
    if path:
        assert not verify_inclusion(leaf, index, size, path[:-1], root)
        assert not verify_inclusion(leaf, index, size, path[1:], root)


@pytest.mark.parametrize(("old", "size"), [(1, 2), (3, 5), (4, 7), (6, 8), (8, 13), (12, 13)])
def test_every_flipped_bit_of_a_consistency_proof_is_noticed(old: int, size: int) -> None:
    tree = tree_of(leaves(size))
    old_root, root, proof = tree.root(old), tree.root(), tree.consistency_proof(old)
    assert verify_consistency(old, size, proof, old_root, root)
    for position, node in enumerate(proof):
        for changed in flips(node):
            altered = [*proof[:position], changed, *proof[position + 1 :]]
            assert not verify_consistency(old, size, altered, old_root, root)
    for changed in flips(old_root):
        assert not verify_consistency(old, size, proof, changed, root)
    for changed in flips(root):
        assert not verify_consistency(old, size, proof, old_root, changed)
    assert not verify_consistency(old, size, proof[:-1], old_root, root)
    assert not verify_consistency(old, size, [*proof, root], old_root, root)
    assert not verify_consistency(size, old, proof, root, old_root)


def test_the_empty_tree_is_a_prefix_of_every_tree_and_proves_nothing_else() -> None:
    tree = tree_of(leaves(3))
    assert tree.consistency_proof(0) == ()
    assert verify_consistency(0, 3, (), EMPTY_ROOT, tree.root())
    assert not verify_consistency(0, 3, (), tree.root(), tree.root())
    assert not verify_consistency(0, 3, [tree.root()], EMPTY_ROOT, tree.root())
    assert verify_consistency(3, 3, (), tree.root(), tree.root())
    assert not verify_consistency(3, 3, (), EMPTY_ROOT, tree.root())
    assert not verify_consistency(2, 3, (), tree.root(2), tree.root())
    assert not verify_inclusion(tree.root(), 0, 0, (), tree.root())


@pytest.mark.parametrize(
    "call", [lambda t: t.root(4), lambda t: t.inclusion_proof(3), lambda t: t.consistency_proof(4)]
)
def test_what_the_tree_does_not_have_is_an_index_error(call: object) -> None:
    with pytest.raises(IndexError):
        call(tree_of(leaves(3)))  # type: ignore[operator]


@pytest.mark.parametrize("kept", [0, 1, 2, 5, 8, 11, 13])
def test_a_tree_that_forgets_its_last_leaves_is_the_tree_it_was(kept: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(13)]
    tree = MerkleTree(leaves)
    tree.truncate(kept)
    assert (tree.size, tree.root()) == (kept, MerkleTree(leaves[:kept]).root())
    for leaf in leaves[kept:]:
        tree.append(leaf)
    assert tree.root() == MerkleTree(leaves).root()
    with pytest.raises(IndexError):
        tree.truncate(14)


def test_a_leaf_is_a_hash() -> None:
    tree = MerkleTree()
    with pytest.raises(ValueError, match="5 bytes"):
        tree.append(b"short")
    assert tree.size == 0
