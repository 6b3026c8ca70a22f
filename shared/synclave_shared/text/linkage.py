"""Which source does a rewritten note come from? The simplest attack: TF-IDF of words, nearest source by cosine."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from synclave_shared.text.note_plan import NOTE_WORDS

__all__ = ["linkage_rate"]


def linkage_rate(sources: Sequence[str], outputs: Sequence[str | None]) -> float | None:
    """Share of the outputs whose nearest source is their own, among all sources; None if there is no output.

    Args:
        sources: texts.
        outputs: of each source its rewriting, None where there is none.
    """
    bags = [Counter(found.group().casefold() for found in NOTE_WORDS.finditer(text)) for text in sources]
    occurs = Counter(word for bag in bags for word in bag)
    rare = {word: math.log((1 + len(bags)) / (1 + count)) + 1 for word, count in occurs.items()}
    postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for place, bag in enumerate(bags):
        weights = {word: (1 + math.log(count)) * rare[word] for word, count in bag.items()}
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        for word, weight in weights.items():
            postings[word].append((place, weight / length))
    hits, total = 0, 0
    for place, text in enumerate(outputs):
        if text is None:
            continue
        scores: dict[int, float] = defaultdict(float)
        for word, count in Counter(found.group().casefold() for found in NOTE_WORDS.finditer(text)).items():
            for source, weight in postings.get(word, ()):
                scores[source] += (1 + math.log(count)) * rare[word] * weight
        total += 1
        # A tie is no find.
        own = scores.get(place, 0.0)
        hits += own > max((score for source, score in scores.items() if source != place), default=0.0)
    return hits / total if total else None
