"""A parameter's per-patient gradients, kept as what they are made of and never formed for the whole batch.

A linear layer's gradient for one patient is a sum of outer products ``sum_t g_t x_t^T`` over its tokens t. Its norm
needs only the Gram matrices of the g_t and the x_t (ghost clipping: Lee and Kifer 2021; Li et al. 2022), or the
gradient of a few patients at a time, whichever is cheaper for the layer (mixed: Bu et al. 2022); the clipped sum is one
matrix product over all patients. The same holds for a look-up (x_t is one-hot) and a convolution (x_t is a window).

Every factor tells two numbers per patient: the squared norm, and its *reach* ``S = sum_t |g_t| |x_t|``, the largest
that the norm could be. Where tokens cancel, a norm is small against S and rounding could hide it; the caller floors it.

Shapes: ``R`` rows, ``B`` patients, ``T`` places in a row, ``p`` outputs, ``d`` inputs, ``V`` entries of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from synclave_client.training.private.batch import PatientRows, PatientWeights

__all__ = ["ConvOuter", "Coupled", "Dense", "Factor", "Lookup", "Norms", "Outer", "joined", "norms_of"]

CHUNK_VALUES: Final = 2**20
"""Float32 values of scratch at a time, 4 MiB: small enough for a cache, large enough for an efficient product."""

UNIT_ROUNDOFF: Final = 2.0**-24
"""Of float32."""

SMALLEST_SQUARE: Final = 2.0**-126
"""Float32 numbers below it lose digits or vanish."""

LONGEST_PRODUCT: Final = 2**10
"""Numbers that are multiplied and added in a row before the sum is put aside."""

SUM_DEPTH: Final = 64
"""Roundings in a row of the cascaded sum of a Hadamard product, generously."""

LONG_VECTOR: Final = 2**16
"""Beyond it a float32 sum of squares may err by more than the fourth digit."""

COUPLED_RESERVE: Final = 2.0**-28
"""Share of S^2 that is added to a coupling's squared norm; see the proof in :mod:`.engine`."""

COUPLED_ROWS_AT_ONCE: Final = 2**10
"""Rows (patients times levels) of one product of a coupling; the bound on its rounding grows with it."""


class Norms(NamedTuple):
    """Per patient [B]: squared norm as computed, reach S, and a bound of what the squared norm may lack."""

    squared: Tensor
    reach: Tensor
    error: Tensor


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

    def norms(self) -> Norms:
        """Norms of the patients' gradients."""
        ...

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """``total += sum_i weights[i] * gradient_i``; ``total`` has the parameter's shape."""
        ...

    def of_patient(self, patient: int, rows: slice) -> Factor:
        """One patient's part, alone."""
        ...


