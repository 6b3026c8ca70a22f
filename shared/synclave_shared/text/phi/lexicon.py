"""The word lists that ship with the package, read once."""

from __future__ import annotations

import lzma
from functools import cache
from importlib.resources import files

__all__ = ["word_list", "word_lists"]


@cache
def word_list(name: str) -> frozenset[str]:
    """One list, folded words. Each line is the number of letters shared with the line before (a = 0) and the rest."""
    packed = (files("synclave_shared.text") / "data" / f"{name}.txt.xz").read_bytes()
    words, word = [], ""
    for line in lzma.decompress(packed).decode().split("\n"):
        word = word[: ord(line[0]) - 97] + line[1:]
        words.append(word)
    return frozenset(words)


@cache
def word_lists(names: tuple[str, ...]) -> frozenset[str]:
    """Several lists as one."""
    return frozenset().union(*(word_list(name) for name in names))
