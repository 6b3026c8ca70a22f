"""The classifiers of the report: one that weighs single columns, two that see how they go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

__all__ = ["DISCRIMINATORS", "QUICK", "BoostedTrees", "Forest", "Models", "WeighedColumns", "classifiers"]

LEAF: Final = 20
"""Fewest patients in a leaf of a boosted tree."""
FOREST_LEAF: Final = 10
"""Fewest patients in a leaf of the forest: its trees are averaged, so each may be deeper."""
BOOSTED_TREES: Final = 60
FOREST_TREES: Final = 40
DISCRIMINATORS: Final = ("logistic", "boosting")
"""Classifiers that tell real from synthetic patients."""
QUICK: Final = ("logistic", "forest")
"""Classifiers for what is fitted dozens of times: one of either kind, seconds altogether."""

Models = Callable[[int], Mapping[str, tuple[str, Any]]]
"""Seed -> key -> (name in the report, unfitted model)."""


class WeighedColumns:
    """Logistic regression (L2, C = 0.1) on a sparse copy of the columns.

    Patients have few of many codes, so products with the sparse copy are several times faster. Newton's steps by
    conjugate gradients need nothing else; L-BFGS spends its time on small dense steps.
    """

    def __init__(self) -> None:
        self._model = LogisticRegression(C=0.1, solver="newton-cg", max_iter=1000)

    def fit(self, features: NDArray[np.uint8], positive: NDArray[np.bool_]) -> Self:
        """Fit on features [N, D] and a class per patient [N]."""
        self._model.fit(csr_matrix(features, dtype=np.float64), positive)
        return self

    def predict_proba(self, features: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities of False and True [N, 2]."""
        probabilities: NDArray[np.float64] = self._model.predict_proba(csr_matrix(features, dtype=np.float64))
        return probabilities


def _splittable(features: NDArray[np.uint8], leaf: int) -> NDArray[np.intp]:
    """Columns with at least ``leaf`` ones and as many zeros; the first column if there is none."""
    ones = features.sum(axis=0, dtype=np.int64)
    columns = np.flatnonzero((ones >= leaf) & (len(features) - ones >= leaf))
    return columns if len(columns) else np.arange(min(1, features.shape[1]))


class BoostedTrees:
    """Gradient boosting on those 0/1 columns that a tree can split on.

    A column with fewer than :data:`LEAF` ones, or zeros, cannot be split without too small a leaf. Leaving it out
    changes no tree and saves most of the time: vocabularies are wide and most codes are rare.
    """

    def __init__(self, seed: int) -> None:
        self._model = HistGradientBoostingClassifier(
            max_iter=BOOSTED_TREES, max_leaf_nodes=15, min_samples_leaf=LEAF, early_stopping=False, random_state=seed
        )
        self._columns: NDArray[np.intp] = np.zeros(0, dtype=np.intp)

    def fit(self, features: NDArray[np.uint8], positive: NDArray[np.bool_]) -> Self:
        """Fit on features [N, D] and a class per patient [N]."""
        self._columns = _splittable(features, LEAF)
        self._model.fit(features[:, self._columns], positive)
        return self

    def predict_proba(self, features: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities of False and True [N, 2]."""
        probabilities: NDArray[np.float64] = self._model.predict_proba(features[:, self._columns])
        return probabilities


class Forest:
    """A random forest on the columns that a tree can split on: deep trees of random patients and columns, averaged."""

    def __init__(self, seed: int) -> None:
        self._model = RandomForestClassifier(FOREST_TREES, min_samples_leaf=FOREST_LEAF, random_state=seed)
        self._columns: NDArray[np.intp] = np.zeros(0, dtype=np.intp)

    def fit(self, features: NDArray[np.uint8], positive: NDArray[np.bool_]) -> Self:
        """Fit on features [N, D] and a class per patient [N]."""
        self._columns = _splittable(features, FOREST_LEAF)
        self._model.fit(features[:, self._columns].astype(np.float32), positive)
        return self

    def predict_proba(self, features: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities of False and True [N, 2]."""
        probabilities: NDArray[np.float64] = self._model.predict_proba(features[:, self._columns].astype(np.float32))
        return probabilities


def classifiers(seed: int) -> dict[str, tuple[str, Any]]:
    """Key -> (name in the report, unfitted model)."""
    return {
        "logistic": ("logistic regression", WeighedColumns()),
        "boosting": ("gradient boosting", BoostedTrees(seed)),
        "forest": ("random forest", Forest(seed)),
    }
