"""Small joint distributions of 0/1 columns with every state enumerated: denoiser and masked predictor are exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synclave_shared.models.layout import CodeLayout


@dataclass(frozen=True)
class Joint:
    """``states`` [S, D] of 0 and 1 with probabilities ``weights`` [S]."""

    layout: CodeLayout
    states: Tensor
    weights: Tensor

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior mean of the clean row."""
        precision = sigma**-2
        evidence = ((x - 0.5) * precision) @ self.states.T
        return (self.weights.log() + evidence).softmax(-1) @ self.states

    def predict(self, values: Tensor, known: Tensor) -> Tensor:
        """Probabilities of columns given the known ones."""
        fits = ((values[:, None] == self.states) | ~known[:, None]).all(-1)
        weights = torch.where(fits, self.weights, 0.0)
        return weights @ self.states / weights.sum(-1, keepdim=True)

    def counts(self, rows: Tensor) -> Tensor:
        """How often each state occurs among rows [B, D]; every row is a state."""
        same = (rows[:, None] == self.states).all(-1)
        assert bool(same.any(-1).all())
        return same.sum(0)


def coupled_joint() -> Joint:
    """Four codes, two of them rare, that pull each other, and a group of three categories: 7 columns, 48 states."""
    codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    groups = torch.eye(3, dtype=torch.float64)
    states = torch.cat([codes.repeat_interleave(3, 0), groups.repeat(16, 1)], dim=1)
    a, b, c, d = states[:, :4].T
    logits = -0.8 * a - 1.2 * b - 3.5 * c - 4.0 * d + 2.0 * a * b + 2.5 * c * d + 1.5 * b * c
    logits = logits + states[:, 4:] @ torch.tensor([0.0, -0.5, -1.0], dtype=torch.float64) + 1.5 * a * states[:, 6]
    layout = CodeLayout(width=7, categories=((4, 7),), label_values=1)
    return Joint(layout=layout, states=states, weights=logits.softmax(0))


def independent_joint(prevalence: Tensor) -> Joint:
    """Independent codes of the given prevalence [D]."""
    width = len(prevalence)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * width)
    weights = torch.where(states == 1, prevalence, 1 - prevalence).prod(-1)
    return Joint(layout=CodeLayout(width=width, categories=(), label_values=1), states=states, weights=weights)
