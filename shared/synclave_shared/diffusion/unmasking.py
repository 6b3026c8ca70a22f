"""Filling the masked places of documents with a masked language model, many places per call.

Masked diffusion (Sahoo et al. 2024) read backwards: each call predicts every place that is still masked, draws a token
for each, and keeps some of the draws: the surest ones (Chang et al. 2022), those with the least entropy, random ones,
or the next in reading order. With as many calls as places, one place is filled at a time.

Shapes: ``R`` documents (or chunks), ``T`` tokens, ``M`` masked places at most, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import torch
from torch import Tensor

__all__ = ["ORDERS", "Order", "draw_tokens", "unmask"]

Order = Literal["confidence", "entropy", "random", "left-to-right"]
ORDERS: Final[tuple[Order, ...]] = ("confidence", "entropy", "random", "left-to-right")
"""Which draws a call keeps; the first is the recommended one."""

DONE: Final = -torch.inf
"""Score of a place that is filled, or was never masked."""


@torch.inference_mode()
def unmask(
    logits_of: Callable[[Tensor, Tensor], Tensor],
    ids: Tensor,
    masked: Tensor,
    *,
    calls: int,
    uniforms: Callable[[int], Tensor],
    order: Order = "confidence",
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    forbidden: Tensor | None = None,
    places: int | None = None,
) -> Tensor:
    """Fill all masked places in at most ``calls`` calls of the network.

    A document's result depends on its own row of every argument alone, if ``logits_of`` treats rows apart and
    ``places`` is given.

    Args:
        logits_of: ids [R, T] and positions [R, M] -> logits [R, M, V] there, of any floating type.
        ids: int64 [R, T]; masked places hold the mask token.
        masked: bool [R, T], the places to fill.
        calls: of the network, 8 to 32 where quality matters.
        uniforms: number of a stream, from 0 -> numbers inside (0, 1), float [R, M]; two streams for each call. Taken
            from each document's own randomness, they make it independent of the batch.
        order: which draws a call keeps.
        temperature: of the draws; below 1 likelier tokens become likelier. 0: always the likeliest.
        top_k: only so many likeliest tokens are drawn; 0: all.
        top_p: only the likeliest tokens whose probabilities add up to this are drawn; 1: all.
        forbidden: bool [V], or [R, V] for what only some documents must not hold; never drawn.
        places: M; None: of the document with the most masked places.

    Returns:
        int64 [R, T].

    Raises:
        ValueError: if a number is out of range, a document has more than M masked places, or all tokens are forbidden.
    """
    if calls < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1 or order not in ORDERS:
        raise ValueError(f"calls from 1, temperature and top_k from 0, top_p in (0, 1], order one of {ORDERS}")
    if forbidden is not None and bool(forbidden.all(dim=-1).any()):
        raise ValueError("all tokens are forbidden")
    counts = masked.sum(dim=1)
    most = int(counts.max()) if len(counts) else 0
    width = most if places is None else places
    if most > width:
        raise ValueError(f"{most} masked places in a document, and room for {width}")
    if most == 0:
        return ids.clone()
    # Stable: masked places come first, in reading order.
    positions = masked.logical_not().to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    is_open = torch.arange(width, device=ids.device) < counts[:, None]
    filled = ids.clone()
    for call in range(min(calls, most)):
        # Only places that are still open go through the vocabulary: of the longest document possible there are so many.
        room = width - _filled_after(torch.tensor(width), call, calls)
        rank = is_open.logical_not().to(torch.int8).argsort(dim=1, stable=True)[:, : int(room)]
        asked = is_open.gather(1, rank)
        at = torch.where(asked, positions.gather(1, rank), 0)
        logits = logits_of(filled, at).float()
        if forbidden is not None:
            logits = logits.masked_fill(forbidden if forbidden.ndim == 1 else forbidden[:, None], -torch.inf)
        uniform = uniforms(2 * call).gather(1, rank)
        tokens, probability = draw_tokens(logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p)
        score = _score(order, logits, probability, rank, partial(uniforms, 2 * call + 1))
        score = torch.where(asked, score.double(), DONE)
        number = _filled_after(counts, call + 1, calls) - (counts - is_open.sum(dim=1))
        place_of = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
        now = asked & (place_of < number[:, None])
        _put(filled, at, tokens, now)
        is_open = is_open.scatter(1, rank, asked & ~now)
    return filled


def _filled_after(counts: Tensor, call: int, calls: int) -> Tensor:
    """Of n places ceil(n call / calls), in equal parts; with fewer places than calls, one a call."""
    return torch.minimum(counts, -(-counts * call // counts.clamp(1, calls)))


def draw_tokens(
    logits: Tensor, uniform: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One token for each place, by the inverse of its distribution function.

    Args:
        logits: float32 [..., V]; minus infinity is never drawn.
        uniform: inside (0, 1), [...].
        temperature: as in :func:`unmask`.
        top_k: likewise, of the tempered distribution.
        top_p: likewise.

    Returns:
        Tokens int64 [...], and how probable each was, before tempering and cutting [...].
    """
    log_probability = logits.log_softmax(dim=-1)
    if temperature == 0:
        best, token = log_probability.max(dim=-1)
        return token, best.exp()
    tempered = logits / temperature
    if top_k:
        likeliest, token_of = tempered.topk(min(top_k, logits.shape[-1]), dim=-1)
        token = token_of.gather(-1, _inverse(_cut(likeliest.softmax(dim=-1).double(), top_p), uniform)[0])
    else:
        token = _from_top_p(tempered.softmax(dim=-1), uniform, top_p)
    return token[..., 0], log_probability.gather(-1, token)[..., 0].exp()


