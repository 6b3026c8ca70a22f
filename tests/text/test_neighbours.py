"""Public pairs of neighbours: they come back from their file, and help where a neighbour is known."""

from __future__ import annotations

import numpy as np
import torch

from synclave_shared.text.neighbours import SMOOTHING, Neighbours, pack_pairs, public_neighbours, unpack_pairs
from synclave_shared.text.tokenizer import embedded_tokenizer

TEXTS = [[5, 6, 7, 5, 6], [5, 6, 9, 300], [7, 5, 9, 300]]


def test_pairs_come_back_and_those_that_are_too_rare_do_not() -> None:
    assert unpack_pairs(pack_pairs(TEXTS, fewest=2)).tolist() == [[5, 6, 3], [7, 5, 2], [9, 300, 2]]
    assert len(unpack_pairs(pack_pairs(TEXTS, fewest=1))) == 6


def test_what_a_known_neighbour_adds_is_what_counting_says() -> None:
    pairs = unpack_pairs(pack_pairs(TEXTS, fewest=1))
    neighbours = Neighbours.of(pairs, size=400)
    ids = torch.tensor([[1, 5, 3, 300, 3, 3]])
    logits = torch.zeros(1, 3, 400)
    found = neighbours.added(logits, ids, torch.tensor([[2, 4, 5]]))
    assert not logits.any()

    def gain(count: int, share: float) -> float:
        return float(np.log1p(count / (SMOOTHING * share)) * count / (count + 1))

    total = pairs[:, 2].sum()
    # Place 2: behind 5, before 300. What precedes 300 is 9 in both cases; what follows 5 is 6 or 9.
    follows = {second: pairs[pairs[:, 1] == second, 2].sum() / total for second in (6, 9)}
    precedes = pairs[pairs[:, 0] == 9, 2].sum() / total
    np.testing.assert_allclose(found[0, 0, 6], gain(3, follows[6]), rtol=1e-5)
    np.testing.assert_allclose(found[0, 0, 9], gain(1, follows[9]) + gain(2, precedes), rtol=1e-5)
    assert int((found[0, 0] != 0).sum()) == 2
    # Nothing was seen behind 300, and a mask says nothing.
    assert not found[0, 1:].any()


def test_the_shipped_pairs_know_what_stands_in_notes() -> None:
    tokenizer = embedded_tokenizer()
    (patient,) = tokenizer.encode(" patient").ids
    ids = torch.tensor([[*tokenizer.encode("The").ids[:1], tokenizer.mask, tokenizer.mask]])
    gained = public_neighbours(tokenizer.size).added(torch.zeros(1, 1, tokenizer.size), ids, torch.tensor([[1]]))
    assert gained[0, 0, patient] > gained[0, 0].mean() + 1
    assert not gained[0, 0, sorted(tokenizer.never_drawn)[:4]].any()
