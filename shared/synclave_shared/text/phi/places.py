"""Places and facilities: towns by list and by what stands before them, hospitals by the words that make one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from synclave_shared.text.spans import PhiClass, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.phi.words import Lexicon, Word

__all__ = ["find_facilities", "find_places"]

_LONGEST_PLACE: Final = 4
_LONGEST_FACILITY: Final = 8
_SHORT: Final = frozenset(("st", "ste", "mt", "ft", "pt", "n", "s", "e", "w"))
"""With a dot inside a place's name."""
_CUE_REACH: Final = 40


def find_places(text: str, words: Sequence[Word], locale: Locale, lexicon: Lexicon) -> Iterator[Span]:
    """Towns, counties, states."""
    place = 0
    while place < len(words):
        word = words[place]
        if not word.capital:
            place += 1
            continue
        end = _longest_listed(words, place, lexicon)
        region = " ".join(part.key for part in words[place:end]) in locale.regions if end > place else False
        capitals = _capitals(words, place)
        before = text[max(0, word.start - _CUE_REACH) : word.start]
        state = _state_behind(text, words, capitals, locale) or _state_behind(text, words, end, locale)
        if state is not None and end == place:
            end = capitals
        if state is not None and (end if words[end - 1].end <= state[0] else 0):
            town = max(end, capitals) if words[max(end, capitals) - 1].end <= state[0] else end
            listed = _longest_listed(words, place, lexicon) > place
            sure = listed or state[2] or locale.place_cues.search(before) is not None
            if sure or not all(lexicon.plain(part) for part in words[place:town]):
                confidence = 0.9 if listed else 0.75
                if (
                    not state[2]
                    and text[state[0] : state[1]] in locale.degree_states
                    and word.gap in (" ", ". ")
                    and (words[place - 1].key not in locale.place_prepositions)
                ):
                    place += 1
                    continue
                led = word.gap == ", " or (word.gap == " " and words[place - 1].key in locale.place_prepositions)
                if not state[2] and not listed and not led and text[state[0] : state[1]] in locale.risky_states:
                    place += 1
                    continue
                yield _place(words[place].start, words[town - 1].end, "city", confidence)
                yield _place(state[0], state[1], "state", confidence)
                place = town + 1
                continue
        if locale.place_cues.search(before) and not _only_plain(words[place:capitals], lexicon, end > place):
            yield _place(word.start, words[max(end, capitals) - 1].end, "city", 0.8)
            place = max(end, capitals)
            continue
        if (
            region
            and not (word.shouted and end - place == 1 and lexicon.plain(word))
            and not _named_test(words, end, locale)
        ):
            yield _place(word.start, words[end - 1].end, "state", 0.7)
            place = end
            continue
        if end > place and place and words[place - 1].key in locale.place_prepositions and word.gap == " ":
            fresh = [part for part in words[place:end] if not lexicon.plain(part)]
            following = next((part.key for part in words[end : end + 2] if part.key != "s"), "")
            if fresh and not word.shouted and following not in locale.eponym_heads:
                yield _place(word.start, words[end - 1].end, "city", 0.65)
                place = end
                continue
        place += 1


def _named_test(words: Sequence[Word], end: int, locale: Locale) -> bool:
    """Whether a test has its name from the place before ``end``: ``Wisconsin Card Sorting Test``."""
    for word in words[end : end + 4]:
        if word.gap != " " or not word.capital:
            return False
        if word.key in locale.eponym_heads:
            return True
    return False


def _only_plain(parts: Sequence[Word], lexicon: Lexicon, listed: bool) -> bool:
    return not parts or (all(lexicon.plain(part) for part in parts) and not listed)


def _place(start: int, end: int, kind: str, confidence: float) -> Span:
    return Span(start=start, end=end, phi=PhiClass.PLACE, kind=kind, source="places", confidence=confidence)


def _longest_listed(words: Sequence[Word], place: int, lexicon: Lexicon) -> int:
    """One past the longest run from ``place`` that the list of places has; ``place`` if none."""
    best, key = place, ""
    if place and words[place].gap in ("-", "'"):
        return place
    for end in range(place, min(place + _LONGEST_PLACE, len(words))):
        if end > place and words[end].gap not in (" ", ". ", "-"):
            break
        key = f"{key} {words[end].key}".strip()
        if key in lexicon.places or key.replace("st ", "saint ", 1) in lexicon.places:
            best = end + 1
    return best


