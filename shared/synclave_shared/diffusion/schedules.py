"""Noise levels that a sampler visits."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SCHEDULE_EXPONENT", "karras_sigmas"]

SCHEDULE_EXPONENT = 3.0
"""rho. EDM uses 7 for images; codes are decided at sigma near 1/3, so we spend fewer levels below it."""


def karras_sigmas(sigma_min: float, sigma_max: float, levels: int, exponent: float = SCHEDULE_EXPONENT) -> Tensor:
    """Levels evenly spaced in ``sigma ** (1 / exponent)`` (Karras et al. 2022, equation 5), without the final 0.

    Args:
        sigma_min: last level, > 0, in units of the data.
        sigma_max: first level.
        levels: number of levels; 1 gives ``sigma_max`` alone.
        exponent: rho.

    Returns:
        float64 [levels], descending.

    Raises:
        ValueError: if there is no level, or ``0 < sigma_min <= sigma_max`` does not hold.
    """
    if levels < 1 or not 0 < sigma_min <= sigma_max:
        raise ValueError("a schedule needs at least one level and 0 < sigma_min <= sigma_max")
    position = torch.linspace(0.0, 1.0, levels, dtype=torch.float64)
    high, low = sigma_max ** (1 / exponent), sigma_min ** (1 / exponent)
    return torch.pow(high + position * (low - high), exponent)
