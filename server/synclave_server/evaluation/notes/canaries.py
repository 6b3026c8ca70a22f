"""Invented sentences put into training notes, and how much better a model knows them than ones it never saw.

A canary is a sequence of common words in an order of chance: no text teaches it and no detector masks it, so whoever
finds it likely learnt it from the one patient who had it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["draw_canaries", "exposure", "exposure_of_strangers", "with_canary"]


def draw_canaries(words: Sequence[str], count: int, *, length: int = 6, seed: int = 0) -> tuple[str, ...]:
    """Sentences of ``length`` different words each, all of one law: some are put in, the rest are their controls.

    Args:
        words: common ones, one token each.
        count: how many, no two alike.
        length: words of a canary.
        seed: of the draw.

    Raises:
        ValueError: if the words are too few for it.
    """
    if len(words) < 2 * length:
        raise ValueError(f"canaries of {length} words need at least {2 * length} to draw from, not {len(words)}")
    rng = np.random.default_rng([seed, 12])
    found: dict[str, None] = {}
    while len(found) < count:
        chosen = rng.choice(len(words), size=length, replace=False)
        found[" ".join(words[number] for number in chosen).capitalize() + "."] = None
    return tuple(found)


def with_canary(text: str, canary: str, times: int) -> str:
    """The note with the canary as ``times`` lines of its own, evenly through its lines; the first of all begins it."""
    lines = text.split("\n")
    places = [len(lines) * number // times for number in range(times)]
    for place in reversed(places):
        lines.insert(place, canary)
    return "\n".join(lines)


def exposure(inserted: NDArray[np.float64], controls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits by which each canary stands out: log2 of (controls + 1) over its rank among them (Carlini et al. 2019).

    The best of R + 1 has log2(R + 1) bits. Of equal losses half count as better.

    Args:
        inserted: loss of each canary that was put in [N].
        controls: of canaries of the same law that never were [R].
    """
    better = (controls[None] < inserted[:, None]).sum(axis=1) + 0.5 * (controls[None] == inserted[:, None]).sum(axis=1)
    bits: NDArray[np.float64] = np.log2(len(controls) + 1) - np.log2(better + 1)
    return bits


def exposure_of_strangers(controls: int) -> float:
    """Mean exposure in bits of a canary that was never put in, among so many controls: near 1 / ln 2 = 1.44."""
    ranks = np.arange(1, controls + 2)
    return float(np.log2(controls + 1) - np.log2(ranks).mean())