def _capitals(words: Sequence[Word], place: int) -> int:
    end = place
    while end < len(words) and end - place < 3 and words[end].capital and len(words[end].text) > 1:
        if end > place and words[end].gap != " " and not (words[end].gap == ". " and words[end - 1].key in _SHORT):
            break
        end += 1
    return end


def _state_behind(text: str, words: Sequence[Word], end: int, locale: Locale) -> tuple[int, int, bool] | None:
    """(start, end, sure) of ``, ST`` behind the word before ``end``; sure if a ZIP follows."""
    if end == 0 or end >= len(words):
        return None
    comma = words[end].gap in (", ", ",", " , ", ",  ")
    if not comma and not (
        words[end].gap in (" ", "  ") and text[words[end].end : words[end].end + 6].strip(" ,.").isdigit()
    ):
        return None
    for length in (3, 2, 1):
        parts = words[end : end + length]
        if len(parts) == length and " ".join(part.key for part in parts) in locale.regions and parts[0].capital:
            return parts[0].start, parts[-1].end, True
    if words[end].text in locale.states:
        behind = text[words[end].end : words[end].end + 8].strip(" ,.")
        return words[end].start, words[end].end, behind[:5].isdigit()
    return None


def find_facilities(text: str, words: Sequence[Word], locale: Locale, lexicon: Lexicon) -> Iterator[Span]:
    """Hospitals, clinics, practices, homes, schools."""
    longest = max(len(head.split()) for head in locale.facility_heads | {""})
    reached = 0
    for place in range(len(words)):
        if place < reached or not words[place].capital:
            continue
        head = _head(words, place, longest, locale.facility_heads)
        if head > place:
            first = _leftwards(words, place, locale, max(reached, place - _LONGEST_FACILITY))
            end = _rightwards(text, words, head, locale, longest)
            if _proper(words, first, place, head, end, locale, lexicon):
                yield Span(
                    start=words[first].start,
                    end=words[end - 1].end,
                    phi=PhiClass.PLACE,
                    kind="facility",
                    source="places",
                    confidence=0.85,
                )
                reached = end
                continue
        if words[place].key in locale.facility_first:
            end = _rightwards(text, words, place + 1, locale, longest, named=True)
            parts = [part for part in words[place + 1 : end] if part.key not in locale.facility_links]
            if parts and not all(part.key in locale.facility_plain for part in parts):
                yield Span(
                    start=words[place].start,
                    end=words[end - 1].end,
                    phi=PhiClass.PLACE,
                    kind="facility",
                    source="places",
                    confidence=0.93,
                )
                reached = end
                continue
    yield from _listed_facilities(words, lexicon)


def _listed_facilities(words: Sequence[Word], lexicon: Lexicon) -> Iterator[Span]:
    """Names that a public list of hospitals has, whatever words they are made of."""
    starts = _first_words(lexicon.facilities)
    for place, word in enumerate(words):
        if word.key not in starts:
            continue
        key, best = "", 0
        for end in range(place, min(place + _LONGEST_FACILITY, len(words))):
            if end > place and ("\n" in words[end].gap or len(words[end].gap) > 3):
                break
            key = f"{key}{words[end].gap if end > place else ''}{words[end].key}".replace(",", " ").replace("  ", " ")
            # In small letters three words must agree: two may be a sentence.
            enough = end - place > (0 if word.capital else 1)
            if enough and (key in lexicon.facilities or key.replace("saint ", "st ") in lexicon.facilities):
                best = end + 1
        if best:
            yield Span(
                start=word.start,
                end=words[best - 1].end,
                phi=PhiClass.PLACE,
                kind="facility",
                source="places",
                confidence=0.9,
            )


@lru_cache(maxsize=8)
def _first_words(facilities: frozenset[str]) -> frozenset[str]:
    return frozenset(name.split()[0] for name in facilities if " " in name)


def _head(words: Sequence[Word], place: int, longest: int, heads: frozenset[str]) -> int:
    for length in range(longest, 0, -1):
        parts = words[place : place + length]
        joined = len(parts) == length and all(part.gap in (" ", "  ") for part in parts[1:])
        if joined and " ".join(part.key for part in parts) in heads and all(part.capital for part in parts):
            return place + length
    return place


