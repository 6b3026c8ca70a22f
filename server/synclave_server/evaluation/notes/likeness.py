"""Do synthetic notes read like real ones, and do they say as much and as varied? Every measure of words and medicine.

Legend: N notes, D words that enough notes have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from sklearn.linear_model import LogisticRegression

from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.fidelity import (
    MINIMUM_CARRIERS,
    compared_pairs,
    correlation_agreement,
    discriminator,
    prevalence,
)
from synclave_server.evaluation.measure import Aim, Measure, Reading, defined, undefined
from synclave_server.evaluation.notes.classifiers import JUDGES, hashed
from synclave_server.evaluation.notes.diversity import distinct_n, self_bleu
from synclave_server.evaluation.notes.fluency import reading_ease
from synclave_server.evaluation.notes.ngrams import CountedWords
from synclave_server.evaluation.notes.writings import texts_of, words_of
from synclave_shared.text.entities import EntityFinder, EntityKind, shipped_entity_network

__all__ = ["ENTITY_NOTES", "KINDS", "MEDICINE", "VARIED_NOTES", "Mentions", "likeness_measures", "mentions_of"]

SECTION: Final = "Fidelity"
VARIETY: Final = "Variety and style"
MEDICINE: Final = "Medical content"

VARIED_NOTES: Final = 400
"""Notes whose variety is measured: self-BLEU and shares of different runs hang on how many there are."""
ENTITY_NOTES: Final = 300
"""Notes in which clinical mentions are found."""
COMPARED_WORDS: Final = 1_500
"""Most common words whose prevalences and correlations are compared."""
KINDS: Final = (EntityKind.PROBLEM, EntityKind.TEST, EntityKind.TREATMENT, EntityKind.DRUG)
"""Kinds of clinical mentions that are counted by what they say; doses and values are numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """All columns of a table as one group of 0/1 columns."""

    stop: int
    start: int = 0
    kind: str = "binary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentions:
    """Clinical mentions of some notes.

    Attributes:
        counts: kind -> how often each is mentioned, in small letters.
        words: of all those notes.
    """

    counts: Mapping[EntityKind, Counter[str]]
    words: int

    def per_100_words(self, kind: EntityKind) -> float:
        """How densely a kind is mentioned; NaN without a word."""
        return 100 * self.counts[kind].total() / self.words if self.words else math.nan


def mentions_of(texts: Sequence[str]) -> Mentions:
    """What the shipped finder finds in some texts."""
    finder = EntityFinder(network=shipped_entity_network())
    counts: dict[EntityKind, Counter[str]] = {kind: Counter() for kind in EntityKind}
    for text in texts:
        for found in finder.find(text):
            counts[found.kind][" ".join(words_of(text[found.start : found.end]))] += 1
    return Mentions(counts=counts, words=sum(len(words_of(text)) for text in texts))


def likeness_measures(
    comparison: Comparison, seed: int, progress: Callable[[str], None]
) -> tuple[list[Measure], dict[str, Mentions]]:
    """All of them in the order of the report; and the mentions of reference and contenders by name."""
    rng = np.random.default_rng([seed, 1])
    reference, contenders = comparison.reference, list(comparison.contenders())
    progress("words")
    measures = [_lengths(reference, contenders), *_words(reference, contenders)]
    for key, (name, run) in JUDGES.items():
        progress(f"discriminator: {name}")
        model = LogisticRegression(C=10.0, max_iter=1000)
        readings = [discriminator(hashed(reference, run), hashed(table, run), model, rng) for table in contenders]
        measures.append(_measure(f"discriminator_{key}", f"Discriminator on {name}, AUROC", "half", readings))
    progress("variety and style")
    measures += _variety(comparison, rng)
    progress("clinical mentions")
    found, mentions = _medicine(comparison, rng)
    return [*measures, *found], mentions


def _lengths(reference: Table, contenders: Sequence[Table]) -> Measure:
    truth, *others = (_word_counts(table) for table in (reference, *contenders))
    spread = float(truth.std())
    few = undefined("all real notes are equally long")
    readings = [defined(wasserstein_distance(truth, other) / spread) if spread else few for other in others]
    return _measure("length_wasserstein", "Words of a note, Wasserstein distance (SD)", "zero", readings)


def _word_counts(table: Table) -> NDArray[np.float64]:
    return np.array([len(words_of(text)) for text in texts_of(table)], dtype=np.float64)


