"""Are synthetic patients of use? Train a classifier of the label on them, test it on real patients.

Beside it stand the same classifier trained on as many real patients (ceiling) and on independent columns (floor).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.classifiers import classifiers
from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.measure import Measure, Reading, defined, undefined
from synclave_server.evaluation.ranking import ranking_quality

__all__ = ["MINIMUM_PER_CLASS", "Task", "tasks", "utility_measures"]

MINIMUM_PER_CLASS: Final = 5
"""Fewest patients of each class, in training and in test, for which a classifier is fitted and judged."""
SECTION: Final = "Utility"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One classification: is the label ``value`` or not?

    Attributes:
        value: the positive label's name.
        position: its position among the schema's label values.
        base_rate: its share among the reference patients, the AUPRC of guessing.
    """

    value: str
    position: int
    base_rate: float


def tasks(reference: Table, label_values: Sequence[str]) -> list[Task]:
    """One task per label value; of two values only the rarer, because the other one is its mirror image."""
    counts = np.bincount(reference.labels, minlength=len(label_values))
    positions = [int(np.argmin(counts[::-1]) == 0)] if len(label_values) == 2 else list(range(len(label_values)))
    return [
        Task(value=label_values[position], position=position, base_rate=float(counts[position] / len(reference)))
        for position in positions
    ]


def _score(train: Table, test: Table, task: Task, model: Any, rng: np.random.Generator) -> tuple[Reading, Reading]:
    wanted, truth = train.labels == task.position, test.labels == task.position
    for where, classes in (("the training cohort", wanted), ("the real test patients", truth)):
        fewest = int(min(classes.sum(), (~classes).sum()))
        if fewest < MINIMUM_PER_CLASS:
            reason = (
                f"{fewest} of {len(classes)} patients in the smaller class of {where}; at least "
                f"{MINIMUM_PER_CLASS} needed"
            )
            return undefined(reason), undefined(reason)
    model.fit(train.features, wanted)
    scores: NDArray[np.float64] = model.predict_proba(test.features)[:, 1].astype(np.float64)
    (auroc, auroc_interval), (auprc, auprc_interval) = ranking_quality(truth, scores, rng)
    return defined(auroc, auroc_interval), defined(auprc, auprc_interval)


def utility_measures(
    comparison: Comparison, label_name: str, label_values: Sequence[str], seed: int, progress: Callable[[str], None]
) -> list[Measure]:
    """AUROC and AUPRC on the reference patients per label and model; value, ceiling, floor = what was trained on."""
    rng = np.random.default_rng([seed, 2])
    measures = []
    for task in tasks(comparison.reference, label_values):
        for key, (name, model) in classifiers(seed).items():
            progress(f"train on synthetic, test on real: {name}")
            scores = [
                _score(contender, comparison.reference, task, model, rng) for contender in comparison.contenders()
            ]
            for place, area in enumerate(("auroc", "auprc")):
                value, ceiling, floor = (score[place] for score in scores)
                measures.append(
                    Measure(
                        key=f"tstr_{key}_{area}[{task.value}]",
                        title=f"{label_name} = {task.value}: {name}, {area.upper()}",
                        section=SECTION,
                        aim="one",
                        value=value,
                        ceiling=ceiling,
                        floor=floor,
                    )
                )
    return measures
