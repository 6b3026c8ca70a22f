"""Names of persons by what stands around them and by lists of names.

What stands around counts more than the lists: ``Dr.`` and ``husband`` make a name of any capitalised word, while a
listed surname alone makes none of an eponym (``Foley catheter``) or of a word of the language (``Cool``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from synclave_shared.text.phi.pattern import in_small_letters
from synclave_shared.text.phi.words import LONGEST_NAME
from synclave_shared.text.spans import PhiClass, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.phi.pattern import Reading
    from synclave_shared.text.phi.words import Lexicon, Word

__all__ = ["find_names"]

_LONGEST_RUN: Final = 6
"""Words of one name, initials and particles included."""

_CUE_REACH: Final = 48
"""Characters before and behind a word that cues are looked for in; longer than any cue."""

_BY: Final = re.compile(r"(?:^|(?<=\s))(?:by|under|per)[ ]$")
"""Whom something is done by, in small letters."""

_PLACEHOLDERS: Final = frozenset(["xx", "xxx", "xxxx", "xyz", "abc", "abcd", "abcdef", "doe_", "mm", "dd", "yyyy"])


def find_names(reading: Reading, words: Sequence[Word], locale: Locale, lexicon: Lexicon) -> Iterator[Span]:
    """Every name that a cue or two lists speak for."""
    finder = _Finder(reading, words, locale, lexicon)
    yield from finder.labelled()
    for place in range(len(words)):
        yield from finder.at(place)


@lru_cache(maxsize=8)
def _small_labels(labels: re.Pattern[str]) -> re.Pattern[str] | None:
    return in_small_letters(labels.pattern)


class _Finder:
    def __init__(self, reading: Reading, words: Sequence[Word], locale: Locale, lexicon: Lexicon) -> None:
        self.reading, self.text = reading, reading.text
        self.words = words
        self.locale = locale
        self.lexicon = lexicon
        self.cased = any(word.capital for word in words)

    # What can be part of a name.

    def _namely(self, word: Word, *, trusted: bool) -> bool:
        """Whether ``word`` can be part of a name; ``trusted``: something before it says that a name is here."""
        # XGH123456 is a number.
        if self.text[word.end : word.end + 1].isdigit() or self.text[max(0, word.start - 1) : word.start].isdigit():
            return False
        if word.initial:
            return True
        if len(word.text) > LONGEST_NAME or word.key in self.locale.not_names or word.key in _PLACEHOLDERS:
            return False
        if word.key in self.lexicon.keep:
            return False
        if word.shouted:
            return self.lexicon.name(word) or (trusted and not self.lexicon.plain(word))
        if word.capital:
            return trusted or self.lexicon.name(word)
        return False

    def _initials(self, place: int) -> bool:
        """``KL`` of ``Professor KL Meyer``."""
        word, following = self.words[place], self.words[place + 1] if place + 1 < len(self.words) else None
        return (
            word.shouted
            and len(word.text) < 4
            and following is not None
            and following.gap == " "
            and following.capital
            and not following.shouted
            and not self.lexicon.plain(following)
        )

    def _degree(self, word: Word, before: Word) -> bool:
        """Whether ``word`` is a degree behind a name: ``MBBS``, ``M.D.``."""
        if word.initial:
            return self.text[word.start : word.start + 4] in ("M.D.", "D.O.", "R.N.")
        degree = word.key.replace("-", "") in self.locale.credentials and not word.text[1:].islower()
        return degree and (len(word.key) > 3 or not before.shouted)

    def _joined(self, place: int, *, comma: bool = False) -> bool:
        """Whether only what may stand inside a name is between the word before ``place`` and it."""
        gap, before = self.words[place].gap, self.words[place - 1]
        if gap in (" ", "  ", "-", "\t"):
            return True
        if gap in (". ", ".") and (
            before.initial or before.key in ("st", "wm", "chas", "geo", "jos", "thos", "ma", "fco")
        ):
            return True
        if gap in (' "', '" ', " (", ") ", " '", "' "):
            return True
        return comma and gap in (", ", ",")

    def _run(self, place: int, *, trusted: bool, comma: bool = False) -> int:
        """One past the last word of the name that starts at ``place``; ``place`` itself if none does."""
        words, end = self.words, place
        while end < len(words) and end - place < _LONGEST_RUN:
            word = words[end]
            if end > place and not self._joined(end, comma=comma and end - place <= 3):
                break
            if word.key in self.locale.particles and not word.initial:
                step = end + 1
                while step < len(words) and step - end < 3 and words[step].key in self.locale.particles:
                    step += 1
                inside = step < len(words) and self._joined(step) and self._namely(words[step], trusted=True)
                if inside and (end > place or word.capital or trusted):
                    end = step
                    continue
                if not word.capital:
                    break
            if trusted and end == place and self._initials(end):
                end += 1
                continue
            if not self._namely(word, trusted=trusted):
                break
            if end > place and self._degree(word, words[end - 1]):
                break
            # Behind the first word an ordinary one must be a name in some list to go on (``Dr. Smith Will``).
            if end > place and self.lexicon.plain(word) and not self.lexicon.name(word):
                break
            end += 1
        while end > place + 1 and words[end - 1].initial and words[end - 1].text == "I" and words[end - 1].gap == " ":
            end -= 1
        return end

    def _span(self, first: int, end: int, kind: str, confidence: float, source: str = "names") -> Span:
        start, stop = self.words[first].start, self.words[end - 1].end
        last = self.words[end - 1]
        if last.initial and self.text[stop : stop + 1] == "." and end - first > 1:
            stop += 1
        return Span(start=start, end=stop, phi=PhiClass.NAME, kind=kind, source=source, confidence=confidence)

    def _eponym(self, end: int) -> bool:
        """Whether a medical noun follows the word before ``end``: ``Foley catheter``, ``Barrett's esophagus``."""
        for following in self.words[end : end + 2]:
            if following.start - self.words[end - 1].end > 24 or "." in following.gap or "\n" in following.gap:
                return False
            if following.key in self.locale.eponym_heads:
                return True
            if following.key not in ("s", "type"):
                return False
        return False

    # What says that a name is here.

    def labelled(self) -> Iterator[Span]:
        """``Patient: ...``, ``Attending: ...``, ``cc: ...``; a list of names behind one label is read to its end."""
        by_start = {word.start: place for place, word in enumerate(self.words)}
        small = _small_labels(self.locale.name_labels)
        if small is not None and self.reading.small is not None:
            labels = small.finditer(self.reading.small)
        else:
            labels = self.locale.name_labels.finditer(self.text)
        for found in labels:
            kind = next(name for name in ("patient", "relative", "doctor", "person") if found.group(name))
            place = by_start.get(found.end())
            for _ in range(4):
                if place is None:
                    break
                place = self._skip_title(place)
                end = self._run(place, trusted=True, comma=True)
                if end == place:
                    end = self._small_name(place)
                if end == place:
                    break
                parts = [word for word in self.words[place:end] if not word.initial]
                sure = any(self.lexicon.name(word) or not self.lexicon.plain(word) for word in parts)
                if not sure:
                    break
                if not (end - place == 1 and self.words[place].initial):
                    yield self._span(place, end, kind, 0.92)
                place = self._next_in_list(end)

    def _skip_title(self, place: int) -> int:
        while place < len(self.words) - 1 and self.words[place].key in self.locale.titles:
            place += 1
        return place

    def _small_name(self, place: int) -> int:
        """A name in small letters behind a label: two words that lists know and the language does not."""
        end = place
        while end < min(len(self.words), place + 4) and (end == place or self._joined(end, comma=True)):
            word = self.words[end]
            known = self.lexicon.name(word) or len(word.text) == 1
            if not known or self.lexicon.plain(word) or word.key in self.locale.not_names:
                break
            end += 1
        return end if end > place and len(self.words[place].text) > 1 else place

    def _next_in_list(self, end: int) -> int | None:
        """The start of a further name: behind ``, MD;`` or ``and``."""
        for place in range(end, min(end + 4, len(self.words))):
            word = self.words[place]
            if any(sign in "\n:#0123456789" for sign in word.gap):
                return None
            if (
                word.key in self.locale.credentials
                or word.key in ("and", "m", "d", "y", "phd")
                or word.key in self.locale.titles
            ):
                continue
            return place if place > end or ";" in word.gap or "/" in word.gap else None
        return None

    def at(self, place: int) -> Iterator[Span]:
        """What the surroundings of one word say."""
        word = self.words[place]
        if len(word.text) > LONGEST_NAME:
            return
        if word.key in self.locale.titles:
            yield from self._titled(place)
        if word.key in self.locale.relations:
            yield from self._related(place)
        elif word.key in self.locale.roles:
            yield from self._in_role(place)
        if not self.cased:
            yield from self._in_small_letters(place)
        if not word.capital or word.key in self.locale.titles:
            return
        before = self.words[place - 1] if place else None
        inside = (
            before is not None
            and "(" not in word.gap
            and self._joined(place)
            and before.capital
            and self._namely(before, trusted=False)
        )
        if not inside:
            yield from self._listed(place)
            yield from self._cued(place)
            yield from self._credentialed(place)

    def _in_small_letters(self, place: int) -> Iterator[Span]:
        """Where nobody types capitals: a word that the language does not have, behind who or by whom."""
        word = self.words[place]
        if (
            not place
            or word.gap not in (" ", ". ", "/ ", " (")
            or word.capital
            or not 3 < len(word.text) <= LONGEST_NAME
        ):
            return
        before = self.words[place - 1]
        cue = (
            before.key in self.locale.titles
            or before.key in self.locale.relations
            or before.key in self.locale.roles
            or before.key in self.locale.small_cues
        )
        # A drug or a misspelt word may follow "with"; no list has either for a name.
        behind = self.words[place + 1] if place + 1 < len(self.words) else None
        cue = cue or (
            behind is not None and behind.gap in (" ", ", ") and behind.key in ("rn", "md", "lpn", "cna", "rmo", "en")
        )
        if not cue or self.lexicon.plain(word) or word.key in self.locale.not_names or self._eponym(place + 1):
            return
        end = place + 1
        if end < len(self.words) and self._joined(end) and self.lexicon.name(self.words[end]):
            end += not self.lexicon.plain(self.words[end])
        yield self._span(place, end, "person", 0.6)

    def _titled(self, place: int) -> Iterator[Span]:
        title = self.words[place]
        kind = self.locale.titles[title.key]
        first = place + 1
        if first >= len(self.words):
            return
        word = self.words[first]
        if word.gap not in (" ", ". ", ".", "  ", ".  ", ".\n", " (", ". (", "s. "):
            return
        if word.key in self.locale.titles:
            return
        # Words such as ``nurse`` and ``father`` in small letters need a known name behind them.
        weak = not title.capital or title.text.lower() in (
            "doctor",
            "attending",
            "surgeon",
            "nurse",
            "father",
            "sister",
            "brother",
            "master",
            "general",
            "captain",
            "judge",
            "officer",
            "lady",
            "gen",
            "col",
            "hon",
            "pastor",
            "professor",
        )
        end = self._run(first, trusted=True)
        if end == first and not word.capital and len(word.text) > 2:
            known = self.lexicon.name(word) and not self.lexicon.plain(word)
            end = first + 1 if known and word.key not in self.locale.not_names and word.gap != ".\n" else first
        if end == first:
            return
        parts = [part for part in self.words[first:end] if not part.initial]
        known = any(self.lexicon.name(part) and not self.lexicon.plain(part) for part in parts)
        if weak and not known and not (title.capital and len(parts) > 1 and self._unknown(parts)):
            return
        if all(part.initial for part in self.words[first:end]) and word.text in "XYZABI":
            return
        # Dr. Previous records were ...: a sentence begins.
        if end - first == 1 and self.lexicon.plain(word) and not self.lexicon.name(word):
            return
        yield self._span(first, end, kind, 0.9 if weak else 0.96)
        # Drs. Smith and Jones; Mr. and Mrs. Jones stands at the second title.
        if title.text.lower().startswith("drs") and end + 1 < len(self.words) and self.words[end].key in ("and", "y"):
            last = self._run(end + 1, trusted=True)
            if last > end + 1:
                yield self._span(end + 1, last, kind, 0.9)

    def _related(self, place: int) -> Iterator[Span]:
        first = place + 1
        while first < len(self.words) and self.words[first].key in self.locale.relation_fillers and first - place < 3:
            first += 1
        if first >= len(self.words):
            return
        between = self.text[self.words[place].end : self.words[first].start]
        if len(between) > 16 or "." in between or "\n" in between or ":" in between or not self.words[first].capital:
            return
        end = self._run(first, trusted=True)
        if end == first or (end - first == 1 and self.words[first].initial):
            return
        parts = self.words[first:end]
        known = any(self.lexicon.name(part) for part in parts)
        ordinary = all(self.lexicon.plain(part) for part in parts)
        if ordinary and (not known or (not any(mark in between for mark in ",(") and parts[0].shouted)):
            return
        if self._eponym(end):
            return
        yield self._span(first, end, "relative", 0.88)

    def _in_role(self, place: int) -> Iterator[Span]:
        """``midwife Anna Hall``, ``PCP Hall``: a name that the language does not have as a word."""
        first = place + 1
        if first >= len(self.words) or self.words[first].gap not in (" ", "  ", "   ", ", ", ": "):
            return
        word = self.words[first]
        end = self._run(first, trusted=not word.shouted)
        parts = [part for part in self.words[first:end] if not part.initial]
        if not word.capital or not parts or self.lexicon.plain(word) or self._eponym(end):
            return
        yield self._span(first, end, "doctor", 0.8)

    def _listed(self, place: int) -> Iterator[Span]:
        """Two or more listed words in a row; one alone with less confidence."""
        end = self._run(place, trusted=False)
        comma = self._run(place, trusted=False, comma=True)
        parts = self.words[place:end]
        long = [part for part in parts if not part.initial]
        fresh = [part for part in long if not self.lexicon.plain(part)]
        given = any(self.lexicon.given_name(part) for part in long)
        if end > place and self._eponym(end):
            return
        if len(long) >= 2 and fresh and given:
            yield self._span(place, end, "person", 0.8 if len(fresh) > 1 else 0.65)
            return
        if len(long) >= 2 and len(fresh) == len(long) and not parts[0].shouted:
            yield self._span(place, end, "person", 0.6)
            return
        if len(long) == 1 and fresh and len(parts) > 1 and len(long[0].text) > 2:
            # S. Arrance, Arrance S.; not "A Foley", "Vitamin D"
            dotted = parts[0].initial and self.words[place + 1].gap.startswith(".")
            if not dotted:
                return
            yield self._span(place, end, "person", 0.7)
            return
        if comma > end and end > place:
            parts = self.words[place:comma]
            rest = [part for part in self.words[end:comma] if not part.initial]
            fresh = [part for part in parts if not part.initial and not self.lexicon.plain(part)]
            if rest and fresh and self.lexicon.given_name(rest[0]) and (rest[0] in fresh or len(parts) > 2):
                yield self._span(place, comma, "person", 0.75)
                return
        if fresh and given and len(fresh[0].text) > 2 and not fresh[0].shouted and self._inside_sentence(place):
            yield self._span(place, end, "person", 0.55)

    def _inside_sentence(self, place: int) -> bool:
        """Whether a capital here is no matter of the sentence's beginning."""
        gap = self.words[place].gap
        return place > 0 and gap in (" ", ", ", " (") and not self.words[place - 1].shouted

    def _cued(self, place: int) -> Iterator[Span]:
        word = self.words[place]
        trusted = not self.lexicon.plain(word)
        end = self._run(place, trusted=trusted)
        if end == place or self._eponym(end):
            return
        parts = [part for part in self.words[place:end] if not part.initial]
        if not parts or all(self.lexicon.plain(part) for part in parts):
            return
        known = any(self.lexicon.name(part) and not self.lexicon.plain(part) for part in parts)
        before = self.text[max(0, word.start - _CUE_REACH) : word.start]
        behind = self.text[self.words[end - 1].end : self.words[end - 1].end + _CUE_REACH]
        sure = self.locale.sure_cues_before.search(before) or self.locale.sure_cues_after.match(behind)
        if sure and (known or (not word.shouted and len(word.text) > 2)):
            yield self._span(place, end, "person", 0.8)
        elif (known and not word.shouted and self.locale.cues_before.search(before)) or (
            known and self.locale.cues_after.match(behind)
        ):
            yield self._span(place, end, "person", 0.7)
        elif (
            before.endswith("(")
            and behind.startswith((")", "/"))
            and (known or self._unknown(parts))
            and not word.shouted
        ):
            # IR (Laker); drugs in brackets are in the lists.
            yield self._span(place, end, "person", 0.6)
        elif self._unknown(parts) and _BY.search(before):
            yield self._span(place, end, "person", 0.6)

    def _unknown(self, parts: Sequence[Word]) -> bool:
        """Whether words look like a whole name that no list has: two of them, or ``McSorley``."""
        if any(part.shouted or self.lexicon.plain(part) for part in parts):
            return False
        return len(parts) > 1 or not parts[0].text[1:].islower()

    def _credentialed(self, place: int) -> Iterator[Span]:
        end = self._run(place, trusted=True)
        if end == place or end >= len(self.words):
            return
        if self.words[end].gap not in (", ", " ", ",", " , "):
            return
        tail = self.text[self.words[end].start : self.words[end].start + 12].split()
        degree = tail[0].lower().replace(".", "").replace("-", "").rstrip(",;:)") if tail else ""
        if degree not in self.locale.credentials:
            return
        if self.words[end].gap == " " and not self.words[end].capital:
            return
        parts = [part for part in self.words[place:end] if not part.initial]
        if not parts or (
            all(self.lexicon.plain(part) for part in parts) and not all(self.lexicon.name(part) for part in parts)
        ):
            return
        if len(degree) == 2 and self.words[end].gap == " " and len(parts) < 2:
            return
        yield self._span(place, end, "doctor", 0.9)
