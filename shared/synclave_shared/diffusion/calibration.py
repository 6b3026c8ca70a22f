"""Offsets on the last logits that give every column its prevalence back.

Few steps, a network trained under noise, and correlations that it overrates all shift how common columns are. How
common they should be is known: the anchor says so, privately measured and public by then. A trial cohort shows the
shift, and an offset per column takes it back before rows are drawn.

Shapes: ``n`` patients of the trial, ``D`` columns.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from synclave_shared.diffusion.preconditioning import posterior_mean
from synclave_shared.models.layout import CodeLayout

__all__ = ["calibration_offsets"]

PSEUDO_CARRIERS: Final = 4.0
"""Of a column that the trial hardly saw, so many carriers are held to be as far off as columns alike."""

ALIKE: Final = 0.5
"""Columns are alike if the logarithms of their prevalences differ by less than about this: a kernel's width."""

GRID: Final = 256
"""Points of the logarithm of prevalence at which columns alike are averaged."""

LARGEST_OFFSET: Final = 3.0
"""In logits: a larger one would not mend a model but replace it."""

VALUES_AT_ONCE: Final = 2**23
"""Logits of the trial taken to probabilities at once; all of them up to 4,096 columns."""

NEWTON_STEPS: Final = 10


def calibration_offsets(logits: Tensor, wanted: Tensor, layout: CodeLayout) -> Tensor:
    """Offsets [D] with which the mean posterior of a trial cohort is about ``wanted``.

    The trial shows a rare column through few carriers. Its ratio of wanted to seen prevalence is therefore shrunk
    towards that of all columns about as common, as if :data:`PSEUDO_CARRIERS` carriers had shown that.

    Args:
        logits: [n, D], last posterior logits of the trial's patients, all of one label value.
        wanted: [D], prevalences under that label value.
        layout: columns.
    """
    patients = len(logits)
    # Some patients at a time: in float64 a wide trial would fill gigabytes.
    parts = torch.split(logits, max(1, VALUES_AT_ONCE // layout.width))
    seen = torch.stack([posterior_mean(part, layout).sum(dim=0) for part in parts]).sum(dim=0) / patients
    seen = seen.double().clamp(1e-9, 1 - 1e-9)
    aim = wanted.double().clamp(1e-9, 1 - 1e-9)
    common = _common_ratio(aim, seen)
    ratio = (patients * aim + PSEUDO_CARRIERS * common) / (patients * seen + PSEUDO_CARRIERS)
    target = (seen * ratio).clamp(1e-9, 1 - 1e-9)
    for start, stop in layout.categories:
        target[start:stop] /= target[start:stop].sum()
    offsets = torch.zeros_like(target)
    for _ in range(NEWTON_STEPS):
        carriers, slope = torch.zeros_like(target), torch.zeros_like(target)
        for part in parts:
            probability = posterior_mean(part + offsets.to(logits.dtype), layout).double()
            carriers += probability.sum(dim=0)
            # A code's mean moves by the mean of p (1 - p) per unit of offset; for one-hot columns, at most by that.
            slope += (probability * (1 - probability)).sum(dim=0)
        mean, slope = carriers / patients, (slope / patients).clamp_min(1e-9)
        offsets = (offsets + ((target - mean) / slope).clamp(-1.0, 1.0)).clamp(-LARGEST_OFFSET, LARGEST_OFFSET)
    return offsets.to(logits.dtype)


def _common_ratio(aim: Tensor, seen: Tensor) -> Tensor:
    """For each column [D], wanted over seen prevalence of all columns about as common: a kernel mean on a grid."""
    place = aim.log()
    low, high = float(place.min()), float(place.max())
    if high - low < 1e-6:
        return (aim.sum() / seen.sum()).expand_as(aim)
    spacing = (high - low) / (GRID - 1)
    cell = ((place - low) / spacing).round().long()
    wanted, found = (torch.zeros(GRID, dtype=aim.dtype, device=aim.device) for _ in range(2))
    wanted.index_add_(0, cell, aim)
    found.index_add_(0, cell, seen)
    points = torch.arange(GRID, dtype=aim.dtype, device=aim.device) * spacing
    alike = torch.exp(-0.5 * ((points[:, None] - points) / ALIKE).square())
    return ((alike @ wanted) / (alike @ found))[cell]
