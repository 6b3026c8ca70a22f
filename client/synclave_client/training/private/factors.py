"""A parameter's per-patient gradients, kept as what they are made of and never formed for the whole batch.

A linear layer's gradient for one patient is a sum of outer products ``sum_t g_t x_t^T`` over its tokens t. Its norm
needs only the Gram matrices of the g_t and the x_t (ghost clipping: Lee and Kifer 2021; Li et al. 2022), or the
gradient of a few patients at a time, whichever is cheaper for the layer (mixed: Bu et al. 2022); the clipped sum is one
matrix product over all patients. The same holds for a look-up (x_t is one-hot) and a convolution (x_t is a window).

Shapes: ``R`` rows, ``B`` patients, ``T`` places in a row, ``p`` outputs, ``d`` inputs, ``V`` entries of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self

import torch
from torch import Tensor

from synclave_client.training.private.batch import PatientRows, PatientWeights
from synclave_client.training.private.norms import (
    MOST_PLACES,
    UNIT_ROUNDOFF,
    Norms,
    by_bucket,
    chunk_values,
    chunked,
    formed,
    forming_depth,
    gram,
    gram_depth,
    gram_scratch,
    length,
    norms_of_grams,
    norms_of_lengths,
    on_tensor_cores,
    product,
    wide,
)

__all__ = ["Dense", "Factor", "Lookup", "Outer", "blanked", "joined", "norms_of", "one_patient"]


PLACES_IN_A_ROW: Final = 2**12
"""Of one product on tensor cores, which cut digits off: of more it would show in the sum."""


class Factor(Protocol):
    """The gradients of one parameter in one use of its layer."""

    @property
    def rows(self) -> PatientRows:
        """Which rows are whose."""
        ...

    @property
    def places(self) -> int:
        """Places T of a row that are added up."""
        ...

    @property
    def geometry(self) -> tuple[object, ...]:
        """What two uses of a kind must share to be joined."""
        ...

    def joined(self, others: Sequence[Self]) -> Self:
        """One factor for several uses: a layer that is called twice sees twice the places."""
        ...

    def norms(self) -> Norms:
        """Norms of the patients' gradients."""
        ...

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """``total += sum_i weights[i] * gradient_i``; ``total`` has the parameter's shape."""
        ...

    def of_patient(self, patient: int, rows: slice) -> Factor:
        """One patient's part, alone."""
        ...


def blanked(values: Tensor, bad: Tensor, ours: bool) -> Tensor:
    """Zeros in the rows ``bad`` [k] of patients that do not count: 0 * NaN would be NaN.

    In place where the numbers are ours: it costs nothing then, whatever the data.
    """
    # An expanded tensor shows one number at many places; it cannot be written to.
    if ours and 0 not in values.stride():
        return values.index_fill_(0, bad, 0)
    return values.index_fill(0, bad, 0)


