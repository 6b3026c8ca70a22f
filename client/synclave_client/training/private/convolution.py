"""The weight of a 1-D convolution: outer products with the windows of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from synclave_client.training.private.batch import PatientRows, PatientWeights
from synclave_client.training.private.factors import blanked, one_patient
from synclave_client.training.private.norms import (
    MOST_PLACES,
    Norms,
    by_bucket,
    chunked,
    formed,
    forming_depth,
    norms_of_grams,
    norms_of_lengths,
    wide,
)

__all__ = ["ConvOuter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvOuter:
    """Outer products with the windows of a sequence: the weight [p, d / groups, k] of a 1-D convolution.

    Attributes:
        x: [R, m, d, L], inputs, not padded.
        g: [R, m, p, L'].
        kernel, stride, dilation, groups: of the convolution.
        padding: zeros before and behind.
        ours: whether x may be overwritten.
    """

    rows: PatientRows
    x: Tensor
    g: Tensor
    kernel: int
    stride: int
    dilation: int
    groups: int
    padding: tuple[int, int]
    ours: bool

    @property
    def geometry(self) -> tuple[object, ...]:
        """What two uses must share to be joined."""
        own = (self.kernel, self.stride, self.dilation, self.groups, self.padding)
        return (*own, self.x.shape[2:], self.g.shape[2:])

    @property
    def places(self) -> int:
        """Places that are added up."""
        return self.g.shape[1] * self.g.shape[3]

    def norms(self) -> Norms:
        """As for a linear layer; the windows' Gram matrix is a sum of k shifted ones, so nothing is unfolded."""

        def grouped(x: Tensor, g: Tensor) -> Norms:
            patients, parts = len(x), self.groups
            x = functional.pad(x, self.padding) if any(self.padding) else x
            if parts > 1:
                # Each group is a convolution of its own: [b * groups, N, channels, length].
                x = torch.unflatten(x, 2, (parts, -1)).transpose(1, 2).flatten(0, 1)
                g = torch.unflatten(g, 2, (parts, -1)).transpose(1, 2).flatten(0, 1)
            places, padded = x.shape[1] * g.shape[3], x.shape[1] * x.shape[3]
            few = padded <= MOST_PLACES
            by_gram = padded * padded * x.shape[2] + places * places * g.shape[2]
            forming = places * g.shape[2] * x.shape[2] * self.kernel
            found = (
                chunked(self._by_gram, x, g, padded * padded)
                if few and by_gram <= forming
                else chunked(self._by_forming, x, g, g.shape[2] * x.shape[2] + x.shape[2] * padded)
            )
            return found if parts == 1 else Norms(*(part.view(patients, parts).sum(1) for part in found))

        return by_bucket(self.rows, grouped, self.x, self.g)

    def _window(self, tap: int, places: int) -> slice:
        """Where in a padded sequence the tap-th value of each of the windows stands."""
        start = tap * self.dilation
        return slice(start, start + (places - 1) * self.stride + 1, self.stride)

    def _by_gram(self, x: Tensor, g: Tensor) -> Norms:
        x, g = wide(x), wide(g)
        batch, several, _, padded = x.shape
        places = g.shape[3]
        tokens_x, tokens_g = x.mT.flatten(1, 2), g.mT.flatten(1, 2)
        products, gram = torch.bmm(tokens_x, tokens_x.mT), torch.bmm(tokens_g, tokens_g.mT)
        taps = [self._window(tap, places) for tap in range(self.kernel)]
        if several == 1:
            shifted = [products[:, tap, tap] for tap in taps]
        else:
            by_row = products.view(batch, several, padded, several, padded)
            shifted = [by_row[:, :, tap, :, tap] for tap in taps]
        windows = shifted[0] + shifted[1] if self.kernel > 1 else shifted[0]
        for more in shifted[2:]:
            windows += more
        square = (batch, several * places, several * places)
        d, p = x.shape[2] * self.kernel, g.shape[2]
        return norms_of_grams(windows.reshape(square), gram, d, p, d + p)

    def _by_forming(self, x: Tensor, g: Tensor) -> Norms:
        x, g = wide(x), wide(g)
        places = g.shape[3]
        pulls = g.mT.flatten(1, 2)
        squared = torch.zeros(len(g), dtype=torch.float64, device=g.device)
        for tap in range(self.kernel):
            values = x[..., self._window(tap, places)].mT.flatten(1, 2)
            squared += formed(pulls, values).square().sum((1, 2))
        energy = x.square().sum(2)
        windows = torch.stack([energy[..., self._window(tap, places)] for tap in range(self.kernel)]).sum(0)
        squares = (windows.flatten(1), g.square().sum(2).flatten(1))
        d, depth = x.shape[2] * self.kernel, forming_depth(x.shape[1] * places, x)
        return norms_of_lengths(squared, *squares, d=d, p=g.shape[2], depth=depth)

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """The convolution's own weight gradient, on weighted rows."""
        x = blanked(self.x, weights.bad_rows, self.ours).to(total.dtype)
        g = blanked(self.g, weights.bad_rows, ours=True).to(total.dtype)
        scale = weights.rows[:, None, None, None]
        x, g = (x * scale, g) if x.shape[1:].numel() <= g.shape[1:].numel() else (x, g * scale)
        before, behind = self.padding
        if before != behind:
            x, before = functional.pad(x, self.padding), 0
        _, gradient, _ = torch.ops.aten.convolution_backward(
            *(g.flatten(0, 1), x.flatten(0, 1), total, None),
            *([self.stride], [before], [self.dilation], False, [0], self.groups, [False, True, False]),
        )
        total.add_(gradient)

    def joined(self, others: Sequence[ConvOuter]) -> ConvOuter:
        """The places of several uses one after another."""
        uses = [self, *others]
        return replace(
            self, x=torch.cat([use.x for use in uses], dim=1), g=torch.cat([use.g for use in uses], dim=1), ours=True
        )

    def of_patient(self, patient: int, rows: slice) -> ConvOuter:
        """One patient's part, alone."""
        return replace(self, rows=one_patient(rows, self.g), x=self.x[rows], g=self.g[rows], ours=False)
