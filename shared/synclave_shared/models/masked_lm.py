"""A masked language model whose vocabulary head sees masked positions only.

The head is the largest product of a small BERT: V x d for every token. Its loss looks at the masked ones alone, about
one in seven; gathering those first leaves the other six out, forward and backward, plain and private.

Shapes: ``R`` rows (chunks of notes), ``T`` tokens, ``M`` masked places at most, ``V`` vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IGNORED", "MaskedPositionLm", "masked_positions"]

IGNORED = -100
"""Label of a token that is not predicted, as in PyTorch and ``transformers``."""


def masked_positions(labels: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Where the masked tokens of each row are, and what they were.

    Args:
        labels: int64 [R, T], token numbers at masked places and :data:`IGNORED` elsewhere.
        most: M, a public number: taken from the data, one patient would change the shape, and with it the rounding, of
            all others.

    Returns:
        Positions [R, M], ascending, and targets [R, M]; rows with fewer are filled with position 0 and
        :data:`IGNORED`. Of rows with more than M the last are left out.
    """
    masked = labels != IGNORED
    # Stable, so that masked places come first and keep their order.
    order = masked.logical_not().to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    targets = labels.gather(1, order)
    return torch.where(targets == IGNORED, 0, order), targets


class MaskedPositionLm(nn.Module):
    """A ``transformers`` masked LM (BERT, RoBERTa, ModernBERT and alike), read at chosen positions.

    Args:
        model: a model with an encoder under its ``base_model_prefix`` and its head beside it; weights stay shared.

    Raises:
        ValueError: if the head is not found.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        encoder = str(getattr(model, "base_model_prefix", ""))
        if not isinstance(getattr(model, encoder, None), nn.Module):
            raise ValueError(f"{type(model).__name__} has no encoder that its base_model_prefix names")
        self._encoder_name = encoder
        _head(model)

    def forward(self, input_ids: Tensor, positions: Tensor, arguments: Mapping[str, Any] | None = None) -> Tensor:
        """Logits [R, M, V] at ``positions`` [R, M] of ``input_ids`` [R, T]; ``arguments`` go to the encoder."""
        encoder = getattr(self.model, self._encoder_name)
        hidden = encoder(input_ids=input_ids, **(arguments or {})).last_hidden_state
        chosen = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
        for part in _head(self.model):
            chosen = part(chosen)
        logits: Tensor = chosen
        return logits


def _head(model: nn.Module) -> list[nn.Module]:
    """From hidden states to logits: ``cls`` (BERT), ``lm_head`` (RoBERTa), ``head`` and ``decoder`` (ModernBERT)."""
    for names in (("cls",), ("lm_head",), ("head", "decoder")):
        parts = [getattr(model, name, None) for name in names]
        if all(isinstance(part, nn.Module) for part in parts):
            return [part for part in parts if isinstance(part, nn.Module)]
    raise ValueError(f"{type(model).__name__} has none of the known heads: cls, lm_head, head and decoder")