def one_patient(rows: slice, like: Tensor) -> PatientRows:
    """All of these rows as one patient's."""
    return PatientRows(
        patients=1, patient_of_row=torch.zeros(rows.stop - rows.start, dtype=torch.int64, device=like.device)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """Gradients that are small enough to be formed: biases, scales, bare parameters.

    Attributes:
        values: [B, ...], one gradient per patient. Rows are added *before* norms are taken and weights applied: if
            they cancel, norm and contribution must lose the same digits.
    """

    rows: PatientRows
    values: Tensor

    @classmethod
    def of(cls, rows: PatientRows, values: Tensor) -> Dense:
        """From one gradient per row [R, ...]."""
        return cls(rows=rows, values=rows.sum(wide(values)))

    @property
    def geometry(self) -> tuple[object, ...]:
        """Any two uses can be joined."""
        return ()

    @property
    def places(self) -> int:
        """Places that are added up."""
        return 1

    def norms(self) -> Norms:
        """Those of the very numbers that are added."""
        own = length(self.values.flatten(1))
        return Norms(own.square(), own, torch.zeros_like(own))

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """The small matrix of gradients, weighted and summed."""
        values = blanked(self.values, weights.bad_patients, ours=True).flatten(1).to(total.dtype)
        total.view(-1).addmv_(values.T, weights.patients)

    def joined(self, others: Sequence[Dense]) -> Dense:
        """Gradients of several uses are added before anything else."""
        return replace(self, values=torch.stack([self.values, *(other.values for other in others)]).sum(0))

    def of_patient(self, patient: int, rows: slice) -> Dense:
        """One patient's part, alone."""
        return Dense(rows=one_patient(rows, self.values), values=self.values[patient : patient + 1].clone())


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """``sum_t g_t x_t^T``: the weight of a linear layer.

    Attributes:
        x: [R, T, d], inputs.
        g: [R, T, p], gradients at the outputs.
        ours: whether x may be overwritten (it is not the caller's data).
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
        """By Gram matrices or by forming a few gradients at a time, whichever takes fewer products."""
        return by_bucket(self.rows, _outer_norms, self.x, self.g)

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """One product over the rows of all patients."""
        self.put_weighted(weights, total, keep=1)

    def put_weighted(self, weights: PatientWeights, total: Tensor, keep: int) -> None:
        """``total = keep * total + ...``; with ``keep`` 0 the total need not have been cleared."""
        x, g = blanked(self.x, weights.bad_rows, self.ours), blanked(self.g, weights.bad_rows, ours=True)
        scale = weights.rows[:, None, None]
        if x.dtype == total.dtype == g.dtype:
            # The narrower side is scaled: the other may be a batch of vocabulary-wide rows.
            x, g = (x * scale, g) if x.shape[2] <= g.shape[2] else (x, g * scale)
            total.addmm_(g.flatten(0, 1).T, x.flatten(0, 1), beta=keep)
            return
        if keep == 0:
            total.zero_()
        if on_tensor_cores(x) and on_tensor_cores(g) and total.dtype == torch.float32:
            _add_on_tensor_cores(x, g, scale, total)
            return
        each = max(1, chunk_values(x) // max(1, x.shape[1] * (x.shape[2] + g.shape[2])))
        for x_rows, g_rows, w_rows in zip(*(torch.split(part, each) for part in (x, g, scale)), strict=True):
            scaled = (x_rows.to(total.dtype) * w_rows).flatten(0, 1)
            total.addmm_(g_rows.to(total.dtype).flatten(0, 1).T, scaled)

    def joined(self, others: Sequence[Outer]) -> Outer:
        """The places of several uses one after another."""
        uses = [self, *others]
        return replace(
            self, x=torch.cat([use.x for use in uses], dim=1), g=torch.cat([use.g for use in uses], dim=1), ours=True
        )

    def of_patient(self, patient: int, rows: slice) -> Outer:
        """One patient's part, alone."""
        return replace(self, rows=one_patient(rows, self.g), x=self.x[rows], g=self.g[rows], ours=False)


def _outer_norms(x: Tensor, g: Tensor) -> Norms:
    tokens, d, p = x.shape[1], x.shape[2], g.shape[2]
    if tokens == 1:
        return norms_of_lengths(None, length(wide(x)).square(), length(wide(g)).square(), d=d, p=p, depth=0)
    if tokens * (p + d) <= p * d:
        return chunked(_outer_norms_by_gram, x, g, max(gram_scratch(x), gram_scratch(g)))
    return chunked(_outer_norms_by_forming, x, g, p * d)


def _outer_norms_by_gram(x: Tensor, g: Tensor) -> Norms:
    d, p = x.shape[2], g.shape[2]
    return norms_of_grams(gram(x), gram(g), d, p, gram_depth(x) + gram_depth(g))


def _outer_norms_by_forming(x: Tensor, g: Tensor) -> Norms:
    squared = formed(g, x).square().sum((1, 2))
    squares = (length(x).square(), length(g).square())
    return norms_of_lengths(squared, *squares, d=x.shape[2], p=g.shape[2], depth=forming_depth(x.shape[1], x))


def _add_on_tensor_cores(x: Tensor, g: Tensor, scale: Tensor, total: Tensor) -> None:
    """``total [p, d] += sum_r scale_r g_r x_r^T`` of bfloat16 numbers on a GPU, as exactly as in float32.

    The scaled side is split into three parts that bfloat16 holds. A float32 product of the same matrices takes more
    than ten times as long.
    """
    flat_x, flat_g = x.flatten(0, 1), g.flatten(0, 1)
    by_x = x.shape[2] <= g.shape[2]
    parts = _thirds(((x if by_x else g) * scale).flatten(0, 1))
    left, right = (flat_g, parts) if by_x else (parts, flat_x)
    for a, b in zip(torch.split(left, PLACES_IN_A_ROW), torch.split(right, PLACES_IN_A_ROW), strict=True):
        found = product(a.T[None], b[None])[0]
        shape = (len(total), 3, -1) if by_x else (3, *total.shape)
        total += found.view(shape).sum(1 if by_x else 0)


def _thirds(values: Tensor) -> Tensor:
    """Float32 numbers [n, m] as sums of three bfloat16 numbers each, side by side [n, 3 m]: 3 x 8 digits are 24.

    The numbers are used up.
    """
    parts = torch.empty(len(values), 3, values.shape[1], dtype=torch.bfloat16, device=values.device)
    for part in parts.unbind(1):
        part.copy_(values)
        values.sub_(part)
    return parts.flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Rows ``g_t`` added at the entries ``ids_t``: the weight of an embedding.

    Attributes:
        ids: int64 [R, T].
        g: [R, T, d].
        entries: V.
    """

    rows: PatientRows
    ids: Tensor
    g: Tensor
    entries: int

    @property
    def geometry(self) -> tuple[object, ...]:
        """Any two uses can be joined."""
        return ()

    @property
    def places(self) -> int:
        """Places that are added up."""
        return self.ids.shape[1]

    def norms(self) -> Norms:
        """A patient's gradients of one entry are added before the norm is taken."""
        owners, _, sums = self._sums()
        squared = sums.new_zeros(self.rows.patients).index_add_(0, owners, sums.square().sum(1))
        reach = self.rows.sum(length(wide(self.g)).sum(1))
        return Norms(squared, reach, (forming_depth(self._places_each, sums) * UNIT_ROUNDOFF) * reach.square())

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """Each place is added at its entry; many places of a patient first to each other, as for the norm."""
        if self._places_each > MOST_PLACES:
            owners, entries, sums = replace(self, g=blanked(self.g, weights.bad_rows, ours=True))._sums()
            total.index_add_(0, entries, (sums * weights.patients[owners][:, None]).to(total.dtype))
            return
        g = blanked(self.g, weights.bad_rows, ours=True).to(total.dtype) * weights.rows[:, None, None]
        total.index_add_(0, self.ids.flatten(), g.flatten(0, 1))

    @property
    def _places_each(self) -> int:
        return self.rows.most * self.ids.shape[1]

    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Patient, entry and gradient [n, d] of each pair that occurs; of very many places in float64."""
        owners = self.rows.spread(torch.arange(self.rows.patients, device=self.ids.device))
        keys = owners[:, None] * self.entries + self.ids
        touched, place = torch.unique(keys, return_inverse=True)
        g = wide(self.g) if self._places_each <= MOST_PLACES else self.g.double()
        sums = g.new_zeros(len(touched), g.shape[2]).index_add_(0, place.flatten(), g.flatten(0, 1))
        return touched // self.entries, touched % self.entries, sums

    def joined(self, others: Sequence[Lookup]) -> Lookup:
        """The places of several uses one after another."""
        uses = [self, *others]
        return replace(
            self, ids=torch.cat([use.ids for use in uses], dim=1), g=torch.cat([use.g for use in uses], dim=1)
        )

    def of_patient(self, patient: int, rows: slice) -> Lookup:
        """One patient's part, alone."""
        return replace(self, rows=one_patient(rows, self.g), ids=self.ids[rows], g=self.g[rows])


def norms_of(factors: Sequence[Factor], like: Tensor) -> Norms:
    """Norms of a parameter's gradients, which are the sum over all its uses, cross terms included.

    Args:
        factors: of all uses, as :func:`joined` gives them.
        like: a tensor of the parameter's shape, in the type of its sums.
    """
    if len(factors) == 1:
        return factors[0].norms()
    lookups = [factor for factor in factors if isinstance(factor, Lookup)]
    outers = [factor for factor in factors if isinstance(factor, Outer)]
    if len(factors) == 2 and lookups and outers:
        return _tied_norms(lookups[0], outers[0])
    return _norms_one_by_one(factors, like)


def joined(factors: Sequence[Factor]) -> list[Factor]:
    """The uses of one parameter with those of a kind made one."""
    groups: dict[object, list[Any]] = {}
    for factor in factors:
        groups.setdefault((type(factor), factor.geometry), []).append(factor)
    return [first.joined(others) if others else first for first, *others in groups.values()]


def _tied_norms(lookup: Lookup, outer: Outer) -> Norms:
    """A table that embeds tokens t (ids_t, e_t) and decodes tokens s (x_s, g_s), exactly.

    ``|E + D|^2 = |E|^2 + |D|^2 + 2 sum_{t,s} g_s[ids_t] (e_t . x_s)``: one gather instead of a V x d gradient.
    """
    own, other = lookup.norms(), outer.norms()
    # In float64: the two may cancel, and nothing else bounds what the cross term lacks.
    cross = torch.zeros_like(other.squared, dtype=torch.float64)
    for bucket in lookup.rows.buckets():
        ids, e = bucket.gather(lookup.ids), bucket.gather(lookup.g)
        x, g = bucket.gather(outer.x), bucket.gather(outer.g)
        pulled = torch.gather(g, 2, ids[:, None, :].expand(-1, g.shape[1], -1))
        bucket.scatter((pulled * torch.bmm(x.double(), e.double().mT)).sum((1, 2)), cross)
    return Norms(own.squared + other.squared + 2 * cross, own.reach + other.reach, own.error + other.error)


def _norms_one_by_one(factors: Sequence[Factor], like: Tensor) -> Norms:
    """One patient at a time, for what no product covers (say, a bias that is also added elsewhere)."""
    rows = factors[0].rows
    owners = rows.spread(torch.arange(rows.patients, device=like.device))
    ends = torch.bincount(owners, minlength=rows.patients).cumsum(0).tolist()
    squared = torch.zeros(rows.patients, dtype=torch.float64, device=like.device)
    for patient, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        if start == stop:
            continue
        own = torch.zeros_like(like, dtype=torch.float64)
        for factor in factors:
            part = factor.of_patient(patient, slice(start, stop))
            part.add_weighted(PatientWeights.of(like.new_ones(1), part.rows, own.dtype), own)
        squared[patient] = own.square().sum()
    reach = torch.stack([factor.norms().reach.double() for factor in factors]).sum(0)
    return Norms(squared, reach, torch.zeros_like(squared))
