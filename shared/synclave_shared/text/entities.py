"""What a note says about the patient's health: problems, tests, treatments, drugs, doses, values, and its headings.

This is what rewriting keeps and what synthetic notes are judged by. Three sources: patterns for doses, values and
vital signs; terms of the open NER sets and code tables; and optionally a trained tagger of the same kind as the one for
identifiers (:mod:`synclave_shared.text.tagger`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from synclave_shared.text.phi.lexicon import word_list
from synclave_shared.text.phi.words import split_words
from synclave_shared.text.view import plain_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synclave_shared.text.phi.words import Word
    from synclave_shared.text.tagger import Tagger

__all__ = [
    "ENTITY_TAGS",
    "Entity",
    "EntityFinder",
    "EntityKind",
    "headings",
    "shipped_entity_network",
    "single_word_terms",
]


class EntityKind(StrEnum):
    """The kinds of the i2b2 concept task, with drugs, doses and values told apart."""

    PROBLEM = "problem"
    TEST = "test"
    TREATMENT = "treatment"
    DRUG = "drug"
    DOSE = "dose"
    VALUE = "value"


ENTITY_TAGS: Final[tuple[EntityKind | None, ...]] = (None, *EntityKind)
"""In the order of the network's outputs."""

_RANK: Final = {kind: place for place, kind in enumerate(EntityKind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One clinical mention: [start, end) of the text, its kind, who found it, how sure."""

    start: int
    end: int
    kind: EntityKind
    source: str
    confidence: float


_UNIT: Final = (
    r"mg/kg|mcg/kg|mg/dl|g/dl|ng/ml|pg/ml|mcg/ml|mg/l|mmol/l|meq/l|iu/l|u/l|mm/hr|mmhg|mm hg|cc/hr|ml/hr|mg|mcg|µg|ug|grams?|gm|kg|g|"
    r"ml|cc|liters?|l/min|l|meq|mmol|units?|iu|international units|tablets?|tabs?|capsules?|caps?|puffs?|drops?|gtts?|sprays?|"
    r"patch(?:es)?|teaspoons?|tsp|mm|cm|french|fr|gauge|joules|gy|cgy|bpm|lb|lbs|pounds|degrees|%|percent"
)
_ROUTE: Final = r"p\.?o\.?|i\.?v\.?|i\.?m\.?|s\.?c\.?|subq|subcutaneous(?:ly)?|sublingual(?:ly)?|orally|by mouth|per rectum|p\.?r\.?|topical(?:ly)?|inhaled|intranasal(?:ly)?|ng tube"
_TIMES: Final = (
    r"q\.?d\.?|b\.?i\.?d\.?|t\.?i\.?d\.?|q\.?i\.?d\.?|q\.?h\.?s\.?|h\.?s\.?|a\.?c\.?|p\.?r\.?n\.?|q\.? ?\d{1,2}(?:-\d{1,2})? ?h(?:ours|rs|r)?\.?|"
    r"q\.?a\.?m\.?|q\.?p\.?m\.?|every (?:other day|day|\d{1,2}(?: to \d{1,2})? hours|morning|night)|(?:once|twice|three times|four times) (?:a day|daily|weekly|a week)|daily|nightly|weekly|at bedtime|as needed"
)
_NUMBER: Final = r"\d{1,6}(?:,\d{3})?(?:\.\d{1,4})?(?:/\d{1,4}(?:\.\d{1,3})?)?"

_PATTERNS: Final[tuple[tuple[EntityKind, re.Pattern[str]], ...]] = (
    (
        EntityKind.DOSE,
        re.compile(
            rf"(?i)(?<![\w.])(?:{_NUMBER}|one|two|three|half a)(?:[- ](?:to[- ])?{_NUMBER})?[- ]?(?:{_UNIT})(?!\w)"
            rf"(?:[ ,]{{1,2}}(?:(?:{_ROUTE}|{_TIMES})(?!\w)\.?)){{0,4}}"
        ),
    ),
    (EntityKind.DOSE, re.compile(rf"(?i)(?<![\w.])(?:(?:{_ROUTE})[ ])?(?:{_TIMES})(?!\w)")),
    (
        EntityKind.VALUE,
        re.compile(
            r"(?i)(?<!\w)(?:blood pressure|bp|b/p|pulse|heart rate|hr|respirations?|respiratory rate|rr|temperature|temp|o2 sat(?:uration)?|sats?|"
            r"oxygen saturation|weight|height|bmi|gcs|apgars?|ejection fraction|ef|inr)[ ]?(?:is|was|of|at|:|=)?[ ]?"
            r"(?P<v>\d{1,3}(?:\.\d{1,2})?(?:/\d{1,3})?(?:[- ]?(?:%|mmhg|kg|lbs?|pounds|degrees|bpm|f|c)(?!\w))?)"
        ),
    ),
    (
        EntityKind.VALUE,
        re.compile(
            r"(?i)(?<!\w)(?:sodium|potassium|chloride|bicarbonate|co2|bun|creatinine|glucose|calcium|magnesium|phosphorus|albumin|hemoglobin|hgb|"
            r"hematocrit|hct|platelets?|platelet count|wbc|white (?:blood )?(?:cell )?count|rbc|ast|alt|sgot|sgpt|bilirubin|troponin|ck|ckmb|bnp|tsh|t4|"
            r"a1c|hba1c|hemoglobin a1c|ldl|hdl|cholesterol|triglycerides|psa|esr|crp|lactate|ferritin|ph|pco2|po2|alkaline phosphatase|lipase|amylase)"
            r"(?: level| count)?[ ]?(?:is|was|of|at|:|=)?[ ]?(?P<v>[<>]?\d{1,6}(?:,\d{3})?(?:\.\d{1,3})?(?:[ ]?(?:mg/dl|g/dl|mmol/l|meq/l|%|k/ul|ng/ml|u/l))?)(?![\w/])"
        ),
    ),
)

_LISTS: Final = (
    (EntityKind.PROBLEM, "terms-problem"),
    (EntityKind.DRUG, "terms-drug"),
    (EntityKind.TEST, "terms-test"),
    (EntityKind.TREATMENT, "terms-treatment"),
)

_LONGEST_TERM: Final = 6
"""Words of one term."""

_HEADING: Final = re.compile(
    r"(?m)^[ \t]{0,8}(?P<v>[A-ZÁÉÍÓÚÑ][A-Za-zÁÉÍÓÚÑáéíóúñ &/,'()-]{2,60}):|^[ \t]{0,8}(?P<w>[A-ZÁÉÍÓÚÑ][A-ZÁÉÍÓÚÑ &/,'-]{3,60})[ \t]*$"
)


def headings(text: str) -> list[tuple[int, int]]:
    """Section headings: what begins a line and ends in a colon, and lines in capitals."""
    return [found.span("v") if found.group("v") else found.span("w") for found in _HEADING.finditer(text)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EntityFinder:
    """Finds clinical mentions in English notes.

    Attributes:
        network: a trained tagger of ``len(ENTITY_TAGS)`` tags; None for patterns and lists alone.
        least: probability of a tag from which the network's word counts.
    """

    network: Tagger | None = None
    least: float = 0.5

    def find(self, text: str) -> list[Entity]:
        """Disjoint mentions in order; of those that overlap the longest stays, then the surest."""
        view = plain_view(text)
        found = [*_by_pattern(view.text), *_by_list(view.text)]
        if self.network is not None:
            found.extend(_by_network(view.text, self.network, self.least))
        kept = []
        for entity in _disjoint(found):
            start, end = view.original(entity.start, entity.end)
            kept.append(
                Entity(start=start, end=end, kind=entity.kind, source=entity.source, confidence=entity.confidence)
            )
        return kept


def _by_pattern(text: str) -> Iterator[Entity]:
    for kind, regex in _PATTERNS:
        group = "v" if "v" in regex.groupindex else 0
        for found in regex.finditer(text):
            start, end = found.span(group)
            yield Entity(start=start, end=end, kind=kind, source="pattern", confidence=0.9)


@cache
def _terms() -> dict[str, EntityKind]:
    terms: dict[str, EntityKind] = {}
    for kind, name in _LISTS:
        for term in word_list(name):
            terms.setdefault(term, kind)
    return terms


@cache
def single_word_terms() -> frozenset[str]:
    """Clinical terms of one word, folded."""
    return frozenset(term for term in _terms() if " " not in term)


def _by_list(text: str) -> Iterator[Entity]:
    words, terms = split_words(text), _terms()
    place = 0
    while place < len(words):
        end, kind = _longest_term(words, place, terms)
        if kind is None:
            place += 1
            continue
        yield Entity(start=words[place].start, end=words[end - 1].end, kind=kind, source="list", confidence=0.75)
        place = end


def _longest_term(words: list[Word], place: int, terms: dict[str, EntityKind]) -> tuple[int, EntityKind | None]:
    key, best, kind = "", place, None
    for end in range(place, min(place + _LONGEST_TERM, len(words))):
        if end > place and words[end].gap not in (" ", "  ", "\n", "-", "'"):
            break
        key = f"{key} {words[end].key}" if key else words[end].key
        match = terms.get(key)
        if match is not None:
            best, kind = end + 1, match
    return best, kind


def _by_network(text: str, network: Tagger, least: float) -> Iterator[Entity]:
    # Here, so that what needs no network needs no torch.
    from synclave_shared.text.features import token_features
    from synclave_shared.text.phi.locales import locale_for
    from synclave_shared.text.phi.words import lexicon_of
    from synclave_shared.text.tagger import tag_probabilities

    locale = locale_for("en")
    features = token_features(text, locale, lexicon_of(locale))
    probabilities = tag_probabilities(network, features)
    best = probabilities.argmax(1) if len(probabilities) else []
    run: list[int] = []
    for place in [*range(len(best)), -1]:
        tag = int(best[place]) if place >= 0 and probabilities[place].max() >= least else 0
        if run and tag != int(best[run[-1]]):
            kind = ENTITY_TAGS[int(best[run[0]])]
            if kind is not None:
                start, end = int(features.spans[run[0], 0]), int(features.spans[run[-1], 1])
                sure = float(probabilities[run].max(1).mean())
                yield Entity(start=start, end=end, kind=kind, source="tagger", confidence=sure)
            run = []
        if tag:
            run.append(place)


def _disjoint(entities: Iterable[Entity]) -> list[Entity]:
    kept: list[Entity] = []
    ordered = sorted(entities, key=lambda one: (-(one.end - one.start), -one.confidence, one.start, _RANK[one.kind]))
    taken: set[int] = set()
    for entity in ordered:
        if taken.isdisjoint(range(entity.start, entity.end)):
            taken.update(range(entity.start, entity.end))
            kept.append(entity)
    return sorted(kept, key=lambda one: one.start)


@cache
def shipped_entity_network() -> Tagger:
    """The network trained on the open NER sets (``python -m bench.notes.train_entities``)."""
    from safetensors.torch import load

    from synclave_shared.text.tagger import Tagger

    packed = (files("synclave_shared.text") / "data" / "entity-tagger.safetensors").read_bytes()
    network = Tagger(len(ENTITY_TAGS))
    network.load_state_dict({name: array.float() for name, array in load(packed).items()})
    return network.eval().requires_grad_(False)
