"""Classifiers of notes: one that weighs words, one that weighs pairs of words and so sees what stands beside what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from synclave_server.evaluation.comparison import Table
from synclave_server.evaluation.disclosure import Nearness
from synclave_server.evaluation.notes.writings import texts_of, words_of
from synclave_shared.data.notes.dataset import Note

__all__ = ["JUDGES", "QUICK_OF_NOTES", "hashed", "note_classifiers", "note_nearness"]

QUICK_OF_NOTES: Final = ("logistic",)
"""The classifier for what is fitted dozens of times."""
MOST_TERMS: Final = 30_000
"""Words or pairs of words that count, the most common ones."""
HASHED_TERMS: Final = 4096
JUDGES: Final = {"logistic": ("words", 1), "pairs": ("pairs of words", 2)}
"""What tells real from synthetic notes: name, and words of a run."""


def note_classifiers(seed: int) -> dict[str, tuple[str, Any]]:
    """Key -> (name in the report, unfitted model); they see :class:`Note` rows."""
    return {
        "logistic": ("weights of words", _weighing(1, seed)),
        "pairs": ("weights of word pairs", _weighing(2, seed)),
    }


def _weighing(run: int, seed: int) -> Any:
    """TF-IDF of runs of words, and logistic regression (L2, C = 10)."""
    return make_pipeline(
        TfidfVectorizer(analyzer=_runs(run), sublinear_tf=True, max_features=MOST_TERMS),
        LogisticRegression(C=10.0, max_iter=1000, random_state=seed),
    )


def _runs(run: int) -> Callable[[Note], list[str]]:
    def analyse(note: Note) -> list[str]:
        # A word that no text has: a note without any would leave nothing to fit on.
        words = ["\n", *words_of(note.text)]
        return words if run == 1 else [" ".join(pair) for pair in pairwise(words)] or words

    return analyse


def hashed(table: Table, run: int) -> Table:
    """Rows as TF-hashed runs of words, float32 [N, :data:`HASHED_TERMS`], each of length 1, for what wants columns."""
    vectors = HashingVectorizer(n_features=HASHED_TERMS, analyzer=_runs(run), alternate_sign=False)
    return Table(features=vectors.transform(table.features).toarray().astype(np.float32), labels=table.labels)


def note_nearness(cohorts: Sequence[Table], rng: np.random.Generator) -> Nearness:
    """Two notes are one if their words are; they are apart by 1 - cosine of TF-IDF.

    Args:
        cohorts: in which the rarity of words is counted, as many notes of each: were a word known from one side only,
            notes of the other would lie apart for that alone.
        rng: draws those notes.
    """
    size = min(map(len, cohorts))
    counted = np.concatenate([table.sample(size, rng).features for table in cohorts])
    vectors = TfidfVectorizer(analyzer=_runs(1), sublinear_tf=True, dtype=np.float32).fit(counted)

    def identity(table: Table) -> Iterable[bytes]:
        return (" ".join(words_of(text)).encode() for text in texts_of(table))

    def distance(rows: Table, others: Table) -> NDArray[np.float32]:
        left, right = csr_matrix(vectors.transform(rows.features)), csr_matrix(vectors.transform(others.features))
        found: NDArray[np.float32] = np.clip(1 - (left @ right.T).toarray(), 0, 1)
        # Equal notes are at distance 0, whatever rounding says.
        return np.where(found < 1e-6, np.float32(0), found)

    return Nearness(identity=identity, distance=distance)
