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
    rank = torch.arange(width, device=ids.device)
    is_open = rank < counts[:, None]
    positions = torch.where(is_open, positions, 0)
    filled = ids.clone()
    for call in range(min(calls, most)):
        logits = logits_of(filled, positions).float()
        if forbidden is not None:
            logits = logits.masked_fill(forbidden if forbidden.ndim == 1 else forbidden[:, None], -torch.inf)
        tokens, probability = draw_tokens(logits, uniforms(2 * call), temperature=temperature, top_k=top_k, top_p=top_p)
        score = _score(order, logits, probability, rank, partial(uniforms, 2 * call + 1))
        score = torch.where(is_open, score.double(), DONE)
        # In equal parts, by the document's own number of places n: after call c ceil(n (c + 1) / calls) are filled.
        kept = torch.minimum(counts, -(-counts * (call + 1) // counts.clamp(1, calls)))
        number = kept - (counts - is_open.sum(dim=1))
        place_of = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
        now = is_open & (place_of < number[:, None])
        _put(filled, positions, tokens, now)
        is_open &= ~now
    return filled


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
    count = min(top_k, logits.shape[-1]) or logits.shape[-1]
    if top_k or top_p < 1:
        likeliest, token_of = (logits / temperature).topk(count, dim=-1)
    else:
        likeliest, token_of = logits / temperature, None
    weight = likeliest.softmax(dim=-1).double()
    cumulative = weight.cumsum(dim=-1)
    if top_p < 1:
        # A token stays as long as those before it do not reach top_p: the first one always does.
        weight = torch.where(cumulative - weight < top_p, weight, 0.0)
        cumulative = weight.cumsum(dim=-1)
    # The numbers lie inside (0, 1), and the last sum is exactly what they are stretched to: a token of weight 0 has no
    # width and is never met.
    aim = uniform.double()[..., None] * cumulative[..., -1:]
    found = torch.searchsorted(cumulative, aim, right=True).clamp_max(count - 1)
    token = found if token_of is None else token_of.gather(-1, found)
    return token[..., 0], log_probability.gather(-1, token)[..., 0].exp()


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
            return uniform()
        case "left-to-right":
            return -rank.expand(probability.shape).float()


def _put(filled: Tensor, positions: Tensor, tokens: Tensor, now: Tensor) -> None:
    """Write the tokens of the places ``now``, each at its position, in place."""
    rows = torch.arange(len(filled), device=filled.device)[:, None].expand(positions.shape)
    filled[rows[now], positions[now]] = tokens[now]
