"""Training on notes at a site: hide words of a patient's chunks and ask for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.loop import run_steps
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private.batch import PatientBatch
from synclave_shared.diffusion.notes import NotesBatch, draw_notes, normals_of, note_loss
from synclave_shared.errors import PlanError
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import LoadedBase, build_note_lm
from synclave_shared.plan import TrainPlan
from synclave_shared.text.chunks import NoteChunks
from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["NotesLearner", "notes_spec", "train_notes_round"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesLearner:
    """The site's notes; see :class:`synclave_client.training.loop.Learner`.

    Attributes:
        network: the network, on its device.
        spec: the plan's model.
        chunks: the site's patients, identifiers already taken out.
        tokenizer: of the base.
        device: where the network is.
    """

    network: nn.Module
    spec: NotesSpec
    chunks: NoteChunks
    tokenizer: NoteTokenizer
    device: torch.device | str

    @property
    def values(self) -> int:
        """Numbers that a patient takes in a tile: hidden states of one layer, and a part of the logits."""
        width: int = next(module.embedding_dim for module in self.network.modules() if isinstance(module, nn.Embedding))
        words = self.spec.predicted_tokens * self.tokenizer.size // 8
        length: int = self.chunks.ids.shape[1]
        return self.spec.chunks_per_step * (length * width + words)

    def __len__(self) -> int:
        return len(self.chunks)

    def loss(self, network: nn.Module, batch: PatientBatch, /) -> Tensor:
        """One loss per patient, [B]."""
        assert isinstance(batch, NotesBatch)  # noqa: S101 - made below
        return note_loss(network, batch)

    def batch(self, rows: NDArray[np.int64], size: int, streams: PatientStreams, step: int) -> NotesBatch:
        """Some patients with hidden words, padded to ``size``; what is hidden comes from the patient's own stream."""
        _, normals = streams.draw(step, rows, normals_of(self.chunks, self.spec))
        return draw_notes(self.chunks, self.tokenizer, self.spec, rows, size, normals).to(self.device)


def notes_spec(plan: TrainPlan) -> NotesSpec:
    """The model of a plan for notes.

    Raises:
        PlanError: if the plan is for another modality.
    """
    if isinstance(plan.model, NotesSpec):
        return plan.model
    raise PlanError(
        expected="a plan with model.kind = notes, as the installed schema's modality is",
        found=f"model.kind = {plan.model.kind}",
        remedy="Use a plan of the schema's modality.",
    )


def train_notes_round(
    plan: TrainPlan,
    site_name: str,
    chunks: NoteChunks,
    base: LoadedBase,
    model_vector: NDArray[np.float32],
    device: torch.device | str,
    randomness: SecretRandomness,
    performance: Performance | None = None,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """One round on notes; see :func:`synclave_client.training.loop.run_steps`.

    Args:
        plan: the accepted plan.
        site_name: this site in the plan's roster.
        chunks: the site's patients, cut by the base's tokenizer.
        base: of the plan.
        model_vector: [P], the global model's trained parameters.
        device: where to compute.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [P], fixed point.

    Raises:
        PlanError: if the plan is for another modality.
    """
    spec = notes_spec(plan)
    learner = NotesLearner(
        network=build_note_lm(spec, base).to(device),
        spec=spec,
        chunks=chunks,
        tokenizer=base.tokenizer,
        device=device,
    )
    return run_steps(plan, site_name, learner, model_vector, randomness, performance or Performance(), watch)
