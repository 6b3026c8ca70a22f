"""How columns bear on each other in pairs: one symmetric matrix.

It is the first-order expansion of the exact posterior in the correlations (a Boltzmann machine's mean-field step). One
patient's gradient is an outer product of standardised residuals, its expectation the matrix of correlations that the
model misses: under noise it learns in a few steps what a multilayer network cannot find at all. One bilinear layer also
has per-patient gradients whose norms can be bounded with a proof, rounding included, whatever model the coordinator
sends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SymmetricCoupling"]


class SymmetricCoupling(nn.Module):
    """``x -> M x`` with a symmetric matrix M, of which the D*(D+1)/2 free values are the parameters.

    Sharing the value of (i, j) and (j, i) halves the coordinates that receive noise, and a patient's clip norm is not
    spent on an antisymmetric part that means nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.zeros(width * (width + 1) // 2))

    def matrix(self) -> Tensor:
        """M [D, D]."""
        rows, columns = torch.triu_indices(self.width, self.width, device=self.weight.device)
        upper = self.weight.new_zeros(self.width, self.width).index_put((rows, columns), self.weight)
        return upper + upper.triu(1).T

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return values @ self.matrix()
