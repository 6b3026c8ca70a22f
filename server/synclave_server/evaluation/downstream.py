"""A classifier fitted to some patients and judged on others: what all measures of use have in common.

Legend: N patients, F columns that the classifier may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.calibration import calibration
from synclave_server.evaluation.comparison import Table
from synclave_server.evaluation.measure import Reading, defined, undefined
from synclave_server.evaluation.ranking import ranking_quality

__all__ = ["AREAS", "CALIBRATION", "MINIMUM_PER_CLASS", "Examples", "Fitted", "LabelTask", "fit", "label_tasks"]

AREAS: Final = {"auroc": "AUROC", "auprc": "AUPRC"}
"""How well patients are ranked: the first that :meth:`Fitted.judge` measures, in its order, with their names."""
CALIBRATION: Final = {"brier": "Brier score", "ece": "calibration error"}
"""How well probabilities are met: the ones that follow."""
MINIMUM_PER_CLASS: Final = 5
"""Fewest patients of each class, in training and in test, for which a classifier is fitted and judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Patients as questions with answers.

    Attributes:
        features: uint8 [N, F], or one record per patient [N].
        positive: bool [N].
    """

    features: NDArray[Any]
    positive: NDArray[np.bool_]

    def then(self, others: Examples) -> Examples:
        """These patients followed by ``others``."""
        return Examples(
            features=np.concatenate([self.features, others.features]),
            positive=np.concatenate([self.positive, others.positive]),
        )

    def few(self, where: str) -> str | None:
        """Why ``where`` has too few patients of a class to learn or judge; None if it has enough."""
        fewest = int(min(self.positive.sum(), (~self.positive).sum()))
        if fewest >= MINIMUM_PER_CLASS:
            return None
        return (
            f"{fewest} of {len(self.positive)} patients in the smaller class of {where}; at least "
            f"{MINIMUM_PER_CLASS} needed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTask:
    """One classification: is the label ``value`` or not?

    Attributes:
        value: the positive label's name.
        position: its position among the schema's label values.
        base_rate: its share among the reference patients, the AUPRC of guessing.
    """

    value: str
    position: int
    base_rate: float

    def examples(self, table: Table) -> Examples:
        """All columns, and whether the label is ``value``."""
        return Examples(features=table.features, positive=table.labels == self.position)


def label_tasks(reference: Table, label_values: Sequence[str]) -> list[LabelTask]:
    """One task per label value; of two values only the rarer, because the other one is its mirror image."""
    counts = np.bincount(reference.labels, minlength=len(label_values))
    positions = [int(np.argmin(counts[::-1]) == 0)] if len(label_values) == 2 else list(range(len(label_values)))
    return [
        LabelTask(value=label_values[position], position=position, base_rate=float(counts[position] / len(reference)))
        for position in positions
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted classifier, or the reason why there is none.

    Attributes:
        model: has ``predict_proba``.
        reason: why it could not be fitted; None if it could.
    """

    model: Any
    reason: str | None

    def judge(self, test: Examples, where: str, rng: np.random.Generator) -> tuple[Reading, ...]:
        """AUROC, AUPRC, Brier score and expected calibration error on ``test``, which a reason calls ``where``.

        ``rng`` resamples it for the intervals.
        """
        reason = self.reason or test.few(where)
        if reason is not None:
            return (undefined(reason),) * 4
        scores: NDArray[np.float64] = self.model.predict_proba(test.features)[:, 1].astype(np.float64)
        (auroc, auroc_interval), (auprc, auprc_interval) = ranking_quality(test.positive, scores, rng)
        return defined(auroc, auroc_interval), defined(auprc, auprc_interval), *calibration(test.positive, scores, rng)


def fit(model: Any, examples: Examples) -> Fitted:
    """Fit an unfitted ``model``, which from then on belongs to the result."""
    reason = examples.few("the training cohort")
    return Fitted(model=model.fit(examples.features, examples.positive) if reason is None else None, reason=reason)