def _wide(values: Tensor) -> Tensor:
    """At least float32: products of bfloat16 numbers are exact there."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _blanked(values: Tensor, bad: Tensor, ours: bool) -> Tensor:
    """Zeros in the rows ``bad`` [k] of patients that do not count: 0 * NaN would be NaN.

    In place where the numbers are ours: it costs nothing then, whatever the data.
    """
    # An expanded tensor shows one number at many places; it cannot be written to.
    if ours and 0 not in values.stride():
        return values.index_fill_(0, bad, 0)
    return values.index_fill(0, bad, 0)


def _one_patient(rows: slice, like: Tensor) -> PatientRows:
    return PatientRows(
        patients=1, patient_of_row=torch.zeros(rows.stop - rows.start, dtype=torch.int64, device=like.device)
    )


def _by_bucket(rows: PatientRows, norms: Callable[[Tensor, Tensor], Norms], x: Tensor, g: Tensor) -> Norms:
    """Apply ``norms(x [b, T, ...], g [b, T, ...])`` to patients of equally many rows."""
    if rows.patient_of_row is None:
        return norms(x, g)
    totals = Norms(*(g.new_zeros(rows.patients, dtype=torch.float64) for _ in range(3)))
    for bucket in rows.buckets():
        for part, total in zip(norms(bucket.gather(x), bucket.gather(g)), totals, strict=True):
            bucket.scatter(part, total)
    return totals


def _chunked(norms: Callable[[Tensor, Tensor], Norms], x: Tensor, g: Tensor, values_each: int) -> Norms:
    """Apply ``norms`` to as many patients at a time as fit into :data:`CHUNK_VALUES`, in float32 or wider."""
    each = max(1, CHUNK_VALUES // max(1, values_each))
    if len(x) <= each:
        return norms(_wide(x), _wide(g))
    parts = [norms(_wide(a), _wide(b)) for a, b in zip(torch.split(x, each), torch.split(g, each), strict=True)]
    return Norms(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _length(values: Tensor) -> Tensor:
    """Euclidean norms over the last axis; long ones in float64, where float32 sums of squares would lose digits."""
    exact = torch.float64 if values.shape[-1] > LONG_VECTOR else None
    lengths: Tensor = torch.linalg.vector_norm(values, dim=-1, dtype=exact)
    return lengths


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
        return cls(rows=rows, values=rows.sum(_wide(values)))

    @property
    def places(self) -> int:
        """Places that are added up."""
        return 1

    def norms(self) -> Norms:
        """Those of the very numbers that are added."""
        length = _length(self.values.flatten(1))
        return Norms(length.square(), length, torch.zeros_like(length))

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """The small matrix of gradients, weighted and summed."""
        values = _blanked(self.values, weights.bad_patients, ours=True).flatten(1).to(total.dtype)
        total.view(-1).addmv_(values.T, weights.patients)

    def of_patient(self, patient: int, rows: slice) -> Dense:
        """One patient's part, alone."""
        return Dense(rows=_one_patient(rows, self.values), values=self.values[patient : patient + 1].clone())


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
    def places(self) -> int:
        """Places that are added up."""
        return self.x.shape[1]

    def norms(self) -> Norms:
        """By Gram matrices or by forming a few gradients at a time, whichever takes fewer products."""
        return _by_bucket(self.rows, _outer_norms, self.x, self.g)

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """One product over the rows of all patients."""
        self.put_weighted(weights, total, keep=1)

    def put_weighted(self, weights: PatientWeights, total: Tensor, keep: int) -> None:
        """``total = keep * total + ...``; with ``keep`` 0 the total need not have been cleared."""
        x, g = _blanked(self.x, weights.bad_rows, self.ours), _blanked(self.g, weights.bad_rows, ours=True)
        scale = weights.rows[:, None, None]
        if x.dtype == total.dtype == g.dtype:
            # The narrower side is scaled: the other may be a batch of vocabulary-wide rows.
            x, g = (x * scale, g) if x.shape[2] <= g.shape[2] else (x, g * scale)
            total.addmm_(g.flatten(0, 1).T, x.flatten(0, 1), beta=keep)
            return
        total.mul_(keep)
        each = max(1, CHUNK_VALUES // max(1, x.shape[1] * (x.shape[2] + g.shape[2])))
        for x_rows, g_rows, w_rows in zip(*(torch.split(part, each) for part in (x, g, scale)), strict=True):
            scaled = (x_rows.to(total.dtype) * w_rows).flatten(0, 1)
            total.addmm_(g_rows.to(total.dtype).flatten(0, 1).T, scaled)

    def of_patient(self, patient: int, rows: slice) -> Outer:
        """One patient's part, alone."""
        return replace(self, rows=_one_patient(rows, self.g), x=self.x[rows], g=self.g[rows], ours=False)


def _outer_norms(x: Tensor, g: Tensor) -> Norms:
    tokens, d, p = x.shape[1], x.shape[2], g.shape[2]
    if tokens == 1:
        return _norms_of_lengths(None, _length(_wide(x)).square(), _length(_wide(g)).square(), d=d, p=p, depth=0)
    if tokens * (p + d) <= p * d:
        return _chunked(_outer_norms_by_gram, x, g, tokens * tokens)
    return _chunked(_outer_norms_by_forming, x, g, p * d)


def _outer_norms_by_gram(x: Tensor, g: Tensor) -> Norms:
    d, p = x.shape[2], g.shape[2]
    return _norms_of_grams(_gram(x), _gram(g), d, p, _depth(d) + _depth(p))


def _gram(values: Tensor) -> Tensor:
    """Inner products [b, T, T] of places [b, T, n], in pieces of n that keep rounding errors from growing with it."""
    if values.shape[2] <= LONGEST_PRODUCT:
        return torch.bmm(values, values.mT)
    total = values.new_zeros(values.shape[0], values.shape[1], values.shape[1])
    for part in torch.split(values, LONGEST_PRODUCT, dim=2):
        total.baddbmm_(part, part.mT)
    return total


def _depth(width: int) -> int:
    """How many roundings in a row an inner product of so many numbers has, as :func:`_gram` takes it."""
    return min(width, LONGEST_PRODUCT) + -(-width // LONGEST_PRODUCT)


def _norms_of_grams(x_gram: Tensor, g_gram: Tensor, d: int, p: int, depth: int) -> Norms:
    """From inner products [b, T, T] of inputs of d numbers and output gradients of p; their diagonals are lengths."""
    squared = (x_gram.flatten(1) * g_gram.flatten(1)).sum(1)
    x_squares, g_squares = (gram.diagonal(dim1=1, dim2=2) for gram in (x_gram, g_gram))
    return _norms_of_lengths(squared, x_squares, g_squares, d=d, p=p, depth=depth + SUM_DEPTH)


def _norms_of_lengths(
    squared: Tensor | None, x_squares: Tensor, g_squares: Tensor, *, d: int, p: int, depth: float
) -> Norms:
    """Reach and error from squared lengths [b, T].

    Two things can be missing in a squared norm. Rounding: ``depth * 2^-24 S^2``. And squares below 2^-126, which vanish
    without a trace: inputs of 10^-25 would be taken for none, though output gradients of 10^30 make them count; that is
    ``max(d, p) 2^-126 ((sum_t |g_t|)^2 + (sum_t |x_t|)^2)`` at most. Where lengths exceed 2^64 it is infinite:
    there a clipped sum could round up, and such a patient does not count.

    Args:
        squared: [b], norms as computed; None: of a single place, where they are the products of lengths.
        x_squares: [b, T], of the inputs.
        g_squares: [b, T], of the output gradients.
        d: numbers in an input.
        p: numbers in an output gradient.
        depth: roundings, each of 2^-24 of the reach's square.
    """
    vanished = max(d, p) * SMALLEST_SQUARE
    lengths = torch.stack([x_squares, g_squares]).clamp_min_(0).add_(vanished).sqrt_()
    reach = (lengths[0] * lengths[1]).sum(1)
    squared_reach = reach.square()
    error = vanished * lengths.sum(2).square_().sum(0)
    error.add_(squared_reach, alpha=depth * UNIT_ROUNDOFF)
    return Norms(squared_reach if squared is None else squared, reach, error)


def _outer_norms_by_forming(x: Tensor, g: Tensor) -> Norms:
    squared = torch.bmm(g.mT, x).square().sum((1, 2))
    squares = (_length(x).square(), _length(g).square())
    return _norms_of_lengths(squared, *squares, d=x.shape[2], p=g.shape[2], depth=_forming_depth(x.shape[1]))


def _forming_depth(places: int) -> float:
    """As :func:`_norms_of_lengths` wants it, for gradients that were formed by adding up so many places.

    They err by ``T u S`` at most, so the squared norm n^2 by ``2 n T u S + (T u S)^2``, which is below
    ``2^-11 n^2 + 2^12 (T u S)^2``; the first part is within the margin under the clip norm.
    """
    return 2.0**12 * places**2 * UNIT_ROUNDOFF


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
    def places(self) -> int:
        """Places that are added up."""
        return self.ids.shape[1]

    def norms(self) -> Norms:
        """A patient's gradients of one entry are added before the norm is taken."""
        owners = self.rows.spread(torch.arange(self.rows.patients, device=self.ids.device))
        keys = owners[:, None] * self.entries + self.ids
        touched, place = torch.unique(keys, return_inverse=True)
        g = _wide(self.g)
        sums = g.new_zeros(len(touched), g.shape[2]).index_add_(0, place.flatten(), g.flatten(0, 1))
        squared = g.new_zeros(self.rows.patients).index_add_(0, touched // self.entries, sums.square().sum(1))
        reach = self.rows.sum(_length(g).sum(1))
        places = self.rows.most * self.ids.shape[1]
        return Norms(squared, reach, (_forming_depth(places) * UNIT_ROUNDOFF) * reach.square())

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """Each place is added at its entry."""
        g = _blanked(self.g, weights.bad_rows, ours=True).to(total.dtype) * weights.rows[:, None, None]
        total.index_add_(0, self.ids.flatten(), g.flatten(0, 1))

    def of_patient(self, patient: int, rows: slice) -> Lookup:
        """One patient's part, alone."""
        return replace(self, rows=_one_patient(rows, self.g), ids=self.ids[rows], g=self.g[rows])


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
            by_gram = padded * padded * x.shape[2] + places * places * g.shape[2]
            forming = places * g.shape[2] * x.shape[2] * self.kernel
            found = (
                _chunked(self._by_gram, x, g, padded * padded)
                if by_gram <= forming
                else _chunked(self._by_forming, x, g, g.shape[2] * x.shape[2] + x.shape[2] * padded)
            )
            return found if parts == 1 else Norms(*(part.view(patients, parts).sum(1) for part in found))

        return _by_bucket(self.rows, grouped, self.x, self.g)

    def _window(self, tap: int, places: int) -> slice:
        """Where in a padded sequence the tap-th value of each of the windows stands."""
        start = tap * self.dilation
        return slice(start, start + (places - 1) * self.stride + 1, self.stride)

    def _by_gram(self, x: Tensor, g: Tensor) -> Norms:
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
        return _norms_of_grams(windows.reshape(square), gram, d, p, d + p)

    def _by_forming(self, x: Tensor, g: Tensor) -> Norms:
        places = g.shape[3]
        pulls = g.transpose(1, 2).flatten(2)
        squared = g.new_zeros(len(g))
        for tap in range(self.kernel):
            values = x[..., self._window(tap, places)].mT.flatten(1, 2)
            squared += torch.bmm(pulls, values).square().sum((1, 2))
        energy = x.square().sum(2)
        windows = torch.stack([energy[..., self._window(tap, places)] for tap in range(self.kernel)]).sum(0)
        squares = (windows.flatten(1), g.square().sum(2).flatten(1))
        d, depth = x.shape[2] * self.kernel, _forming_depth(x.shape[1] * places)
        return _norms_of_lengths(squared, *squares, d=d, p=g.shape[2], depth=depth)

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """The convolution's own weight gradient, on weighted rows."""
        x = _blanked(self.x, weights.bad_rows, self.ours).to(total.dtype)
        g = _blanked(self.g, weights.bad_rows, ours=True).to(total.dtype)
        scale = weights.rows[:, None, None, None]
        x, g = (x * scale, g) if x[0].numel() <= g[0].numel() else (x, g * scale)
        before, behind = self.padding
        if before != behind:
            x, before = functional.pad(x, self.padding), 0
        # cuDNN would take TF32 by default, whose rounding the margin under the clip norm does not cover.
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            _, gradient, _ = torch.ops.aten.convolution_backward(
                *(g.flatten(0, 1), x.flatten(0, 1), total, None),
                *([self.stride], [before], [self.dilation], False, [0], self.groups, [False, True, False]),
            )
        total.add_(gradient)

    def of_patient(self, patient: int, rows: slice) -> ConvOuter:
        """One patient's part, alone."""
        return replace(self, rows=_one_patient(rows, self.g), x=self.x[rows], g=self.g[rows], ours=False)


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
    def places(self) -> int:
        """Places that are added up."""
        return self.x.shape[1]

    def norms(self) -> Norms:
        """In float64. The reach is not floored (0): the proof in :mod:`.engine` needs the error only."""
        return _by_bucket(self.rows, lambda x, g: _chunked(_coupled_norms, x, g, 2 * x[0].numel()), self.x, self.g)

    def add_weighted(self, weights: PatientWeights, total: Tensor) -> None:
        """In float64, at most :data:`COUPLED_ROWS_AT_ONCE` rows in one product."""
        outer = total.new_zeros(self.x.shape[2], self.x.shape[2])
        scale = weights.rows[:, None].expand(self.g.shape[:2]).flatten()
        blanked = (_blanked(self.g, weights.bad_rows, ours=True), _blanked(self.x, weights.bad_rows, self.ours))
        parts = (torch.split(values.flatten(0, 1), COUPLED_ROWS_AT_ONCE) for values in blanked)
        for g, x, w in zip(*parts, torch.split(scale, COUPLED_ROWS_AT_ONCE), strict=True):
            outer.addmm_((g.to(total.dtype) * w[:, None]).T, x.to(total.dtype))
        rows, columns = torch.triu_indices(*outer.shape, device=outer.device)
        total.add_((outer.triu() + outer.tril(-1).T)[rows, columns])

    def of_patient(self, patient: int, rows: slice) -> Coupled:
        """One patient's part, alone."""
        return replace(self, rows=_one_patient(rows, self.g), x=self.x[rows], g=self.g[rows], ours=False)


def _coupled_norms(x: Tensor, g: Tensor) -> Norms:
    """Norms of folded gradients.

    With ``G = sum_t g_t x_t^T`` the folded gradient is ``G_ij + G_ji`` for i < j and ``G_ii`` on the diagonal; its
    squared norm is ``|G|^2 + tr(G G) - sum_i G_ii^2``, all from T x T products.
    """
    x, g = x.double(), g.double()
    crossed = torch.bmm(g, x.mT)
    squared = (torch.bmm(g, g.mT) * torch.bmm(x, x.mT)).sum((1, 2))
    squared = squared + (crossed * crossed.mT).sum((1, 2)) - (g * x).sum(1).square().sum(1)
    reach = (_length(g) * _length(x)).sum(1)
    return Norms(squared.clamp_min(0), torch.zeros_like(reach), COUPLED_RESERVE * reach.square())


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
    """The uses of one parameter with those of a kind made one: a layer that is called twice sees twice the places."""
    groups: dict[object, list[Factor]] = {}
    for factor in factors:
        same = (type(factor), factor.geometry if isinstance(factor, ConvOuter) else None)
        groups.setdefault(same, []).append(factor)
    return [group[0] if len(group) == 1 else _one(group) for group in groups.values()]


def _one(group: Sequence[Factor]) -> Factor:
    first = group[0]

    def together(side: str) -> Tensor:
        return torch.cat([getattr(part, side) for part in group], dim=1)

    match first:
        case Dense():
            return replace(first, values=torch.stack([part.values for part in group if isinstance(part, Dense)]).sum(0))
        case Lookup():
            return replace(first, ids=together("ids"), g=together("g"))
        case Outer() | ConvOuter() | Coupled():
            return replace(first, x=together("x"), g=together("g"), ours=True)
    raise TypeError(f"unknown factor {type(first).__name__}")


def _tied_norms(lookup: Lookup, outer: Outer) -> Norms:
    """A table that embeds tokens t (ids_t, e_t) and decodes tokens s (x_s, g_s), exactly.

    ``|E + D|^2 = |E|^2 + |D|^2 + 2 sum_{t,s} g_s[ids_t] (e_t . x_s)``: one gather instead of a V x d gradient.
    """
    own, other = lookup.norms(), outer.norms()
    cross = torch.zeros_like(other.squared)
    for bucket in lookup.rows.buckets():
        ids, e = bucket.gather(lookup.ids), bucket.gather(lookup.g)
        x, g = bucket.gather(outer.x), bucket.gather(outer.g)
        pulled = torch.gather(g, 2, ids[:, None, :].expand(-1, g.shape[1], -1))
        bucket.scatter((_wide(pulled) * torch.bmm(_wide(x), _wide(e).mT)).sum((1, 2)), cross)
    reach = own.reach + other.reach
    crossing = ((_depth(lookup.g.shape[2]) + SUM_DEPTH) * UNIT_ROUNDOFF) * reach.square()
    return Norms(own.squared + other.squared + 2 * cross, reach, own.error + other.error + crossing)


def _norms_one_by_one(factors: Sequence[Factor], like: Tensor) -> Norms:
    """One patient at a time, for what no product covers (say, a bias that is also added elsewhere)."""
    rows = factors[0].rows
    owners = rows.spread(torch.arange(rows.patients, device=like.device))
    ends = torch.bincount(owners, minlength=rows.patients).cumsum(0).tolist()
    squared = like.new_zeros(rows.patients)
    for patient, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        own = torch.zeros_like(like)
        for factor in factors:
            part = factor.of_patient(patient, slice(start, stop))
            part.add_weighted(PatientWeights.of(like.new_ones(1), part.rows, like.dtype), own)
        squared[patient] = own.square().sum()
    reach = torch.stack([factor.norms().reach.to(like.dtype) for factor in factors]).sum(0)
    places = rows.most * sum(factor.places for factor in factors)
    return Norms(squared, reach, (_forming_depth(places) * UNIT_ROUNDOFF) * reach.square())
