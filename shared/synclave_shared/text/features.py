"""What a tagger sees of each token: its letters, hashed; its shape; the lists it stands in; where it stands.

Everything is a pure function of the text and the shipped lists, the same on every machine: CRC-32, no vocabulary that
was read from data.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
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

_KNOWN: Final = 16384
"""Different tokens whose description is kept between texts; the same words come again and again."""


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
    found = [match.span() for match in _TOKEN.finditer(text)]
    if not found:
        return TokenFeatures(np.zeros((0, 2), np.int64), np.zeros((0, 4), np.int64), np.zeros((0, FLAGS), np.float32))
    places: dict[str, int] = {}
    which = [places.setdefault(text[start : min(end, start + _LONGEST)], len(places)) for start, end in found]
    described = [_describe(token, locale, lexicon) for token in places]
    spans = np.array(found, np.int64)
    gaps = spans[:, 0] - np.append(0, spans[:-1, 1])
    line_starts = np.append(True, [text[start] == "\n" for start, _ in found[:-1]])
    flags = np.empty((len(found), FLAGS), np.float32)
    flags[:, :-3] = np.array([flags for _, flags in described], np.float32)[which]
    flags[:, -3], flags[:, -2], flags[:, -1] = line_starts, gaps == 0, gaps > 1
    return TokenFeatures(spans, np.array([numbers for numbers, _ in described], np.int64)[which], flags)


@lru_cache(maxsize=_KNOWN)
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
