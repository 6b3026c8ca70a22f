"""A small network that gives each token a tag from hashed features and its neighbours.

Embeddings, linear layers, convolutions and layer norms only, so that the private engine of a site can bound each
patient's gradient: the base that ships is trained on public notes, and the same network can be trained further on the
annotated notes of hospitals, federated and private, with :func:`tagger_loss`.

Shapes: ``B`` patients, ``C`` chunks of one patient, ``T`` tokens, ``K`` tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synclave_shared.models.patient_tensors import PatientTensors
from synclave_shared.text.features import AFFIXES, FLAGS, SHAPES, WORDS, TokenFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NO_TAG", "Tagger", "TaggerBatch", "tag_probabilities", "tagger_loss"]

NO_TAG: Final = -100
"""Of tokens that the loss leaves out: padding, and what nobody has annotated."""

_DILATIONS: Final = (1, 2, 4)
_KERNEL: Final = 5
_REACH: Final = sum(_DILATIONS) * (_KERNEL // 2)
"""Tokens to each side that a tag depends on."""

_CHUNK: Final = 1024
"""Tokens of a text that the network reads at once; bounds the memory of a very long text."""

_ROUNDED: Final = 128
"""Texts are padded to a multiple of so many tokens: convolutions of a length not seen before take twice as long."""


class Tagger(nn.Module):
    """Features to tags.

    Args:
        tags: K.
        width: of the hidden states.
    """

    def __init__(self, tags: int, width: int = 96) -> None:
        super().__init__()
        self.word = nn.Embedding(WORDS, 32)
        self.beginning = nn.Embedding(AFFIXES, 16)
        self.ending = nn.Embedding(AFFIXES, 16)
        self.shape = nn.Embedding(SHAPES, 16)
        self.flags = nn.Linear(FLAGS, 32)
        self.enter = nn.Linear(32 + 3 * 16 + 32, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, _KERNEL, padding=dilation * (_KERNEL // 2), dilation=dilation)
            for dilation in _DILATIONS
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in _DILATIONS)
        self.leave = nn.Linear(width, tags)

    def forward(self, numbers: Tensor, flags: Tensor) -> Tensor:
        """Logits [R, T, K] of ``numbers`` [R, T, 4] and ``flags`` [R, T, FLAGS].

        A token whose word bucket is 0 is padding: it reads as nothing, at its neighbours, too.
        """
        real = (numbers[..., 0] > 0).unsqueeze(-1).to(flags.dtype)
        seen = torch.cat(
            [
                self.word(numbers[..., 0]),
                self.beginning(numbers[..., 1]),
                self.ending(numbers[..., 2]),
                self.shape(numbers[..., 3]),
                self.flags(flags),
            ],
            dim=-1,
        )
        hidden = functional.gelu(self.enter(seen)) * real
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            mixed = convolution(norm(hidden).mul(real).transpose(1, 2)).transpose(1, 2)
            hidden = (hidden + functional.gelu(mixed)) * real
        logits: Tensor = self.leave(hidden)
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggerBatch(PatientTensors):
    """Some patients with equally many chunks each, empty ones included.

    Attributes:
        numbers: int64 [B, C, T, 4].
        flags: float32 [B, C, T, FLAGS].
        tags: int64 [B, C, T], :data:`NO_TAG` where there is none.
    """

    numbers: Tensor
    flags: Tensor
    tags: Tensor


def tagger_loss(network: nn.Module, batch: TaggerBatch) -> Tensor:
    """[B], each patient's cross-entropy: the mean over the patient's own tagged tokens; 0 for a patient without any."""
    logits = network(batch.numbers.flatten(0, 1), batch.flags.flatten(0, 1))
    tags = batch.tags.flatten(0, 1)
    losses = functional.cross_entropy(logits.transpose(1, 2), tags, ignore_index=NO_TAG, reduction="none")
    tagged = (batch.tags != NO_TAG).flatten(1).sum(1)
    return losses.reshape(len(batch), -1).sum(1) / tagged.clamp(min=1) * batch.present


@torch.no_grad()
def tag_probabilities(network: Tagger, features: TokenFeatures) -> NDArray[np.float32]:
    """[N, K], in chunks that overlap by the network's reach, so that chunking changes nothing."""
    count = len(features.spans)
    rows = []
    for start in range(0, count, _CHUNK):
        first, last = max(0, start - _REACH), min(count, start + _CHUNK + _REACH)
        padding = (0, 0, 0, -(last - first) % _ROUNDED)
        numbers = functional.pad(torch.from_numpy(features.numbers[first:last]), padding).unsqueeze(0)
        flags = functional.pad(torch.from_numpy(features.flags[first:last]), padding).unsqueeze(0)
        probabilities = network(numbers, flags)[0].softmax(-1)
        rows.append(probabilities[start - first : min(count, start + _CHUNK) - first].numpy())
    return np.concatenate(rows) if rows else np.zeros((0, network.leave.out_features), np.float32)
