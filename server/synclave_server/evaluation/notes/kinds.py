"""Can a classifier learn from synthetic notes what kind of note a real one is?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.downstream import MINIMUM_PER_CLASS
from synclave_server.evaluation.measure import Measure, Reading, defined, undefined
from synclave_server.evaluation.notes.classifiers import note_classifiers
from synclave_server.evaluation.notes.writings import notes_of
from synclave_server.evaluation.ranking import BOOTSTRAPS
from synclave_server.evaluation.utility import SECTION

__all__ = ["kind_measures", "told_kinds"]

MODEL: Final = "logistic"


def kind_measures(
    comparison: Comparison, types: Sequence[str], seed: int, progress: Callable[[str], None]
) -> list[Measure]:
    """Accuracy and macro F1 over note types of a classifier trained on each contender and tested on the reference.

    Types of which a synthetic patient has no note count as errors where a real note is of them. None without types.
    """
    if not types:
        return []
    progress("train on synthetic, test on real: types of notes")
    rng = np.random.default_rng([seed, 8])
    truth = _types(comparison.reference)
    scores = [told_kinds(table, comparison.reference, truth, seed, rng) for table in comparison.contenders()]
    return [
        Measure(
            key=f"type_{key}",
            title=f"Type of a note: weights of words, {name}",
            section=SECTION,
            aim="one",
            value=scores[0][place],
            ceiling=scores[1][place],
            floor=scores[2][place],
        )
        for place, (key, name) in enumerate((("accuracy", "accuracy"), ("macro_f1", "macro F1")))
    ]


def told_kinds(
    learnt: Table, test: Table, truth: NDArray[np.str_], seed: int, rng: np.random.Generator
) -> tuple[Reading, Reading]:
    """Accuracy and macro F1 on ``test``, with 95 % intervals over its resampled notes."""
    types = _types(learnt)
    if len(np.unique(types)) < 2 or len(types) < 2 * MINIMUM_PER_CLASS:
        few = undefined("notes of one type only, or too few")
        return few, few
    model = note_classifiers(seed)[MODEL][1].fit(learnt.features, types)
    told = model.predict(test.features)
    picks = [np.arange(len(truth)), *rng.integers(len(truth), size=(BOOTSTRAPS, len(truth)))]
    found = []
    for score in (_accuracy, _macro_f1):
        value, *again = (score(truth[pick], told[pick]) for pick in picks)
        low, high = np.percentile(again, (2.5, 97.5))
        found.append(defined(value, (float(low), float(high))))
    return found[0], found[1]


def _accuracy(truth: NDArray[np.str_], told: NDArray[np.str_]) -> float:
    return float((truth == told).mean())


def _macro_f1(truth: NDArray[np.str_], told: NDArray[np.str_]) -> float:
    """Mean F1 over the types that there are."""
    scores = [
        2 * ((truth == kind) & (told == kind)).sum() / ((truth == kind).sum() + (told == kind).sum())
        for kind in np.unique(truth)
    ]
    return float(np.mean(scores))


def _types(table: Table) -> NDArray[np.str_]:
    return np.array([note.type for note in notes_of(table)])
