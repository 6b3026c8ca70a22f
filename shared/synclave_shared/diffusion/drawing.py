"""The last step of every sampler: from probabilities to a row of 0 and 1."""

from __future__ import annotations

import torch
from torch import Tensor

from synclave_shared.models.layout import CodeLayout

__all__ = ["draw_rows"]


def draw_rows(probabilities: Tensor, uniform: Tensor, layout: CodeLayout) -> Tensor:
    """Draw clean rows from posteriors: a coin per code, one value per one-hot group.

    Args:
        probabilities: [n, D].
        uniform: [n, D], numbers inside (0, 1); a one-hot group uses its first.
        layout: columns.

    Returns:
        uint8 [n, D].
    """
    rows = (uniform < probabilities).to(torch.uint8)
    for start, stop in layout.categories:
        cumulative = probabilities[:, start:stop].double().cumsum(dim=1)
        threshold = uniform[:, start : start + 1] * cumulative[:, -1:]
        # A value of no probability is never drawn: its sum equals that of the value before it.
        chosen = (cumulative <= threshold).sum(dim=1, keepdim=True).clamp_(max=stop - start - 1)
        rows[:, start:stop] = torch.zeros_like(rows[:, start:stop]).scatter_(1, chosen, 1)
    return rows
