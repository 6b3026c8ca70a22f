"""What a sampler is given and what it returns: types only, so that every sampler's file can name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

__all__ = ["Denoise", "Noise", "Sampler"]


class Denoise(Protocol):
    """The posterior mean of the clean row."""

    def __call__(self, x: Tensor, sigma: float | Tensor, /) -> Tensor:
        """Map noisy rows to expected clean rows of the same shape.

        Args:
            x: [..., D], rows that all have the level ``sigma``; or [..., K, D], rows of K levels.
            sigma: the level; or [K, 1], one level per row of the last but one axis, broadcastable to x. Only samplers
                that evaluate many levels in one call (:func:`~synclave_shared.diffusion.anderson.sample_parallel`)
                send a tensor.
        """
        ...


Noise = Callable[[int], Tensor]
"""``noise(step)``: standard normal numbers of the shape of x, for stochastic samplers."""


class Sampler(Protocol):
    """From a state at the first level to a state at the last."""

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None) -> Tensor:
        """Return the state [..., D] at ``sigmas[-1]``.

        Args:
            denoise: posterior mean.
            x: [..., D], state at ``sigmas[0]``.
            sigmas: descending levels, > 0.
            noise: fresh normal numbers, for stochastic samplers.

        Raises:
            ValueError: if a stochastic sampler is given no noise.
        """
        ...
