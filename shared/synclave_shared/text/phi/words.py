"""A text as words with what the finders ask of each: its letters, its case, its neighbours, the lists it stands in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from synclave_shared.text.phi.lexicon import word_lists
from synclave_shared.text.view import folded

if TYPE_CHECKING:
    from synclave_shared.text.phi.locale import Locale

__all__ = ["LONGEST_NAME", "Lexicon", "Word", "lexicon_of", "split_words"]

LONGEST_NAME: Final = 30
"""Letters; a longer word is no name, and is not looked at further."""

_WORD: Final = re.compile(r"[^\W\d_]+(?:['-](?!s(?![^\W\d_]))[^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Word:
    """A run of letters.

    ``gap`` is what stands between the word before and this one; ``key`` the word as lexicons list it.
    """

    start: int
    end: int
    text: str
    key: str
    gap: str

    @property
    def capital(self) -> bool:
        """``Smith``, ``McDonald``, ``O'Brien``, ``SMITH``."""
        return self.text[0].isupper()

    @property
    def shouted(self) -> bool:
        """``SMITH``: case tells nothing."""
        return len(self.text) > 1 and self.text.isupper()

    @property
    def initial(self) -> bool:
        """``J``."""
        return len(self.text) == 1 and self.text.isupper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """The word lists of a locale, a site's additions included."""

    given: frozenset[str]
    family: frozenset[str]
    places: frozenset[str]
    facilities: frozenset[str]
    ordinary: frozenset[str]
    eponyms: frozenset[str]
    keep: frozenset[str] = frozenset()

    def name(self, word: Word) -> bool:
        """Whether a list of names has it, or each part of a double name."""
        return all(part in self.given or part in self.family for part in _parts(word.key))

    def given_name(self, word: Word) -> bool:
        """Whether it is known as a given name."""
        return any(part in self.given for part in _parts(word.key))

    def plain(self, word: Word) -> bool:
        """A word of the language or of medicine, whatever else it may be."""
        return word.key in self.ordinary or word.key in self.eponyms or word.key in self.keep


@lru_cache(maxsize=4096)
def _parts(key: str) -> tuple[str, ...]:
    bare = key.replace("'", "")
    return tuple(part for part in bare.split("-") if part) or (key,)


@lru_cache(maxsize=8)
def lexicon_of(locale: Locale) -> Lexicon:
    """The shipped lists of a locale."""
    return Lexicon(
        given=word_lists(locale.given),
        family=word_lists(locale.family),
        places=word_lists(locale.places) | locale.regions,
        facilities=word_lists(locale.facilities),
        ordinary=word_lists(locale.ordinary),
        eponyms=word_lists(locale.eponyms),
    )


def split_words(text: str) -> list[Word]:
    """All words in order; linear."""
    words: list[Word] = []
    last = 0
    for found in _WORD.finditer(text):
        start, end = found.span()
        letters = found.group() if end - start <= LONGEST_NAME * 2 else text[start : start + LONGEST_NAME * 2]
        words.append(Word(start, end, letters, folded(letters), text[max(last, start - 12) : start]))
        last = end
    return words
