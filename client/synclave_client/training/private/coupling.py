"""Symmetric couplings: float64 throughout, with a proof (:mod:`.engine`) that covers every rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from synclave_client.training.private.batch import PatientRows, PatientWeights
from synclave_client.training.private.factors import blanked, one_patient
from synclave_client.training.private.norms import Norms, by_bucket, chunked, length

__all__ = ["Coupled"]

COUPLED_RESERVE: Final = 2.0**-28
"""Share of S^2 that is added to a coupling's squared norm; see the proof in :mod:`.engine`."""

COUPLED_ROWS_AT_ONCE: Final = 2**10
"""Rows (patients times levels) of one product of a coupling; the bound on its rounding grows with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupled:
    """The free values of a symmetric matrix: ``sum_t g_t x_t^T``, folded, in float64 throughout.

    Attributes:
        x: [R, T, D], float32.
        g: [R, T, D], float32.
        ours: whether x may be overwritten.
    """

    rows: PatientRows
    x: Tensor
    g: Tensor
    ours: bool

    @property
    def geometry(self) -> tuple[object, ...]:
        """Any two uses can be joined."""
        return ()

    @property
    def places(self) -> int:
        """Places that are added up."""
        return self.x.shape[1]

    def norms(self) -> Norms:
        """Upper bounds, rounding included, hence neither reach nor error (the proof is in :mod:`.engine`)."""
        return by_bucket(self.rows, lambda x, g: chunked(_coupled_norms, x, g, 2 * x[0].numel()), self.x, self.g)

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """In float64, at most :data:`COUPLED_ROWS_AT_ONCE` rows in one product."""
        outer = total.new_zeros(self.x.shape[2], self.x.shape[2])
        scale = weights.rows[:, None].expand(self.g.shape[:2]).flatten()
        sides = (blanked(self.g, weights.bad_rows, ours=True), blanked(self.x, weights.bad_rows, self.ours))
        parts = (torch.split(values.flatten(0, 1), COUPLED_ROWS_AT_ONCE) for values in sides)
        for g, x, w in zip(*parts, torch.split(scale, COUPLED_ROWS_AT_ONCE), strict=True):
            outer.addmm_((g.to(total.dtype) * w[:, None]).T, x.to(total.dtype))
        rows, columns = torch.triu_indices(*outer.shape, device=outer.device)
        total.add_((outer.triu() + outer.tril(-1).T)[rows, columns])

    def joined(self, others: Sequence[Coupled]) -> Coupled:
        """The places of several uses one after another."""
        uses = [self, *others]
        return replace(
            self, x=torch.cat([use.x for use in uses], dim=1), g=torch.cat([use.g for use in uses], dim=1), ours=True
        )

    def of_patient(self, patient: int, rows: slice) -> Coupled:
        """One patient's part, alone."""
        return replace(self, rows=one_patient(rows, self.g), x=self.x[rows], g=self.g[rows], ours=False)


def _coupled_norms(x: Tensor, g: Tensor) -> Norms:
    """Norms of folded gradients.

    With ``G = sum_t g_t x_t^T`` the folded gradient is ``G_ij + G_ji`` for i < j and ``G_ii`` on the diagonal; its
    squared norm is ``|G|^2 + tr(G G) - sum_i G_ii^2``, all from T x T products.
    """
    x, g = x.double(), g.double()
    crossed = torch.bmm(g, x.mT)
    squared = (torch.bmm(g, g.mT) * torch.bmm(x, x.mT)).sum((1, 2))
    squared = squared + (crossed * crossed.mT).sum((1, 2)) - (g * x).sum(1).square().sum(1)
    reach = (length(g) * length(x)).sum(1)
    none = torch.zeros_like(reach)
    return Norms(squared.clamp_min(0) + COUPLED_RESERVE * reach.square(), none, none)
