"""What a finished run of kind ``scores`` tells: the sites' noisy histograms, and how well its clinical model does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.score_curves import Judgement, judge
from synclave_server.snapshots import Snapshot
from synclave_shared.data.modality import schema_from_json
from synclave_shared.data.schema import PatientSchema
from synclave_shared.errors import ConfigurationError, SnapshotError
from synclave_shared.model_size import parameters_of
from synclave_shared.plan import ScoresSpec, TrainPlan
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.score_histogram import BINS, histogram_size, outcomes, patient_weight

__all__ = ["OutcomeScores", "ScoredRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeScores:
    """How well one outcome is predicted.

    Attributes:
        value: the label value.
        together: of all sites' patients.
        sites: of each site's, by name.
    """

    value: str
    together: Judgement
    sites: dict[str, Judgement]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "value": self.value,
            "together": self.together.to_json(),
            "sites": {name: judgement.to_json() for name, judgement in self.sites.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRun:
    """A run.

    Attributes:
        name: for people.
        plan: the plan.
        schema: its schema.
        snapshot_digest: SHA-256 of the snapshot's tensors.
        noise_std: standard deviation, in patients, of the noise in a cell of one site's histograms.
        histograms: by site, in patients, [V, 2, B].
    """

    name: str
    plan: TrainPlan
    schema: PatientSchema
    snapshot_digest: str
    noise_std: float
    histograms: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, snapshot: Snapshot, name: str | None = None) -> Self:
        """What a snapshot holds.

        Args:
            snapshot: of a finished run.
            name: for people; None: the plan's.

        Raises:
            ConfigurationError: if the run is of another kind.
            SnapshotError: if its numbers are not those of its plan.
        """
        plan, spec = snapshot.plan, snapshot.plan.model
        if not isinstance(spec, ScoresSpec):
            raise ConfigurationError(
                expected="the snapshot of a run with model.kind = scores",
                found=f"one of model.kind = {spec.kind}",
                remedy="Run such a plan; docs/series.md shows one.",
            )
        schema = schema_from_json(snapshot.schema)
        values, sites = len(schema.label.values), snapshot.record.sites
        told = snapshot.model[parameters_of(spec, schema) :].astype(np.float64)
        if told.size != len(sites) * histogram_size(values):
            raise SnapshotError(
                expected=f"histograms of {len(sites)} sites, {histogram_size(values)} numbers each",
                found=f"{told.size} numbers",
                remedy="Use the version of Synclave that made the snapshot.",
            )
        unit = float(plan.privacy.clip_norm) * patient_weight(values)
        patients = told.reshape(len(sites), len(outcomes(values)), 2, BINS) / unit
        return cls(
            name=name or plan.name,
            plan=plan,
            schema=schema,
            snapshot_digest=snapshot.record.tensors_digest,
            noise_std=float(plan.privacy.noise_multiplier) / patient_weight(values),
            histograms=dict(zip(sites, patients, strict=True)),
        )

    @property
    def absent_sites(self) -> tuple[str, ...]:
        """Sites of the plan that told nothing."""
        return tuple(site.name for site in self.plan.sites if site.name not in self.histograms)

    def judged(self) -> list[OutcomeScores]:
        """Every outcome, of all sites together and of each."""
        found = []
        total: NDArray[np.float64] = np.sum(list(self.histograms.values()), axis=0)
        noise = self.noise_std * math.sqrt(len(self.histograms))
        for place, position in enumerate(outcomes(len(self.schema.label.values))):
            found.append(
                OutcomeScores(
                    value=self.schema.label.values[position],
                    together=judge(total[place], noise),
                    sites={name: judge(part[place], self.noise_std) for name, part in self.histograms.items()},
                )
            )
        return found

    def to_json(self, judged: list[OutcomeScores]) -> dict[str, Any]:
        """Plain values for ``scores.json``."""
        delta = float(self.plan.privacy.delta)
        return {
            "name": self.name,
            "plan_name": self.plan.name,
            "plan_digest": self.plan.digest,
            "snapshot_digest": self.snapshot_digest,
            "model": self.plan.model.model_dump(mode="json"),
            "model_digest": self.plan.warm_start,
            "absent_sites": list(self.absent_sites),
            "noise_std": self.noise_std,
            "epsilon": epsilon(self.plan.mechanisms(), delta),
            "delta": delta,
            "outcomes": [outcome.to_json() for outcome in judged],
        }