def _leftwards(words: Sequence[Word], place: int, locale: Locale, least: int) -> int:
    first = place
    while first > least:
        gap = words[first].gap
        if gap not in (" ", "  ", "-", " - ", " & ", "'", ". ", "'s ", ", ") and gap != "'":
            break
        before = words[first - 1]
        if gap == ". " and before.key not in ("st", "ste", "mt", "ft", "univ", "dr", "s"):
            break
        if gap == ", " and first != place:
            break
        if gap == ", " and words[place].key not in ("llc", "inc"):
            break
        if before.key == "s" and before.gap == "'":
            first -= 1
            continue
        if (
            before.capital
            and before.key not in locale.titles
            and before.key not in ("the", "at", "in", "from", "to", "by", "per")
        ):
            first -= 1
            continue
        if (
            before.key in ("of", "and", "for", "de", "del", "la", "the")
            and first - 1 > least
            and words[first - 2].capital
            and before.gap == " "
        ):
            first -= 1
            continue
        break
    while first < place and not words[first].capital:
        first += 1
    return first


def _rightwards(
    text: str, words: Sequence[Word], end: int, locale: Locale, longest: int, *, named: bool = False
) -> int:
    """Behind the head: ``of Suffern``, ``at Mercy``, ``- Baton Rouge``, ``, Inc``, further heads."""
    start = end
    while end < len(words) and end - start < _LONGEST_FACILITY:
        word = words[end]
        if word.gap in (", ", ",") and word.key in ("inc", "llc", "ltd", "pc", "pa", "the"):
            return end + 1
        further = _head(words, end, longest, locale.facility_heads)
        if further > end and word.gap == " ":
            end = further
            continue
        closed = text[word.end : word.end + 2].lstrip().startswith(")")
        if word.gap in (" (", " ( ") and word.capital and closed:
            return end + 1
        numbered = word.gap.strip(" \"'").isdigit() or word.gap in (' "', " '", '" ', "' ")
        if named and numbered and (word.capital or word.key in locale.facility_links):
            end += 1
            continue
        link = word.gap in (" - ", "-", " & ", " at ") and word.capital
        if (
            link
            or (named and word.gap in (" ", ". ") and word.capital)
            or (
                end > start
                and word.gap == " "
                and word.capital
                and words[end - 1].key not in locale.facility_heads
                and end - start < 5
            )
        ):
            end += 1
            continue
        if word.key in locale.facility_links and word.gap == " " and end + 1 < len(words):
            step = end + 1
            while (
                step < len(words)
                and step - end < 3
                and words[step].key in locale.facility_links
                and words[step].gap == " "
            ):
                step += 1
            if step < len(words) and words[step].capital and words[step].gap == " ":
                if word.key in ("in", "and", "for", "at", "&") and not named and word.key != "at" and end == start:
                    break
                end = step + 1
                continue
        if word.key in ("inc", "the", "llc") and word.gap == " " and word.capital:
            end += 1
            continue
        break
    return end


def _proper(
    words: Sequence[Word], first: int, place: int, head: int, end: int, locale: Locale, lexicon: Lexicon
) -> bool:
    """Whether the words around a head name one facility and not a sort of them."""
    around = [
        part
        for part in (*words[first:place], *words[head:end])
        if part.key not in locale.facility_links and part.key != "s"
    ]
    telling = [
        part
        for part in around
        if part.key not in locale.facility_plain
        and part.key not in locale.facility_heads
        and part.key not in locale.not_names
    ]
    if not telling:
        return False
    name = " ".join(part.key for part in words[first:end])
    if name in lexicon.facilities:
        return True
    if all(part.shouted for part in words[first:end]):
        # A heading is shouted, too: something in it must not be a word of the language.
        return any(not lexicon.plain(part) for part in telling)
    head_word = words[head - 1].key
    if head_word in (
        "llc",
        "inc",
        "associates",
        "physicians",
        "practice",
        "surgery",
        "medical",
        "regional",
        "laboratory",
        "rehab",
        "hall",
        "house",
        "institute",
        "employer",
        "trust",
        "pharmacy",
        "laboratories",
        "clinic",
        "clinics",
        "foundation",
        "college",
        "university",
        "healthcare",
        "manor",
        "pavilion",
        "church",
        "memorial",
        "jail",
        "prison",
        "hospice",
        "ltac",
    ):
        return any(not lexicon.plain(part) or lexicon.name(part) for part in telling)
    return True
