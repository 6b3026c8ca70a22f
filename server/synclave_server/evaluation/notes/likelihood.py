"""How well a language model knows notes: the bound of masked diffusion on their likelihood, patient by patient.

Shapes: ``N`` patients, ``R`` chunks, ``T`` tokens of a chunk, ``M`` places asked for at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from synclave_shared.text.chunks import NoteChunks
    from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["nats_per_token"]

ROWS: Final = 32
"""Chunks that go through the network at a time."""


@torch.no_grad()
def nats_per_token(
    network: nn.Module,
    chunks: NoteChunks,
    tokenizer: NoteTokenizer,
    *,
    draws: int = 2,
    asked: int = 32,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> NDArray[np.float64]:
    """Each patient's bound in nats per token of the vocabulary, float64 [N]; lower is better.

    Of a chunk with n words k are hidden, every k from 1 to n as likely as another, and the loss of those asked for is
    averaged: in expectation the bound on minus its log-likelihood over n (Sahoo et al. 2024, for tokens hidden without
    replacement). The same seed hides the same words, so two models' numbers can be compared patient by patient.

    Args:
        network: of :func:`synclave_shared.models.note_base.build_note_lm`, on its device.
        chunks: the patients.
        tokenizer: of the network's base.
        draws: how often each chunk is looked at, with k from so many equal parts of its range.
        asked: M; of more hidden words a random part is asked for.
        seed: of what is hidden.
        device: where the network is.
    """
    number_of = len(chunks.ids)
    hidden = np.repeat(chunks.ids.astype(np.int64), draws, axis=0)
    positions = np.zeros((number_of * draws, asked), np.int64)
    targets = np.full((number_of * draws, asked), -100, np.int64)
    for chunk in range(number_of):
        rng = np.random.default_rng([seed, chunk])
        words = np.flatnonzero(chunks.predictable[chunk])
        if not len(words):
            continue
        parts = rng.permutation(draws)
        for draw in range(draws):
            count = 1 + int(len(words) * (parts[draw] + rng.random()) / draws)
            chosen = rng.permutation(words)[:count]
            row, few = chunk * draws + draw, chosen[:asked]
            hidden[row, chosen] = tokenizer.mask
            positions[row, : len(few)], targets[row, : len(few)] = few, chunks.ids[chunk][few]
    loss = np.zeros(number_of * draws)
    for start in range(0, len(hidden), ROWS):
        ids, where, wanted = (
            torch.from_numpy(values[start : start + ROWS]).to(device) for values in (hidden, positions, targets)
        )
        logits = network(ids, ids != tokenizer.pad, where)
        nats = functional.cross_entropy(logits.float().mT, wanted, reduction="none", ignore_index=-100)
        counts = (wanted >= 0).sum(dim=1).clamp(min=1)
        loss[start : start + ROWS] = (nats.sum(dim=1) / counts).cpu().numpy()
    words_of = chunks.predictable.sum(axis=1)
    total = np.add.reduceat(loss.reshape(number_of, draws).mean(axis=1) * words_of, chunks.starts[:-1])
    found: NDArray[np.float64] = total / np.maximum(np.add.reduceat(words_of, chunks.starts[:-1]), 1)
    return found
