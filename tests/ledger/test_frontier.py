"""The right edge of the tree, against the whole tree."""

from __future__ import annotations

import pytest

from synclave_shared.ledger.frontier import EMPTY, Frontier
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash

LEAVES = [leaf_hash(str(number).encode()) for number in range(130)]


def test_it_has_the_root_of_the_whole_tree_at_every_size() -> None:
    tree, frontier = MerkleTree(), EMPTY
    assert frontier.root() == tree.root()
    for leaf in LEAVES:
        tree.append(leaf)
        frontier = frontier.extend([leaf])
        assert (frontier.size, frontier.root()) == (tree.size, tree.root())
        assert len(frontier.peaks) == frontier.size.bit_count()
        assert Frontier.from_bytes(frontier.size, frontier.to_bytes()) == frontier


def test_it_does_not_matter_in_how_many_steps_it_grows() -> None:
    whole = EMPTY.extend(LEAVES)
    for cut in range(len(LEAVES) + 1):
        assert EMPTY.extend(LEAVES[:cut]).extend(LEAVES[cut:]) == whole


def test_peaks_of_another_size_are_refused() -> None:
    for size, data in ((3, bytes(32)), (0, bytes(32)), (1, bytes(31)), (-1, bytes(32))):
        with pytest.raises(ValueError, match="peaks"):
            Frontier.from_bytes(size, data)
