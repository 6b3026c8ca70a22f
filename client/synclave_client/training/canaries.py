"""One private training with canaries, and how much each of them seems to have been in it: for `synclave-audit attack`.

Everything is invented: patients and canaries of a random half of all codes, whose gradients hardly lean on one another.
The training is the site's own (:func:`~synclave_client.training.codes.train_round`), a step a round, so
that the attacker sees every noised gradient: more than any coordinator sees of a round of many steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.training.codes import DiffusionBatch, DiffusionLoss, train_round
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.diffusion.preconditioning import prior_logits
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.plan import Federation, ModelSpec, Optimiser, Privacy, SiteEntry, TrainPlan
from synclave_shared.privacy.mechanism import PoissonGaussian

__all__ = ["CanaryRun", "train_with_canaries"]

CODES: Final = 64
SHARE_OF_CODES: Final = 0.5
"""Of the codes that anybody has: then no direction is common to all gradients, in which one would hide another."""

NOISE_LEVELS: Final = 16
"""Of a canary in a step: so many that its gradient is nearly the same for other draws of the diffusion's noise (cosine
.9), which are secret. Between two canaries the cosine is about .02."""

LEARNING_RATE: Final = Decimal("0.05")
"""So small that the canaries' gradients stay what they were, and far above the grid of a release."""

MOVE: Final = 1e-2
"""How far along an update the attacker looks for a change of a canary's loss, in parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRun:
    """What the attacker has, and what he is to guess.

    Attributes:
        scores: [m], how much the releases lean towards each canary.
        included: [m], whether it was in the training data.
    """

    scores: NDArray[np.float64]
    included: NDArray[np.bool_]


def train_with_canaries(mechanism: PoissonGaussian, canaries: int, patients: int, seed: int | None = None) -> CanaryRun:
    """Train once, each canary being there by a fair coin.

    Args:
        mechanism: what the plan says; a round per step.
        canaries: m.
        patients: invented ones beside them.
        seed: of patients, canaries and coins; never of the training's noise and selection.
    """
    rng = np.random.default_rng(seed)
    schema = _schema()
    layout, spec = CodeLayout.of(schema), ModelSpec(noise_levels=NOISE_LEVELS)
    rows = (rng.random((patients + canaries, CODES)) < SHARE_OF_CODES).astype(np.uint8)
    included = rng.random(canaries) < 0.5
    there = np.flatnonzero(np.concatenate([np.ones(patients, np.bool_), included]))
    dataset = PatientDataset(
        features=SparseRows.of(rows[there]),
        labels=np.zeros(len(there), np.int64),
        patient_ids=[str(number) for number in there],
    )
    plan = _plan(schema, spec, mechanism, patients + canaries)
    network = build_code_denoiser(layout, spec)
    loss = DiffusionLoss(spec=spec, layout=layout, prior=prior_logits(torch.zeros(2, CODES), layout))
    gradients = PatientGradients(network, loss, float(mechanism.clip_norm))
    streams = PatientStreams(SecretRandomness.from_os())
    model, scores = parameter_vector(network), np.zeros(canaries)
    clean = torch.from_numpy(rows[patients:]).float()
    for step in range(mechanism.steps):
        released = train_round(plan, "site", schema, dataset, model, None, "cpu", SecretRandomness.from_os())
        update = from_fixed(released)
        batch = loss.draw(clean, torch.zeros(canaries, dtype=torch.int64), streams, step, np.arange(canaries))
        load_parameter_vector(network, model)
        weights = (float(mechanism.clip_norm) / gradients.norm_bounds(batch)).clamp_max(1.0)
        scores -= (weights * _slopes(network, loss, batch, model, update)).numpy()
        model = (model + update).astype(np.float32)
    return CanaryRun(scores=scores, included=included)


@torch.no_grad()
def _slopes(
    network: nn.Module,
    loss: DiffusionLoss,
    batch: DiffusionBatch,
    model: NDArray[np.float32],
    update: NDArray[np.float64],
) -> Tensor:
    """Inner product of each canary's gradient with an update, float64 [m], by a difference of losses along it."""
    length = float(np.linalg.norm(update))
    if length == 0.0:
        return torch.zeros(len(batch), dtype=torch.float64)
    ends = []
    for side in (1.0, -1.0):
        load_parameter_vector(network, (model + side * MOVE / length * update).astype(np.float32))
        ends.append(loss(network, batch).double())
    return (ends[0] - ends[1]) * (length / (2.0 * MOVE))


def _schema() -> Schema:
    return Schema.model_validate(
        {
            "name": "canaries",
            "modality": "codes",
            "tables": [{"name": "visits", "patient": "patient"}],
            "fields": [
                {
                    "name": "code",
                    "kind": "codes",
                    "table": "visits",
                    "columns": ["code"],
                    "vocabulary": [{"code": f"c{number}"} for number in range(CODES)],
                    "outside": "fault",
                    "missing": "none",
                }
            ],
            "label": {
                "name": "outcome",
                "values": ["no", "yes"],
                "table": "visits",
                "column": "outcome",
                "combine": "any",
                "missing": "fault",
            },
        }
    )


def _plan(schema: Schema, spec: ModelSpec, mechanism: PoissonGaussian, patients: int) -> TrainPlan:
    return TrainPlan(
        name="canaries",
        coordinator_key="A" * 43 + "=",
        schema_name=schema.name,
        schema_digest=schema.digest,
        model=spec,
        optimiser=Optimiser(name="sgd", learning_rate=LEARNING_RATE),
        privacy=Privacy(
            noise_multiplier=mechanism.noise_multiplier,
            clip_norm=mechanism.clip_norm,
            selection_rate=mechanism.selection_rate,
            marginals=None,
        ),
        federation=Federation(rounds=1, steps_per_round=1, update_norm=Decimal(1_000_000)),
        sites=(SiteEntry(name="site", public_key="A" * 42 + "E=", nominal_patients=patients),),
    )
