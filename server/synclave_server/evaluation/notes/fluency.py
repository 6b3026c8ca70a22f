"""How well texts read: what a language model that has seen none of them expects, and a formula of readability.

Shapes: ``R`` rows, ``T`` tokens of each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from synclave_shared.models.note_lm import NoteLm
from synclave_shared.text.chunks import laid_out
from synclave_shared.text.note_plan import NOTE_WORDS
from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["Judge", "reading_ease", "word_nats"]

_TILE: Final = 32
"""Rows of a call of the judge."""

_SENTENCE: Final = re.compile(r"[.!?]+(?=\s|$)|\n\s*\n|:\s*\n")
_VOWELS: Final = re.compile(r"[aeiouy]+")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """A masked language model that was trained on notes in neither of the sets that are compared.

    Attributes:
        network: on its device.
        tokenizer: its vocabulary.
        tokens: T.
        every: one in so many words is hidden at a time. A judge so needs ``every`` calls for a row whatever its
            length; with one hidden word at a time it would need as many as there are words.
    """

    network: NoteLm
    tokenizer: NoteTokenizer
    tokens: int = 128
    every: int = 8


def word_nats(judge: Judge, texts: Sequence[str]) -> list[NDArray[np.float64]]:
    """What each word of each text costs the judge in nats, where it sees the rest: [words of the text] for each text.

    Words are those of ``NOTE_WORDS``; all tokens of a word are hidden together, so that its other parts do not give it
    away (Kauf and Ivanova 2023). The exponential of the mean is a pseudo-perplexity per word (Salazar et al. 2020), and
    does not hang on how a vocabulary cuts words. NaN for a word that has no token of its own.
    """
    found = [np.full(sum(1 for _ in NOTE_WORDS.finditer(text)), np.nan) for text in texts]
    rows: list[tuple[int, NDArray[np.int32], NDArray[np.int64]]] = []
    for number, text in enumerate(texts):
        rows += [(number, *row) for row in _rows(judge, text)]
    asked = [(row, rest) for row in range(len(rows)) for rest in range(judge.every)]
    for start in range(0, len(asked), _TILE):
        for (row, rest), costs in zip(
            asked[start : start + _TILE], _costs(judge, rows, asked[start : start + _TILE]), strict=True
        ):
            number, _, word_of = rows[row]
            places = np.flatnonzero((word_of >= 0) & (word_of % judge.every == rest))
            words = word_of[places]
            totals = np.zeros(len(found[number]))
            np.add.at(totals, words, costs)
            # A word that a row's end cuts counts with what stands in both rows.
            mine = np.unique(words)
            found[number][mine] = np.nan_to_num(found[number][mine]) + totals[mine]
    return found


def reading_ease(text: str) -> float:
    """Flesch's reading ease of an English text (Flesch 1948): about 100 is easy, below 30 hard; NaN without a word.

    Syllables are counted as groups of vowels, but for a silent e at the end. What a line that ends in a colon, or an
    empty line, begins is a sentence of its own: notes have headings and lists.
    """
    words = [word for found in NOTE_WORDS.finditer(text) if (word := found.group().lower()).isalpha()]
    if not words:
        return math.nan
    sentences = sum(bool(NOTE_WORDS.search(part)) for part in _SENTENCE.split(text))
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(_syllables, words)) / len(words)


def _syllables(word: str) -> int:
    silent = len(word) > 2 and word.endswith("e") and word[-2] not in "aeiouyl"
    return max(1, len(_VOWELS.findall(word)) - silent)


def _rows(judge: Judge, text: str) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Rows of T tokens, and of each place the number of its word in the text, -1 for none."""
    encoded = judge.tokenizer.encode(text)
    spans = [match.span() for match in NOTE_WORDS.finditer(text)]
    numbers = np.full(len(text) + 1, -1, dtype=np.int64)
    for number, (start, end) in enumerate(spans):
        numbers[start:end] = number
    # A token may begin with the space before its word: its last letter says whose it is.
    word_of = np.array([numbers[end - 1] if end > start else -1 for start, end in encoded.offsets], dtype=np.int64)
    room = judge.tokens - 3
    found = []
    for start in range(0, len(encoded.ids), room):
        row, begin = laid_out(judge.tokenizer, (), encoded.ids[start : start + room], judge.tokens)
        words = np.full(judge.tokens, -1, dtype=np.int64)
        own = word_of[start : start + room]
        words[begin : begin + len(own)] = own
        found.append((row, words))
    return found


@torch.inference_mode()
def _costs(
    judge: Judge,
    rows: Sequence[tuple[int, NDArray[np.int32], NDArray[np.int64]]],
    asked: Sequence[tuple[int, int]],
) -> list[NDArray[np.float64]]:
    """Nats of the hidden tokens of each (row, remainder), in order."""
    places = [np.flatnonzero((rows[row][2] >= 0) & (rows[row][2] % judge.every == rest)) for row, rest in asked]
    width = max(map(len, places))
    if width == 0:
        return [np.zeros(0) for _ in places]
    truth = torch.from_numpy(np.stack([rows[row][1] for row, _ in asked]).astype(np.int64))
    seen = truth != judge.tokenizer.pad
    positions = torch.zeros(len(asked), width, dtype=torch.long)
    hidden = truth.clone()
    for number, own in enumerate(places):
        positions[number, : len(own)] = torch.from_numpy(own)
        hidden[number, own] = judge.tokenizer.mask
    device = next(judge.network.parameters()).device
    logits = judge.network(hidden.to(device), seen.to(device), positions.to(device)).float().log_softmax(-1).cpu()
    nats = -logits.gather(-1, truth.gather(1, positions)[..., None])[..., 0].double().numpy()
    return [nats[number, : len(own)] for number, own in enumerate(places)]
