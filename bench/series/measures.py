"""What one cohort of series scores against the held-out patients; the same functions as ``synclave evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.series.folder import SeriesFolder
from synclave_server.evaluation.comparison import Table, oppose
from synclave_server.evaluation.disclosure import MEMBER_PATIENTS, membership
from synclave_server.evaluation.downstream import fit, label_tasks
from synclave_server.evaluation.fidelity import discriminator
from synclave_server.evaluation.series.classifiers import series_classifiers
from synclave_server.evaluation.series.courses import courses, independent_courses, nearness
from synclave_server.evaluation.series.fidelity import autocorrelation_error, correlations

__all__ = ["MEASURES", "MODELS", "Judge"]

MODELS: Final = ("logistic", "boosting", "recurrent")
"""Downstream models, of ``series_classifiers``."""

MEASURES: Final = {
    **{
        f"tstr_{key}_{area}": f"TSTR AUROC, {key}" if area == "auroc" else "AUPRC"
        for key in MODELS
        for area in ("auroc", "auprc")
    },
    "discriminator": "discriminator AUROC",
    "correlation": "channel correlations",
    "autocorrelation": "autocorrelation error",
    "membership": "membership AUROC",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Held-out patients and the rules by which cohorts are compared with them.

    Attributes:
        reference: the held-out patients.
        train: the training patients.
        other: as many of them as a contender has patients (ceiling).
        independent: ``other`` with every channel drawn on its own within each label (floor).
        label_values: of the schema.
        seed: of every subsample and classifier.
    """

    reference: Table
    train: Table
    other: Table
    independent: Table
    label_values: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, data: SeriesFolder, seed: int) -> Judge:
        """Of the held-out patients; the subsamples are those of the report with this seed."""
        real, train = courses(data.held_out), courses(data.train)
        chosen = oppose(real, real, train, independent_courses(data.schema.groups), np.random.default_rng([seed, 0]))
        return cls(
            reference=chosen.reference,
            train=train,
            other=chosen.other_real,
            independent=chosen.independent,
            label_values=tuple(data.schema.label.values),
            seed=seed,
        )

    @property
    def patients(self) -> int:
        """How many patients a contender has to draw."""
        return len(self.other)

    def score(self, contender: Table) -> dict[str, float | None]:
        """Each of :data:`MEASURES` but membership; None where it is not defined."""
        rng = np.random.default_rng([self.seed, 12])
        task = label_tasks(self.reference, self.label_values)[0]
        scores: dict[str, float | None] = {}
        for key in MODELS:
            fitted = fit(series_classifiers(self.seed)[key][1], task.examples(contender))
            auroc, auprc, *_ = fitted.judge(task.examples(self.reference), "the held-out patients", rng)
            scores |= {f"tstr_{key}_auroc": auroc.value, f"tstr_{key}_auprc": auprc.value}
        sides = [
            Table(features=table.features["summary"], labels=table.labels) for table in (self.reference, contender)
        ]
        boosting = series_classifiers(self.seed)["boosting"][1]
        return scores | {
            "discriminator": discriminator(sides[0], sides[1], boosting, rng).value,
            "correlation": correlations(self.reference, contender)[0].value,
            "autocorrelation": autocorrelation_error(self.reference, contender).value,
        }

    def membership(self, contender: Table) -> float | None:
        """How well the nearest of these patients tells training from held-out patients, AUROC."""
        rng = np.random.default_rng([self.seed, 13])
        size = min(len(self.train), len(self.reference), MEMBER_PATIENTS)
        members, strangers = (table.sample(size, rng) for table in (self.train, self.reference))
        return membership(contender, members, strangers, rng, nearness(self.reference)).value
