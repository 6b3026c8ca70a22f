"""Which gold identifiers of a note stand in its rewriting, and how they came there."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from synclave_shared.text.identifying import spaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.notes.corpora import Note
    from synclave_shared.text.spans import Span

__all__ = ["LEAKS", "survivals"]

LEAKS: Final = ("missed", "elsewhere", "predicted", "name part")
"""The detector did not cover it; it covered it, and the same words stand in the source where gold has no mark; the model
or a surrogate wrote them; of a name one word of at least four letters, which is no word of the note elsewhere."""

_SHORTEST: Final = 4
_NAMES: Final = frozenset({"PATIENT", "DOCTOR", "RELATIVE"})


def survivals(note: Note, found: Sequence[Span], output: str) -> tuple[int, Counter[str], list[tuple[str, str, str]]]:
    """Gold strings of a note, how many of each kind survive, and which: (kind, label, string).

    A string counts once for each time gold marks it, and survives if it stands anywhere in the output as whole words,
    in any case but for states: "in" is none.
    """
    covered = [False] * (len(note.text) + 1)
    for span in found:
        covered[span.start : span.end] = [True] * (span.end - span.start)
    marked = [False] * (len(note.text) + 1)
    for gold in note.gold:
        marked[gold.start : gold.end] = [True] * (gold.end - gold.start)
    # "90+" stands for every age over 89, and tells none.
    plain = spaced(output).replace("90+", " ")
    counts: Counter[str] = Counter()
    which = []
    for gold in note.gold:
        surface = note.text[gold.start : gold.end]
        whole = all(covered[at] for at in range(gold.start, gold.end) if note.text[at].isalnum())
        exact = gold.label == "STATE"
        string, there, here = (surface, output, note.text) if exact else (spaced(surface), plain, note.text.casefold())
        unmarked = [at for at in _places(string, here) if not any(marked[at[0] : at[1]])]
        kind = ""
        if next(_places(string, there), None):
            kind = "missed" if not whole else "elsewhere" if unmarked else "predicted"
        elif gold.label in _NAMES:
            parts = [part for part in re.findall(r"[^\W\d_]+", surface) if len(part) >= _SHORTEST]
            for part in parts:
                free = any(not any(marked[a:b]) for a, b in _places(spaced(part), note.text.casefold()))
                if not free and next(_places(spaced(part), plain), None):
                    kind = "name part"
        if kind:
            counts[kind] += 1
            which.append((kind, gold.label, surface))
    return len(note.gold), counts, which


def _places(words: str, text: str) -> Iterator[tuple[int, int]]:
    pattern = r"\s+".join(map(re.escape, words.split()))
    for found in re.finditer(rf"(?<!\w){pattern}(?!\w)", text):
        yield found.span()
