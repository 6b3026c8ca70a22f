"""The classifiers of time series: two that see a summary of the course, one that reads it step by step."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from synclave_server.evaluation.classifiers import BOOSTED_TREES, LEAF
from synclave_server.evaluation.series.recurrent import RecurrentClassifier

__all__ = ["QUICK_OF_SERIES", "OnSummaries", "series_classifiers"]

QUICK_OF_SERIES: Final = ("logistic", "boosting")
"""Classifiers for what is fitted dozens of times."""
BINS: Final = 63
"""Steps of a number that boosting tells apart."""


class OnSummaries:
    """A classifier of scikit-learn that sees the summaries of records, or rows of numbers as they are."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._known: NDArray[np.intp] = np.zeros(0, dtype=np.intp)

    def fit(self, features: NDArray[Any], positive: NDArray[np.bool_]) -> Self:
        """Fit on records [N] or numbers [N, F], NaN where there is none, and a class per patient [N]."""
        numbers = _numbers(features)
        # Of a channel that nobody has there is nothing to learn, and some models stumble over it.
        self._known = np.flatnonzero(np.isfinite(numbers).any(axis=0))
        self._model.fit(numbers[:, self._known], positive)
        return self

    def predict_proba(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities of False and True [N, 2]."""
        probabilities: NDArray[np.float64] = self._model.predict_proba(_numbers(features)[:, self._known])
        return probabilities


def series_classifiers(seed: int) -> dict[str, tuple[str, Any]]:
    """Key -> (name in the report, unfitted model)."""
    weighed = make_pipeline(
        SimpleImputer(),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=500),
    )
    boosted = HistGradientBoostingClassifier(
        max_iter=BOOSTED_TREES,
        max_leaf_nodes=15,
        min_samples_leaf=LEAF,
        max_bins=BINS,
        early_stopping=False,
        random_state=seed,
    )
    return {
        "logistic": ("logistic regression", OnSummaries(weighed)),
        "boosting": ("gradient boosting", OnSummaries(boosted)),
        "recurrent": ("recurrent network", RecurrentClassifier(seed)),
    }


def _numbers(features: NDArray[Any]) -> NDArray[Any]:
    numbers: NDArray[Any] = features["summary"] if features.dtype.names else features
    return numbers
