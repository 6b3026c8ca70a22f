"""What a tagger sees of each token: its letters, hashed; its shape; the lists it stands in; where it stands.

Everything is a pure function of the text and the shipped lists, the same on every machine: CRC-32, no vocabulary that
was read from data.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from synclave_shared.text.view import folded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.phi.words import Lexicon

__all__ = ["AFFIXES", "FLAGS", "SHAPES", "WORDS", "TokenFeatures", "token_features"]

WORDS: Final = 8192
"""Buckets of whole words; bucket 0 is no word."""

AFFIXES: Final = 2048
"""Buckets of beginnings and ends of three letters."""

SHAPES: Final = 512
"""Buckets of shapes: ``Xx``, ``dd/dd``, ``XX-dddd``."""

FLAGS: Final = 20
"""Yes-or-no features."""

_TOKEN: Final = re.compile(r"[^\W\d_]+|\d+|\n|[^\w\s]|_")

_LONGEST: Final = 40
"""Letters of a token that are looked at."""


@dataclass(frozen=True, slots=True)
class TokenFeatures:
    """Of ``N`` tokens.

    Attributes:
        spans: int64 [N, 2], start and end in the text.
        numbers: int64 [N, 4], buckets of word, beginning, end and shape.
        flags: float32 [N, FLAGS].
    """

    spans: NDArray[np.int64]
    numbers: NDArray[np.int64]
    flags: NDArray[np.float32]


def _bucket(text: str, size: int) -> int:
    return 1 + zlib.crc32(text.encode()) % (size - 1)


def _shape(token: str) -> str:
    shape = re.sub(r"[^\W\d_a-z]", "X", re.sub(r"[a-zß-öø-ÿ]", "x", re.sub(r"\d", "d", token)))
    # Runs of more than four look alike.
    return re.sub(r"(.)\1{4,}", r"\1\1\1\1", shape)


def token_features(text: str, locale: Locale, lexicon: Lexicon) -> TokenFeatures:
    """Tokens of ``text`` (letters, digits, single marks, line breaks) and what is known of each; linear."""
    spans, numbers, flags = [], [], []
    last, line_start = 0, True
    known: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {}
    for found in _TOKEN.finditer(text):
        start, end = found.span()
        token = text[start : min(end, start + _LONGEST)]
        entry = known.get(token)
        if entry is None:
            entry = known[token] = _describe(token, locale, lexicon)
        numbers.append(entry[0])
        row = [*entry[1], float(line_start), float(start == last), float(start - last > 1)]
        flags.append(row)
        spans.append((start, end))
        line_start, last = text[start] == "\n", end
    return TokenFeatures(
        np.array(spans, np.int64).reshape(-1, 2),
        np.array(numbers, np.int64).reshape(-1, 4),
        np.array(flags, np.float32).reshape(-1, FLAGS),
    )


def _describe(token: str, locale: Locale, lexicon: Lexicon) -> tuple[tuple[int, ...], tuple[float, ...]]:
    key = folded(token)
    word = re.sub(r"\d", "0", key)
    letters = token[:1].isalpha()
    return (
        (
            _bucket(word, WORDS),
            _bucket("<" + word[:3], AFFIXES),
            _bucket(word[-3:] + ">", AFFIXES),
            _bucket(_shape(token), SHAPES),
        ),
        (
            float(token[:1].isupper()),
            float(len(token) > 1 and token.isupper()),
            float(letters and token.islower()),
            float(len(token) == 1 and letters),
            float(token.isdigit()),
            float(token.isdigit() and 1900 <= int(token[:4]) <= 2099 and len(token) == 4),
            float(not letters and not token.isdigit()),
            float(key in lexicon.given),
            float(key in lexicon.family),
            float(key in lexicon.places),
            float(key in lexicon.ordinary),
            float(key in lexicon.eponyms),
            float(key in locale.titles),
            float(key in locale.credentials),
            float(key in locale.relations),
            float(token in locale.states or key in locale.regions),
            float(key in locale.facility_heads or key in locale.facility_first),
        ),
    )
