"""Are synthetic patients of use, and do their labels hold? Train on one cohort, test on another.

Trained on synthetic patients and tested on real ones, beside the same classifier trained on as many real patients
(ceiling) and on independent columns (floor). And the other way round: a classifier that has learnt from real patients
what the label looks like is shown synthetic ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from synclave_server.evaluation.classifiers import Models, classifiers
from synclave_server.evaluation.comparison import Comparison
from synclave_server.evaluation.downstream import AREAS, CALIBRATION, fit, label_tasks
from synclave_server.evaluation.measure import Measure

__all__ = ["HOLDING", "SECTION", "utility_measures"]

SECTION: Final = "Utility"
HOLDING: Final = "Do labels hold"
REAL_TEST: Final = "the real test patients"


def utility_measures(
    comparison: Comparison,
    label_name: str,
    label_values: Sequence[str],
    seed: int,
    progress: Callable[[str], None],
    models: Models = classifiers,
) -> list[Measure]:
    """Per label value and classifier: AUROC, AUPRC and calibration on the reference after training on the contenders.

    Then the AUROC on value, ceiling and floor after training on real patients.
    """
    rng = np.random.default_rng([seed, 2])
    use, hold = [], []
    for task in label_tasks(comparison.reference, label_values):
        for key, (name, _) in models(seed).items():
            progress(f"train on synthetic, test on real: {name}")
            fitted = [fit(models(seed)[key][1], task.examples(cohort)) for cohort in comparison.contenders()]
            test = task.examples(comparison.reference)
            scores = [model.judge(test, REAL_TEST, rng) for model in fitted]
            for place, (area, title) in enumerate({**AREAS, **CALIBRATION}.items()):
                value, ceiling, floor = (score[place] for score in scores)
                use.append(
                    Measure(
                        key=f"tstr_{key}_{area}[{task.value}]",
                        title=f"{label_name} = {task.value}: {name}, {title}",
                        section=SECTION,
                        aim="one" if area in AREAS else "zero",
                        value=value,
                        ceiling=ceiling,
                        floor=floor,
                        resolution=0.02 if area in AREAS else 0.005,
                    )
                )
            taught = fitted[1]
            hold.append(
                Measure(
                    key=f"trts_{key}_auroc[{task.value}]",
                    title=f"{label_name} = {task.value}, seen by {name} that learnt it from real patients, AUROC",
                    section=HOLDING,
                    aim="one",
                    value=taught.judge(task.examples(comparison.synthetic), "the synthetic patients", rng)[0],
                    ceiling=scores[1][0],
                    floor=taught.judge(task.examples(comparison.independent), "the floor", rng)[0],
                )
            )
    return [*use, *hold]
