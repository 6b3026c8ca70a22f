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
from torch.nn import functional

from synclave_client.training.private.batch import PatientRows

__all__ = [
    "CHUNK_VALUES",
    "MOST_PLACES",
    "SUM_DEPTH",
    "UNIT_ROUNDOFF",
    "Norms",
    "by_bucket",
    "chunk_values",
    "chunked",
    "formed",
    "forming_depth",
    "gram",
    "gram_depth",
    "gram_scratch",
    "length",
    "norms_of_grams",
    "norms_of_lengths",
    "on_tensor_cores",
    "product",
    "wide",
]

CHUNK_VALUES: Final = 2**20
"""Float32 values of scratch at a time, 4 MiB: small enough for a cache, large enough for an efficient product."""

CUDA_CHUNK_VALUES: Final = 2**26
"""On a GPU, 256 MiB: a small product takes longer to begin than to compute."""

UNIT_ROUNDOFF: Final = 2.0**-24
"""Of float32."""

SMALLEST_SQUARE: Final = 2.0**-126
"""Float32 numbers below it lose digits or vanish."""

LONGEST_PRODUCT: Final = 2**8
"""Numbers that are multiplied and added in a row before the sum is put aside; see :func:`_longest_product`."""

SHORTEST_PRODUCT: Final = 2**6
"""Shorter ones would cost more than they gain."""

MOST_PLACES: Final = 2**7
"""Added up in one product in float32: of more the errors would show. They are taken in pieces, added in float64."""

CUT_OFF: Final = 4
"""Tensor cores multiply bfloat16 numbers exactly and add up in float32, but cut digits off where others round, several
times in one sum (Fasi et al. 2021): at most two units of roundoff for each number and sum, twice that to be safe."""

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
    exact = torch.float64 if values.shape[-1] > LONG_VECTOR else torch.promote_types(values.dtype, torch.float32)
    lengths: Tensor = torch.linalg.vector_norm(values, dim=-1, dtype=exact)
    return lengths


def _on_gpu(values: Tensor) -> bool:
    return values.is_cuda


def on_tensor_cores(values: Tensor) -> bool:
    """Whether products of such numbers are taken as they are, exactly and added up in float32."""
    return _on_gpu(values) and values.dtype == torch.bfloat16


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix products [b, n, m] of [b, n, k] and [b, k, m], in float32 or wider whatever the type of the numbers."""
    if on_tensor_cores(left) and on_tensor_cores(right):
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(wide(left), wide(right))


def by_bucket(rows: PatientRows, norms: Callable[[Tensor, Tensor], Norms], x: Tensor, g: Tensor) -> Norms:
    """Apply ``norms(x [b, T, ...], g [b, T, ...])`` to patients of equally many rows."""
    if rows.patient_of_row is None:
        return norms(x, g)
    totals = Norms(*(g.new_zeros(rows.patients, dtype=torch.float64) for _ in range(3)))
    for bucket in rows.buckets():
        for part, total in zip(norms(bucket.gather(x), bucket.gather(g)), totals, strict=True):
            bucket.scatter(part, total)
    return totals


def chunk_values(values: Tensor) -> int:
    """Values of scratch at a time where these numbers are."""
    return CUDA_CHUNK_VALUES if _on_gpu(values) else CHUNK_VALUES


def chunked(norms: Callable[[Tensor, Tensor], Norms], x: Tensor, g: Tensor, values_each: int) -> Norms:
    """Apply ``norms`` to as many patients at a time as fit into :func:`chunk_values`.

    They are given in float32 or wider, or in the bfloat16 that :func:`product` can take.
    """
    each = max(1, chunk_values(x) // max(1, values_each))
    if len(x) <= each:
        return norms(_ready(x), _ready(g))
    parts = [norms(_ready(a), _ready(b)) for a, b in zip(torch.split(x, each), torch.split(g, each), strict=True)]
    return Norms(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _ready(values: Tensor) -> Tensor:
    return values if on_tensor_cores(values) else wide(values)


def gram(values: Tensor) -> Tensor:
    """Inner products [b, T, T] of places [b, T, n], in pieces of n that keep rounding errors from growing with it."""
    longest = _longest_product(values)
    if values.shape[2] <= longest:
        return product(values, values.mT)
    if _on_gpu(values):
        # All pieces in one product.
        lacking = -values.shape[2] % longest
        whole = functional.pad(values, (0, lacking)) if lacking else values
        pieces = whole.unflatten(2, (-1, longest)).transpose(1, 2).flatten(0, 1)  # type: ignore[no-untyped-call]
        return product(pieces, pieces.mT).view(len(values), -1, values.shape[1], values.shape[1]).sum(1)
    total = values.new_zeros(values.shape[0], values.shape[1], values.shape[1])
    for part in torch.split(values, longest, dim=2):
        total.baddbmm_(part, part.mT)
    return total


def gram_scratch(values: Tensor) -> int:
    """Numbers for each patient that :func:`gram` makes on the way."""
    pieces = -(-values.shape[2] // _longest_product(values)) if _on_gpu(values) else 1
    return pieces * values.shape[1] ** 2


def gram_depth(values: Tensor) -> int:
    """How many roundings in a row an inner product of such places has, as :func:`gram` takes it."""
    longest, width = _longest_product(values), values.shape[2]
    return (min(width, longest) + -(-width // longest)) * _cut_off(values)


def _longest_product(values: Tensor) -> int:
    """The more places there are, the more cancels of their sum, and the less may be lost in each product."""
    longest = 2**15 // (max(1, values.shape[1]) * _cut_off(values))
    return min(LONGEST_PRODUCT, max(SHORTEST_PRODUCT, 1 << max(0, longest.bit_length() - 1)))


def _cut_off(values: Tensor) -> int:
    return CUT_OFF if on_tensor_cores(values) else 1


def norms_of_grams(x_gram: Tensor, g_gram: Tensor, d: int, p: int, depth: int) -> Norms:
    """From inner products [b, T, T] of inputs of d numbers and output gradients of p; their diagonals are lengths."""
    squared = (x_gram * g_gram).sum(2).sum(1)
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
        return product(g.mT, x)
    total = torch.zeros(len(x), g.shape[2], x.shape[2], dtype=torch.float64, device=x.device)
    for g_places, x_places in zip(torch.split(g, MOST_PLACES, 1), torch.split(x, MOST_PLACES, 1), strict=True):
        total += product(g_places.mT, x_places)
    return total


def forming_depth(places: int, values: Tensor) -> float:
    """As :func:`norms_of_lengths` wants it, for gradients that :func:`formed` added up over so many places.

    They err by ``T u S`` at most, so the squared norm n^2 by ``2 n T u S + (T u S)^2``, which is below
    ``2^-11 n^2 + 2^12 (T u S)^2``; the first part is within the margin under the clip norm.
    """
    return 2.0**12 * (min(places, MOST_PLACES) * _cut_off(values)) ** 2 * UNIT_ROUNDOFF
