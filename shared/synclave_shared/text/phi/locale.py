"""What a language brings to detection: patterns and words, no code. A new language is a new file in ``locales``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from synclave_shared.text.phi.pattern import Pattern

__all__ = ["Locale"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Locale:
    """One language.

    Attributes:
        code: BCP 47, as settings name it.
        patterns: beside the universal ones.
        titles: before a name (``dr``, ``mrs``), without dots, folded; the value is the kind of person.
        credentials: behind a name (``md``, ``rn``), folded, without dots.
        name_labels: expression of header labels that a name follows, with named groups ``patient``, ``doctor``,
            ``relative``, ``person`` for the kinds.
        relations: words of kinship and company that a name may follow (``husband``).
        roles: words of what somebody does at the hospital, which a name may follow (``midwife``).
        small_cues: words before a name in notes without capitals (``by``, ``pt``).
        relation_fillers: what may stand between the two (``named``, ``is``).
        cues_before: expression right before a name (``accompanied by``, ``prefers to be called``).
        cues_after: expression right behind a name (``is a``, ``was seen``, ``lives at``).
        sure_cues_before, sure_cues_after: those of them that make a name of any capitalised word that the language does
            not have.
        particles: small words inside names (``de``, ``van``).
        not_names: words that never are a name even behind a cue, folded.
        place_cues: expression right before a place, whatever the place's name.
        place_prepositions: before a place that the gazetteer knows.
        states: abbreviation (capital letters) -> full name, for ``City, ST``.
        regions: full names of states and provinces, folded, masked wherever they stand.
        risky_states: abbreviations that are also words or degrees; ``degree_states`` stand behind names of persons.
        facility_heads: words that make a facility of the name before them, folded; several words are one head.
        facility_first: heads that stand before the name (``hospital de``).
        facility_links: small words inside facility names.
        facility_plain: words that do not name a facility by themselves (``sleep clinic``), folded.
        eponym_heads: nouns behind a name that make it medicine (``disease``, ``catheter``).
        given, family, places, facilities, ordinary, eponyms: names of word lists in ``text/data``.
    """

    code: str
    patterns: tuple[Pattern, ...]
    titles: Mapping[str, str]
    credentials: frozenset[str]
    name_labels: re.Pattern[str]
    relations: frozenset[str]
    roles: frozenset[str]
    small_cues: frozenset[str]
    relation_fillers: frozenset[str]
    cues_before: re.Pattern[str]
    cues_after: re.Pattern[str]
    sure_cues_before: re.Pattern[str]
    sure_cues_after: re.Pattern[str]
    particles: frozenset[str]
    not_names: frozenset[str]
    place_cues: re.Pattern[str]
    place_prepositions: frozenset[str]
    states: Mapping[str, str]
    regions: frozenset[str]
    risky_states: frozenset[str]
    degree_states: frozenset[str]
    facility_heads: frozenset[str]
    facility_first: frozenset[str]
    facility_links: frozenset[str]
    facility_plain: frozenset[str]
    eponym_heads: frozenset[str]
    given: tuple[str, ...]
    family: tuple[str, ...]
    places: tuple[str, ...]
    facilities: tuple[str, ...]
    ordinary: tuple[str, ...]
    eponyms: tuple[str, ...]
