"""Which notes serve for what: near copies stay together."""

from __future__ import annotations

from collections import Counter

import numpy as np

from bench.notes.parts import near_copies, parts_of

WORDS = [f"{first}{second}" for first in "abcdefgh" for second in "ijklmnop"]


def text(seed: int, words: int = 80) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def test_notes_that_share_much_are_one_group_through_others_too() -> None:
    first, second = text(1), text(2)
    both = " ".join([*first.split()[:40], *second.split()[:40]])
    found = near_copies({5: first, 3: second, 9: both, 4: text(3), 7: first.upper(), 8: ""})
    assert found == {5: 3, 3: 3, 9: 3, 7: 3, 4: 4, 8: 8}


def test_a_phrase_of_the_trade_makes_no_copy() -> None:
    phrase = text(0, 12)
    assert set(near_copies({number: f"{text(number)} {phrase}" for number in range(1, 40)}).values()) == set(
        range(1, 40)
    )


def test_copies_are_in_one_part_and_the_parts_have_their_sizes() -> None:
    texts = {number: text(number // 2) for number in range(2_000)}
    parts = parts_of(texts)
    assert all(parts[number] == parts[number + 1] for number in range(0, 2_000, 2))
    sizes = Counter(parts.values())
    assert 1_050 < sizes["public"] < 1_350
    assert 300 < sizes["patients"] < 500
    assert 300 < sizes["reference"] < 500
    assert parts_of(texts) == parts
