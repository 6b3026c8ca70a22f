"""Masked diffusion of notes: hide a share of a patient's words, and what asking for them costs.

Shapes: ``B`` patients of a batch, ``K`` chunks of each, ``T`` tokens of a chunk, ``M`` places asked for at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synclave_shared.data.shares import places
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.patient_tensors import PatientTensors
from synclave_shared.text.chunks import NoteChunks
from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["NotesBatch", "draw_notes", "normals_of", "note_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesBatch(PatientTensors):
    """Some patients, each with K chunks; M places of a chunk are asked for at most.

    Attributes:
        ids: tokens, the mask token at hidden places; int64 [B, K, T].
        seen: which of them are no padding; bool [B, K, T].
        positions: places that are asked for; int64 [B, K, M].
        targets: the tokens there; int64 [B, K, M].
        weights: what each counts for, 0 where nothing is asked; float32 [B, K, M].
    """

    ids: Tensor
    seen: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor

    @property
    def patient_of_row(self) -> Tensor:
        """The network's rows are chunks: every patient has K, whatever was written of it."""
        count, chunks = self.ids.shape[:2]
        return torch.arange(count, device=self.ids.device).repeat_interleave(chunks)


def note_loss(network: nn.Module, batch: NotesBatch) -> Tensor:
    """Mean over a patient's chunks of the weighted loss of hidden words in nats, [B]."""
    logits = network(batch.ids.flatten(0, 1), batch.seen.flatten(0, 1), batch.positions.flatten(0, 1))
    loss = functional.cross_entropy(logits.float().mT, batch.targets.flatten(0, 1), reduction="none")
    return (loss.view_as(batch.weights) * batch.weights).sum(dim=2).mean(dim=1)


def normals_of(chunks: NoteChunks, spec: NotesSpec) -> int:
    """How many standard normal numbers hide a patient's words: a public number."""
    length: int = chunks.ids.shape[1]
    return chunks.most + spec.chunks_per_step * (1 + length)


def draw_notes(
    chunks: NoteChunks,
    tokenizer: NoteTokenizer,
    spec: NotesSpec,
    rows: NDArray[np.int64],
    size: int,
    normals: NDArray[np.float32],
) -> NotesBatch:
    """Some patients with hidden words.

    Args:
        chunks: everybody's.
        tokenizer: of the model's base.
        spec: the model's settings.
        rows: which patients.
        size: rows of the batch: the others are patients who are not there.
        normals: each patient's own numbers, [len(rows), :func:`normals_of`]: they alone say which chunks, how much is
            hidden, and which words.
    """
    each, length, most = spec.chunks_per_step, chunks.ids.shape[1], spec.predicted_tokens
    ids = np.full((size, each, length), tokenizer.pad, dtype=np.int64)
    positions = np.zeros((size, each, most), dtype=np.int64)
    targets = np.zeros((size, each, most), dtype=np.int64)
    weights = np.zeros((size, each, most), dtype=np.float32)
    # A row of padding alone still has something that attention can look at.
    ids[:, :, 0] = tokenizer.begin
    for place, patient in enumerate(rows.tolist()):
        first, last = chunks.starts[patient : patient + 2].tolist()
        order = first + np.argsort(normals[place, : last - first])
        for number, numbers in enumerate(normals[place, chunks.most :].reshape(each, 1 + length)):
            chunk = int(order[number % len(order)])
            ids[place, number] = chunks.ids[chunk]
            hidden, weight = _hidden(spec, np.flatnonzero(chunks.predictable[chunk]), numbers)
            asked = hidden[:most]
            positions[place, number, : len(asked)] = asked
            targets[place, number, : len(asked)] = chunks.ids[chunk][asked]
            weights[place, number, : len(asked)] = weight
            ids[place, number, hidden] = tokenizer.mask
    return NotesBatch(
        ids=torch.from_numpy(ids),
        seen=torch.from_numpy(ids != tokenizer.pad),
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        present=torch.from_numpy(places(chunks.shares, rows, size)),
    )


def _hidden(spec: NotesSpec, may: NDArray[np.intp], numbers: NDArray[np.float32]) -> tuple[NDArray[np.intp], float]:
    """Places to hide of those that ``may`` be, in random order, and what each of the first M counts for.

    Every share is as likely as another, and a word counts for one over it: the mean is then the bound of masked
    diffusion (Sahoo et al. 2024) in nats per word, but for the cap on that weight. Those for which M leaves no room are
    spoken for by the others, a random part of the hidden ones.
    """
    if not len(may):
        return may, 0.0
    least = float(spec.smallest_ratio)
    share = least + (1 - least) * 0.5 * math.erfc(-float(numbers[0]) / math.sqrt(2.0))
    hidden = may[np.argsort(numbers[1:][may])][: math.ceil(share * len(may))]
    weight = min(len(may) / len(hidden), float(spec.largest_weight))
    return hidden, weight * len(hidden) / min(len(hidden), spec.predicted_tokens) / len(may)
