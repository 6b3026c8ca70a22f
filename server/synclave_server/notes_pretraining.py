"""A language model of notes trained without privacy, on public notes: for a warm start, or as a yardstick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synclave_server.pretraining import FitSettings, Precision, PretrainedModel, fit
from synclave_shared.diffusion.notes import draw_notes, normals_of, note_loss
from synclave_shared.models.note_base import LoadedBase, build_note_lm
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.text.chunks import encode_notes
from synclave_shared.text.masking import masker, site_detector

if TYPE_CHECKING:
    from synclave_shared.data.notes.dataset import NotesDataset
    from synclave_shared.data.notes.schema import NotesSchema
    from synclave_shared.plan import NotesSpec

__all__ = ["pretrain_notes"]

SETTINGS: Final[FitSettings] = {
    "steps": 2000,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "ema": 0.99,
    "seed": 0,
}
"""What suits a small base and some thousand notes."""


def pretrain_notes(
    schema: NotesSchema,
    dataset: NotesDataset,
    spec: NotesSpec,
    base: LoadedBase,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    **settings: Unpack[FitSettings],
) -> PretrainedModel:
    """Train on public notes, whose identifiers are masked as at a site.

    Args:
        schema: length and number of chunks, label values.
        dataset: patients, or whoever the notes are of.
        spec: the model.
        base: what it begins with.
        device: where to compute.
        precision: what the network computes in.
        **settings: of :func:`synclave_server.pretraining.fit`; what is left away is of :data:`SETTINGS`.

    Raises:
        ConfigurationError: if the loss does not stay finite.
    """
    chunks = encode_notes(dataset.masked(masker(site_detector(schema.notes.language))), schema, base.tokenizer)
    network = build_note_lm(spec, base).to(device)
    chosen = SETTINGS | settings
    randomness = np.random.default_rng(chosen["seed"])
    numbers = normals_of(chunks, spec)

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        normals = randomness.standard_normal((len(rows), numbers), dtype=np.float32)
        batch = draw_notes(chunks, base.tokenizer, spec, rows, len(rows), normals).to(device)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            return note_loss(network, batch).mean()

    fit(network, loss_of, len(dataset), **chosen)
    # Neither prevalences nor shares: a language model stands on none.
    nothing = np.zeros(0, np.float32)
    return PretrainedModel(parameters=parameter_vector(network), anchor=nothing, label_shares=nothing)
