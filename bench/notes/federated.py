"""The rounds of a plan of notes in one process: what the vaults and the coordinator do, without what is between them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.notes import train_notes_round
from synclave_server.aggregate import initial_state, server_step, weighted_mean
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.note_base import LoadedBase
from synclave_shared.plan import TrainPlan
from synclave_shared.text.chunks import NoteChunks


def train_rounds(
    plan: TrainPlan, sites: Mapping[str, NoteChunks], base: LoadedBase, model: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """The model [P] after all rounds; noise and batches are keyed by seed, site and round, so that it can be had again."""
    state = initial_state(plan.federation, model.size)
    for number in range(1, plan.federation.rounds + 1):
        updates = {}
        for name, own in sites.items():
            key = hashlib.sha256(f"{seed} {name} {number}".encode()).digest()
            # Small tiles: a step of thirty patients is not padded to a hundred.
            update = train_notes_round(
                plan, name, own, base, model, "cpu", SecretRandomness(key), Performance(patients_at_once=8)
            )
            updates[name] = from_fixed(update)
        model, state = server_step(plan.federation, model, weighted_mean(updates, plan.weights()), state)
    return model