def _words(reference: Table, contenders: Sequence[Table]) -> list[Measure]:
    """Which words stand in how many notes, and which ones together."""
    bags = [[set(words_of(text)) for text in texts_of(table)] for table in (reference, *contenders)]
    common = Counter(word for bag in bags[0] for word in bag).most_common(COMPARED_WORDS)
    place = {word: number for number, (word, _) in enumerate(common)}
    tables = []
    for table, own in zip((reference, *contenders), bags, strict=True):
        rows = np.zeros((len(own), max(1, len(place))), dtype=np.uint8)
        for row, bag in enumerate(own):
            rows[row, [place[word] for word in bag if word in place]] = 1
        tables.append(Table(features=rows, labels=table.labels))
    truth, *others = tables
    agreement = [prevalence(truth, other) for other in others]
    chosen = compared_pairs(truth, [_Whole(stop=truth.features.shape[1])])
    together = [correlation_agreement(truth, other, *chosen)[0] for other in others]
    return [
        _measure("prevalence_log_r2", "Words: share of notes on a log scale, R²", "one", [a.log_r2 for a in agreement]),
        _measure("correlation_pearson", "Words in the same note: correlations, Pearson", "one", together),
    ]


def _variety(comparison: Comparison, rng: np.random.Generator) -> list[Measure]:
    """Quotients to the reference: above 1 is as wrong as below."""
    size = min(VARIED_NOTES, len(comparison.reference), len(comparison.synthetic))
    real, *others = (texts_of(table.sample(size, rng)) for table in (comparison.reference, *comparison.contenders()))

    def quotients(score: Callable[[Sequence[str]], float]) -> list[Reading]:
        truth = score(real)
        if not truth > 0:
            return [undefined("the real notes have no such number")] * len(others)
        return [defined(score(other) / truth) for other in others]

    # Its reader learns from one half of the other real notes; the other half is the ceiling.
    learnt = comparison.other_real
    half = np.arange(len(learnt)) % 2 == 0
    reader = CountedWords(texts_of(learnt.take(np.flatnonzero(half))))
    expected = reader.nats(texts_of(comparison.reference))
    asked = [comparison.synthetic, learnt.take(np.flatnonzero(~half)), comparison.independent]
    surprise = [
        defined(reader.nats(texts_of(table)) / expected) if expected > 0 else undefined("no words") for table in asked
    ]
    ease = [np.array([reading_ease(text) for text in texts]) for texts in (real, *others)]
    truth, *eases = (part[np.isfinite(part)] for part in ease)
    reading = [
        defined(wasserstein_distance(truth, part)) if len(truth) and len(part) else undefined("no words")
        for part in eases
    ]
    return [
        _measure(
            "self_bleu",
            "Self-BLEU: how alike notes are, / real",
            "same",
            quotients(self_bleu),
            section=VARIETY,
            resolution=0.05,
        ),
        *(
            _measure(
                f"distinct_{run}",
                f"Different runs of {run} words, / real",
                "same",
                quotients(lambda texts, run=run: distinct_n(texts, run)),  # type: ignore[misc]
                section=VARIETY,
                resolution=0.05,
            )
            for run in (1, 2, 3)
        ),
        _measure(
            "word_surprise",
            "Surprise per word to a reader of other real notes, / real",
            "same",
            surprise,
            section=VARIETY,
        ),
        _measure(
            "reading_ease_wasserstein",
            "Reading ease, Wasserstein distance (points)",
            "zero",
            reading,
            section=VARIETY,
            resolution=1.0,
        ),
    ]


def _medicine(comparison: Comparison, rng: np.random.Generator) -> tuple[list[Measure], dict[str, Mentions]]:
    size = min(ENTITY_NOTES, len(comparison.reference), len(comparison.synthetic))
    names = ("real", "synthetic", "other", "independent")
    tables = (comparison.reference, *comparison.contenders())
    mentions = {name: mentions_of(texts_of(table.sample(size, rng))) for name, table in zip(names, tables, strict=True)}
    truth, *others = mentions.values()
    measures = []
    for kind in KINDS:
        readings = [_overlap(truth.counts[kind], other.counts[kind]) for other in others]
        title = f"What is mentioned, {kind.value}s: overlap of frequencies"
        measures.append(_measure(f"entity_overlap[{kind.value}]", title, "one", readings, section=MEDICINE))
    for kind in EntityKind:
        expected = truth.per_100_words(kind)
        readings = [
            defined(other.per_100_words(kind) / expected) if expected > 0 else undefined(f"no {kind.value}")
            for other in others
        ]
        title = f"How densely, {kind.value}s per word, / real"
        measures.append(
            _measure(f"entity_density[{kind.value}]", title, "same", readings, section=MEDICINE, resolution=0.05)
        )
    return measures, mentions


def _overlap(truth: Counter[str], found: Counter[str]) -> Reading:
    """Sum over mentions of the smaller of their two shares: 1 less the total variation distance."""
    if truth.total() < MINIMUM_CARRIERS:
        return undefined(f"fewer than {MINIMUM_CARRIERS} mentions in the real notes")
    if not found:
        return defined(0.0)
    return defined(sum(min(count / truth.total(), found[name] / found.total()) for name, count in truth.items()))


def _measure(
    key: str, title: str, aim: Aim, readings: Sequence[Reading], *, section: str = SECTION, resolution: float = 0.02
) -> Measure:
    value, ceiling, floor = readings
    return Measure(
        key=key, title=title, section=section, aim=aim, value=value, ceiling=ceiling, floor=floor, resolution=resolution
    )
