"""The network of notes: a masked language model read at hidden places, in which no row sees how long another is.

Shapes: ``R`` chunks, ``T`` tokens, ``M`` hidden places at most, ``V`` vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from synclave_shared.models.masked_lm import MaskedPositionLm

__all__ = ["NoteLm"]


class NoteLm(nn.Module):
    """A masked language model of ``transformers`` behind one door.

    Args:
        model: BERT, RoBERTa, ModernBERT or alike, without dropout.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.reader = MaskedPositionLm(model)
        config: Any = model.config
        kinds = getattr(config, "layer_types", None) or ()
        # ModernBERT: some layers see a window only.
        self._window = int(config.sliding_window) if "sliding_attention" in kinds else None

    def forward(self, ids: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
        """Logits [R, M, V] at ``positions`` [R, M] of tokens ``ids`` [R, T], of which bool ``seen`` [R, T] is text.

        What is padding is told to the attention as a whole mask. A mask of rows would be left out by the library
        where all rows are full: one long note more or less would then change how all others are rounded.
        """
        length = ids.shape[1]
        whole = seen[:, None, None, :].expand(-1, 1, length, -1)
        mask: Any = whole
        if self._window is not None:
            place = torch.arange(length, device=ids.device)
            near = (place[:, None] - place).abs() <= self._window
            # A place of padding with nothing in its window sees itself: of nothing there is no average.
            itself = torch.eye(length, dtype=torch.bool, device=ids.device)
            mask = {"full_attention": whole, "sliding_attention": (whole & near) | itself}
        logits: Tensor = self.reader(ids, positions, {"attention_mask": mask})
        return logits
