"""What one cohort scores against the held-out patients; the same functions as ``synclave evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synclave_server.evaluation.classifiers import classifiers
from synclave_server.evaluation.comparison import MAX_PATIENTS, Columns, Table, independent_columns
from synclave_server.evaluation.downstream import label_tasks
from synclave_server.evaluation.fidelity import (
    MMD_PATIENTS,
    compared_pairs,
    correlation_agreement,
    discriminator,
    kernel_bandwidth,
    mmd_squared,
    prevalence,
    rare_code_mass,
)
from synclave_server.evaluation.ranking import ranking_quality
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema

__all__ = ["MEASURES", "Judge", "table_of"]

MEASURES = {
    "prevalence_r2": "prevalence R²",
    "log_r2": "log R²",
    "rare_mass": "rare codes, synthetic / real",
    "correlation": "correlations, Pearson",
    "mmd": "MMD² · 1000",
    "discriminator": "discriminator AUROC",
    "tstr_logistic": "TSTR AUROC, logistic",
    "tstr_boosting": "TSTR AUROC, boosting",
}


def table_of(patients: PatientDataset) -> Table:
    return Table(features=patients.features[:], labels=patients.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Held-out patients and the rules by which cohorts are compared with them.

    Attributes:
        reference: the held-out patients.
        other: as many real training patients (ceiling).
        groups, label_values: of the schema.
        seed: of every subsample and classifier.
    """

    reference: Table
    other: Table
    groups: Sequence[Columns]
    label_values: Sequence[str]
    seed: int

    @classmethod
    def of(cls, train: PatientDataset, test: PatientDataset, schema: Schema, seed: int) -> Judge:
        rng = np.random.default_rng([seed, 10])
        reference = table_of(test).sample(MAX_PATIENTS, rng)
        return cls(
            reference=reference,
            other=table_of(train).sample(len(reference), rng),
            groups=schema.groups,
            label_values=schema.label.values,
            seed=seed,
        )

    @property
    def patients(self) -> int:
        """How many patients a contender has to draw."""
        return len(self.other)

    def independent(self) -> Table:
        """Real columns drawn independently within each label (floor)."""
        return independent_columns(self.other, self.groups, np.random.default_rng([self.seed, 11]))

    def score(self, contender: Table) -> dict[str, float | None]:
        """Each of :data:`MEASURES`; None where it is not defined."""
        rng = np.random.default_rng([self.seed, 12])
        columns, pairs = compared_pairs(self.reference, self.groups)
        agreement = prevalence(self.reference, contender)
        near = [side.sample(MMD_PATIENTS, rng) for side in (self.reference, contender)]
        distance = mmd_squared(near[0], near[1], kernel_bandwidth(near[0])).value
        boosting = classifiers(self.seed)["boosting"][1]
        scores = {
            "prevalence_r2": agreement.r2.value,
            "log_r2": agreement.log_r2.value,
            "rare_mass": rare_code_mass(self.reference, contender).value,
            "correlation": correlation_agreement(self.reference, contender, columns, pairs)[0].value,
            "mmd": None if distance is None else 1000.0 * distance,
            "discriminator": discriminator(self.reference, contender, boosting, rng).value,
        }
        task = label_tasks(self.reference, self.label_values)[0]
        truth = self.reference.labels == task.position
        wanted = contender.labels == task.position
        for key, (_, model) in classifiers(self.seed).items():
            if min(wanted.sum(), (~wanted).sum()) < 5:
                scores[f"tstr_{key}"] = None
                continue
            model.fit(contender.features, wanted)
            guessed = model.predict_proba(self.reference.features)[:, 1].astype(np.float64)
            scores[f"tstr_{key}"] = ranking_quality(truth, guessed, rng)[0][0]
        return scores
