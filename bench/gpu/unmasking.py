"""Notes from a masked language model of BERT-base size: a few parallel calls against one word at a time.

Random weights, for time only. A note of 256 masked tokens is filled in ``calls`` rounds: the network reads the whole
note, logits are made at the places that are still masked, a token is drawn for each, and the most certain ones stay
(as many each round). One word at a time is the same with 256 rounds, each with logits at one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from bench.gpu.language import network_of
from bench.gpu.limits import Limits, flops_of, peak_bytes, seconds_of

__all__ = ["Unmasking", "filled"]

PLACES: Final = 256
NOTES: Final = 128
CALLS: Final = (8, 16, 32)
HIDDEN: Final = 4
"""Number of the token that stands for a hidden one."""


@torch.inference_mode()
def filled(network: nn.Module, notes: int, places: int, calls: int, device: torch.device) -> Tensor:
    """Tokens int64 [notes, places], all of them drawn in so many calls."""
    tokens = torch.full((notes, places), HIDDEN, device=device)
    hidden = torch.arange(places, device=device).expand(notes, places)
    for left in range(calls, 0, -1):
        # The places still hidden, [notes, M]: the same number in every note.
        logits = network(tokens, hidden if calls < places else hidden[:, :1]).float()
        chances = logits.softmax(dim=-1)
        drawn = torch.multinomial(chances.flatten(0, 1), 1).view(notes, -1)
        certain = chances.gather(2, drawn[..., None])[..., 0]
        count = -(-hidden.shape[1] // left)
        order = certain.argsort(dim=1, descending=True)
        chosen = order[:, :count]
        tokens.scatter_(1, hidden.gather(1, chosen), drawn.gather(1, chosen))
        hidden = hidden.gather(1, order[:, count:]) if calls < places else hidden[:, count:]
    return tokens


class Unmasking:
    """The network on a device."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.notes, self.places = (4, 64) if quick else (NOTES, PLACES)
        network = cast("nn.Module", network_of("full", quick, self.places, 2).network)
        self.network = network.eval().to(device)

    def drawn(self, calls: int, precision: str) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            return filled(self.network, self.notes, self.places, calls, self.device)

    def rows(self) -> Iterator[dict[str, Any]]:
        limits = Limits.of(self.device, self.quick)
        yield {"limits": limits.to_json()}
        for precision, asked in (("bfloat16", (*CALLS, self.places)), ("float32", CALLS[:1])):
            for calls in asked:

                def work(calls: int = calls, precision: str = precision) -> Tensor:
                    return self.drawn(calls, precision)

                few = calls in CALLS
                seconds = seconds_of(work, self.device, 3 if few else 1)
                peak = peak_bytes(work, self.device) if few else None
                flops = flops_of(work) if few else None
                yield {
                    "precision": precision,
                    "calls": calls,
                    "notes": self.notes,
                    "places": self.places,
                    "notes_per_s": self.notes / seconds,
                    "peak_bytes": peak,
                    "share_of_limit": None if flops is None else flops / seconds / limits.flops_per_s[precision],
                }
