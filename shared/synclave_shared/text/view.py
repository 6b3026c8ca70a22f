"""A plain view of a text to search in, and the way back to the text itself.

Notes come with non-breaking spaces, curly quotes, full-width digits, soft hyphens, zero-width marks and accents as
characters of their own. Patterns are written once, for the view; what they find is told in the offsets of the text.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = ["View", "folded", "plain_view"]

_QUOTES: Final = dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4", "'") | dict.fromkeys(
    "\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'
)
_DASHES: Final = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
_PLAIN: Final = _QUOTES | _DASHES


@dataclass(frozen=True, slots=True)
class View:
    """``text`` to search in; ``offsets[i]`` is where its i-th character stands in the original, one more for the end.

    ``offsets`` is None where both are the same, character by character.
    """

    text: str
    offsets: tuple[int, ...] | None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """[start, end) of the view in the offsets of the original; marks without width inside belong to it."""
        if self.offsets is None:
            return start, end
        # Behind the last character, not before the next: a trailing zero-width mark or accent is covered, too.
        return self.offsets[start], self.offsets[end]


def plain_view(text: str) -> View:
    """The view of ``text``: one linear pass, and none at all over plain ASCII without control characters."""
    if text.isascii() and (text.isprintable() or not _has_control(text)):
        return View(text, None)
    letters: list[str] = []
    offsets: list[int] = []
    for place, letter in enumerate(text):
        plain = letter if " " <= letter <= "~" or letter in "\n\t" else _plain(letter)
        if plain is None:
            if letters and unicodedata.combining(letter):
                composed = unicodedata.normalize("NFC", letters[-1] + letter)
                if len(composed) == 1:
                    letters[-1] = composed
            continue
        letters.append(plain)
        offsets.append(place)
    offsets.append(len(text))
    return View("".join(letters), tuple(offsets))


def folded(word: str) -> str:
    """``word`` as lexicons list it: without case and accents."""
    if word.isascii():
        return word.lower()
    return "".join(
        letter for letter in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(letter)
    )


def _has_control(text: str) -> bool:
    return any(letter < " " and letter not in "\n\t" for letter in set(text)) or "\x7f" in text


def _plain(letter: str) -> str | None:
    """The one character that stands for ``letter``, or None if it has no width."""
    if letter in _PLAIN:
        return _PLAIN[letter]
    category = unicodedata.category(letter)
    if category in ("Cf", "Mn", "Me"):
        return None
    if category in ("Zs", "Cc"):
        return " "
    if category in ("Zl", "Zp"):
        return "\n"
    wide = unicodedata.normalize("NFKC", letter)
    return wide if len(wide) == 1 and wide.isprintable() else letter