def _from_top_p(weight: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """A token of each place [..., 1] of the likeliest ones of weights [..., V], for most places without ordering them.

    A token is drawn of all. Where it is not among the likeliest, another one is drawn of those, with what is left of
    the place's number: where it lies between the first token's two ends is as even as the number itself.
    """
    token, left = _inverse(weight, uniform)
    if top_p == 1:
        return token
    own = weight.gather(-1, token)
    before = torch.arange(weight.shape[-1], device=weight.device) < token
    likelier = (weight > own) | ((weight == own) & before)
    out = torch.where(likelier, weight, 0.0).sum(dim=-1, dtype=torch.float64) >= top_p
    if bool(out.any()):
        ordered, token_of = weight[out].sort(dim=-1, descending=True, stable=True)
        token[out] = token_of.gather(-1, _inverse(_cut(ordered.double(), top_p), left[out])[0])
    return token


def _cut(weight: Tensor, top_p: float) -> Tensor:
    """Weights in falling order without those behind top_p: a token stays while those before it do not reach it."""
    return torch.where(weight.cumsum(dim=-1) - weight < top_p, weight, 0.0)


def _inverse(weight: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Where the distribution function of weights [..., V] passes a number: [..., 1], and how far inside [...]."""
    cumulative = weight.cumsum(dim=-1, dtype=torch.float64)
    # The numbers lie inside (0, 1), and the last sum is exactly what they are stretched to: a token of weight 0 has no
    # width and is never met.
    aim = uniform.double()[..., None] * cumulative[..., -1:]
    found = torch.searchsorted(cumulative, aim, right=True).clamp_max(weight.shape[-1] - 1)
    inside = (cumulative.gather(-1, found) - aim) / weight.gather(-1, found).double().clamp_min(1e-300)
    return found, inside[..., 0].clamp(1e-9, 1 - 1e-9)


def _score(order: Order, logits: Tensor, probability: Tensor, rank: Tensor, uniform: Callable[[], Tensor]) -> Tensor:
    """How early each place is filled, [R, M]: the highest first."""
    match order:
        case "confidence":
            return probability
        case "entropy":
            log_probability = logits.log_softmax(dim=-1)
            # A forbidden token has probability 0, of which the product with minus infinity is no number.
            return (log_probability.exp() * log_probability.clamp_min(-1e4)).sum(dim=-1)
        case "random":
            return uniform().gather(1, rank)
        case "left-to-right":
            return -rank.float()


def _put(filled: Tensor, positions: Tensor, tokens: Tensor, now: Tensor) -> None:
    """Write the tokens of the places ``now``, each at its position, in place."""
    rows = torch.arange(len(filled), device=filled.device)[:, None].expand(positions.shape)
    filled[rows[now], positions[now]] = tokens[now]
