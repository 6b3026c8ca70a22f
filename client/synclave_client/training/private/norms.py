"""Norms of sums of outer products in float32, and bounds of what float32 can hide from them.

A gradient ``G = sum_t g_t x_t^T`` of one patient has ``|G|^2 = sum_{t,s} (x_t . x_s) (g_t . g_s)``: two Gram matrices
instead of a gradient. Every norm comes with its *reach* ``S = sum_t |g_t| |x_t|``, the largest that it could be, and
with a bound of what its square may lack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from synclave_client.training.private.batch import PatientRows

__all__ = [
    "CHUNK_VALUES",
    "MOST_PLACES",
    "SUM_DEPTH",
    "UNIT_ROUNDOFF",
    "Norms",
    "by_bucket",
    "chunked",
    "formed",
    "forming_depth",
    "gram",
    "gram_depth",
    "length",
    "norms_of_grams",
    "norms_of_lengths",
    "wide",
]

CHUNK_VALUES: Final = 2**20
"""Float32 values of scratch at a time, 4 MiB: small enough for a cache, large enough for an efficient product."""

UNIT_ROUNDOFF: Final = 2.0**-24
"""Of float32."""

SMALLEST_SQUARE: Final = 2.0**-126
"""Float32 numbers below it lose digits or vanish."""

LONGEST_PRODUCT: Final = 2**8
"""Numbers that are multiplied and added in a row before the sum is put aside."""

MOST_PLACES: Final = 2**7
"""Of one product in float32: of more the errors would show. They are taken in pieces, added up in float64."""

SUM_DEPTH: Final = 64
"""Roundings in a row of the cascaded sum of a Hadamard product, generously."""

LONG_VECTOR: Final = 2**16
"""Beyond it a float32 sum of squares may err by more than the fourth digit."""


class Norms(NamedTuple):
    """Per patient [B]: squared norm as computed, reach S, and a bound of what the squared norm may lack."""

    squared: Tensor
    reach: Tensor
    error: Tensor


def wide(values: Tensor) -> Tensor:
    """At least float32: products of bfloat16 numbers are exact there."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def length(values: Tensor) -> Tensor:
    """Euclidean norms over the last axis; long ones in float64, where float32 sums of squares would lose digits."""
    exact = torch.float64 if values.shape[-1] > LONG_VECTOR else None
    lengths: Tensor = torch.linalg.vector_norm(values, dim=-1, dtype=exact)
    return lengths


def by_bucket(rows: PatientRows, norms: Callable[[Tensor, Tensor], Norms], x: Tensor, g: Tensor) -> Norms:
    """Apply ``norms(x [b, T, ...], g [b, T, ...])`` to patients of equally many rows."""
    if rows.patient_of_row is None:
        return norms(x, g)
    totals = Norms(*(g.new_zeros(rows.patients, dtype=torch.float64) for _ in range(3)))
    for bucket in rows.buckets():
        for part, total in zip(norms(bucket.gather(x), bucket.gather(g)), totals, strict=True):
            bucket.scatter(part, total)
    return totals


def chunked(norms: Callable[[Tensor, Tensor], Norms], x: Tensor, g: Tensor, values_each: int) -> Norms:
    """Apply ``norms`` to as many patients at a time as fit into :data:`CHUNK_VALUES`, in float32 or wider."""
    each = max(1, CHUNK_VALUES // max(1, values_each))
    if len(x) <= each:
        return norms(wide(x), wide(g))
    parts = [norms(wide(a), wide(b)) for a, b in zip(torch.split(x, each), torch.split(g, each), strict=True)]
    return Norms(*(torch.cat(column) for column in zip(*parts, strict=True)))


def gram(values: Tensor) -> Tensor:
    """Inner products [b, T, T] of places [b, T, n], in pieces of n that keep rounding errors from growing with it."""
    if values.shape[2] <= LONGEST_PRODUCT:
        return torch.bmm(values, values.mT)
    total = values.new_zeros(values.shape[0], values.shape[1], values.shape[1])
    for part in torch.split(values, LONGEST_PRODUCT, dim=2):
        total.baddbmm_(part, part.mT)
    return total


def gram_depth(width: int) -> int:
    """How many roundings in a row an inner product of so many numbers has, as :func:`gram` takes it."""
    return min(width, LONGEST_PRODUCT) + -(-width // LONGEST_PRODUCT)


def norms_of_grams(x_gram: Tensor, g_gram: Tensor, d: int, p: int, depth: int) -> Norms:
    """From inner products [b, T, T] of inputs of d numbers and output gradients of p; their diagonals are lengths."""
    squared = (x_gram.flatten(1) * g_gram.flatten(1)).sum(1)
    x_squares, g_squares = (gram.diagonal(dim1=1, dim2=2) for gram in (x_gram, g_gram))
    return norms_of_lengths(squared, x_squares, g_squares, d=d, p=p, depth=depth + SUM_DEPTH)


def norms_of_lengths(
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


def formed(g: Tensor, x: Tensor) -> Tensor:
    """``sum_t g_t x_t^T`` [b, p, d] of g [b, T, p] and x [b, T, d]."""
    if x.shape[1] <= MOST_PLACES:
        return torch.bmm(g.mT, x)
    total = torch.zeros(len(x), g.shape[2], x.shape[2], dtype=torch.float64, device=x.device)
    for g_places, x_places in zip(torch.split(g, MOST_PLACES, 1), torch.split(x, MOST_PLACES, 1), strict=True):
        total += torch.bmm(g_places.mT, x_places)
    return total


def forming_depth(places: int) -> float:
    """As :func:`norms_of_lengths` wants it, for gradients that :func:`formed` added up over so many places.

    They err by ``T u S`` at most, so the squared norm n^2 by ``2 n T u S + (T u S)^2``, which is below
    ``2^-11 n^2 + 2^12 (T u S)^2``; the first part is within the margin under the clip norm.
    """
    return 2.0**12 * min(places, MOST_PLACES) ** 2 * UNIT_ROUNDOFF
