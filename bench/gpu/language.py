"""A masked language model of BERT-base size: tokens a second, plain and private, and the memory that takes.

Random weights (seed 0) of ``transformers``' BertConfig, 110 M parameters; the vocabulary head at the masked places
alone (15 % of the tokens). A plain step is one forward and backward pass; a private one clips each note's gradient by
book-keeping. Neither counts the optimiser; the noise of a step is told beside them. Operations are counted on the
plain step; a plain step's share of the limit is their number over its time, by the rate of a large product.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch

from bench.gpu.limits import Limits, flops_of, peak_bytes, tf32
from bench.private_step import models
from bench.private_step.__main__ import step_of, turns_of
from synclave_client.training.noise import SecretRandomness

__all__ = ["Language", "network_of"]

TOKENS: Final = 16_384
"""Of a batch, whatever the length of the notes."""
LENGTHS: Final = (128, 256)
VOCABULARY: Final = 30_522
WIDTH, LAYERS = 768, 12
KINDS: Final = {"full": models.bert_masked_positions, "lora": models.bert_lora}
PATIENCE_S: Final = 1.5


def network_of(kind: str, quick: bool, places: int, rows: int) -> models.Workload:
    """BERT-base, or a tiny one."""
    torch.manual_seed(0)
    vocabulary, width, layers = (200, 64, 2) if quick else (VOCABULARY, WIDTH, LAYERS)
    return KINDS[kind](rows=rows, places=places, vocabulary=vocabulary, width=width, layers=layers)


class Language:
    """Both kinds of training, three precisions, two lengths."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.quick = device, quick
        tokens = 512 if quick else TOKENS
        # One network of each kind; notes of the other length are another batch for it.
        self.works = {
            kind: {length: network_of(kind, quick, length, tokens // length) for length in LENGTHS[:1]}
            for kind in KINDS
        }
        for of_kind in self.works.values():
            first = of_kind[LENGTHS[0]]
            first.network.to(device)
            for length in LENGTHS[1:]:
                vocabulary = 200 if quick else VOCABULARY
                batch = models._tokens(tokens // length, length, vocabulary)
                of_kind[length] = replace(first, batch=batch)

    def rows(self) -> Iterator[dict[str, Any]]:
        limits = Limits.of(self.device, self.quick)
        yield {"limits": limits.to_json()}
        for precision in ("bfloat16", "float32", "tf32"):
            for kind, of_kind in self.works.items():
                for length, work in of_kind.items():
                    if precision == "tf32" and length != LENGTHS[0]:
                        continue
                    row = {"training": kind, "precision": precision, "length": length, "notes": len(work.batch)}
                    try:
                        with tf32(precision == "tf32"):
                            yield row | self.measured(work, precision, limits)
                    except RuntimeError as error:
                        yield row | {"failed": str(error).splitlines()[0]}
        yield self.noise()

    def measured(self, work: models.Workload, precision: str, limits: Limits) -> dict[str, Any]:
        """Medians over turns."""
        computed = "bfloat16" if precision == "bfloat16" else "float32"
        steps = {"plain": step_of(work, "plain", self.device, computed)}
        if precision != "tf32":  # in which a site refuses to clip: norms would be rounded beyond the margin
            steps["private"] = step_of(work, "book-keeping", self.device, computed)
        memory = {}
        for kind, step in steps.items():
            step()  # what is made once is not the step's
            memory[kind] = peak_bytes(step, self.device)
        flops = flops_of(steps["plain"])
        turns = turns_of(steps, self.device, 0.0 if self.quick else PATIENCE_S)
        taken = {kind: statistics.median(turn[kind] for turn in turns) for kind in steps}
        tokens = work.batch.x.numel()
        ratio = statistics.median(turn["private"] / turn["plain"] for turn in turns) if "private" in steps else None
        return {
            "parameters": sum(value.numel() for value in work.network.parameters()),
            "trained": sum(value.numel() for value in work.network.parameters() if value.requires_grad),
            "tokens": tokens,
            "tokens_per_s": {kind: tokens / seconds for kind, seconds in taken.items()},
            "ratio": ratio,
            "peak_bytes": memory,
            "flops_of_plain": flops,
            "share_of_limit": flops / taken["plain"] / limits.flops_per_s[precision],
            "turns": len(turns),
        }

    def noise(self) -> dict[str, Any]:
        """Seconds of the host for one step's secret noise, on one core and on half of them."""
        found: dict[str, Any] = {"noise": True}
        several = max(1, (os.cpu_count() or 1) // 2)
        for kind, of_kind in self.works.items():
            network = of_kind[LENGTHS[0]].network
            size = sum(value.numel() for value in network.parameters() if value.requires_grad)
            vector, randomness = np.zeros(size), SecretRandomness.from_os()
            seconds = {}
            for threads in (1, several):
                torch.set_num_threads(threads)
                begun = time.perf_counter()
                randomness.add_normal(vector, 1.0)
                seconds[threads] = time.perf_counter() - begun
            torch.set_num_threads(1)
            found[kind] = {"parameters": size, "seconds": seconds[1]}
            if several > 1:
                found[kind] |= {"threads": several, "seconds_on_threads": seconds[several]}
        return found
