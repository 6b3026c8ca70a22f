"""Do synthetic patients help beside real ones? Train on real plus synthetic patients, test on held-out real ones.

The ceiling adds other real patients in the place of the synthetic ones, the floor independent columns. A share of 0 is
training on the real patients alone, the number that an augmentation has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from synclave_server.evaluation.classifiers import QUICK, Models, classifiers
from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.downstream import AREAS, fit, label_tasks
from synclave_server.evaluation.measure import Measure

__all__ = ["ALPHAS", "AUGMENTED_PATIENTS", "SECTION", "augmentation_key", "augmentation_measures"]

ALPHAS: Final = (0.0, 0.2, 0.5, 1.0)
"""Added patients per real patient."""
AUGMENTED_PATIENTS: Final = 2_000
"""Most real patients to start from: help is wanted where patients are few."""
SECTION: Final = "Augmentation"


def augmentation_key(classifier: str, area: str, value: str, alpha: float) -> str:
    """Key of a measure: ``augmented_forest_auprc[yes, 0.5]``."""
    return f"augmented_{classifier}_{area}[{value}, {alpha:g}]"


def augmentation_measures(
    comparison: Comparison,
    train: Table | None,
    label_name: str,
    label_values: Sequence[str],
    seed: int,
    progress: Callable[[str], None],
    models: Models = classifiers,
    quick: Sequence[str] = QUICK,
) -> list[Measure]:
    """AUROC and AUPRC per label value, quick classifier and share; none without ``train`` (real training patients).

    Half of the training patients, at most :data:`AUGMENTED_PATIENTS`, are the real ones; as many others are what the
    ceiling adds. Added patients of a smaller share are among those of a larger one.
    """
    if train is None or len(train) < 2:
        return []
    rng = np.random.default_rng([seed, 5])
    size = min(len(train) // 2, len(comparison.synthetic), AUGMENTED_PATIENTS)
    order = rng.permutation(len(train))
    real, other = train.take(order[:size]), train.take(order[size : 2 * size])
    added = [
        other if cohort is comparison.other_real else _few(cohort, size, rng) for cohort in comparison.contenders()
    ]
    measures = []
    for task in label_tasks(comparison.reference, label_values):
        test = task.examples(comparison.reference)
        for key in quick:
            name = models(seed)[key][0]
            progress(f"train on real and synthetic: {name}")
            for alpha in ALPHAS:
                count = round(alpha * size)
                parts = [table.take(np.arange(count)) for table in (added if count else added[:1])]
                fitted = [fit(models(seed)[key][1], task.examples(real).then(task.examples(part))) for part in parts]
                scores = [model.judge(test, "the real test patients", rng) for model in fitted]
                if count == 0:  # nothing is added: the three are one
                    scores *= 3
                for place, area in enumerate(AREAS):
                    value, ceiling, floor = (score[place] for score in scores)
                    measures.append(
                        Measure(
                            key=augmentation_key(key, area, task.value, alpha),
                            title=f"{label_name} = {task.value}: {name}, {size:,} real and {count:,} added patients, "
                            f"{area.upper()}",
                            section=SECTION,
                            aim="one",
                            value=value,
                            ceiling=ceiling,
                            floor=floor,
                        )
                    )
    return measures


def _few(cohort: Table, patients: int, rng: np.random.Generator) -> Table:
    """``patients`` of the cohort in random order, so that its first rows are a fair part of it."""
    return cohort.take(rng.permutation(len(cohort))[:patients])
