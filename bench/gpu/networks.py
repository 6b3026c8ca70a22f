"""A private step beside a plain one, for the small networks of ``bench.private_step``."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, Final

import torch

from bench.private_step.__main__ import WAYS, WORKLOADS, peak_memory, time_pair

__all__ = ["Networks"]

OPACUS: Final = ("mlp", "series", "unet", "bert")
"""Networks of which Opacus is shown too, in float32."""
PATIENCE_S: Final = 1.0


class Networks:
    """All networks, both precisions."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.patience_s = device, 0.0 if quick else PATIENCE_S
        self.names = ["codes", "mlp"] if quick else list(WORKLOADS)
        self.opacus = WAYS[2:3] if quick else WAYS[2:]

    def rows(self) -> Iterator[dict[str, Any]]:
        cases = [(name, "book-keeping", p) for name in self.names for p in ("float32", "bfloat16")]
        cases += [(name, way, "float32") for name in self.names if name in OPACUS for way in self.opacus]
        for name, way, precision in cases:
            row = {"network": name, "way": way, "precision": precision}
            try:
                pair = time_pair(name, way, self.device, precision, self.patience_s)
                memory = {}
                if "refused" not in pair and self.device.type == "cuda":
                    memory = {one: peak_memory(name, one, self.device, precision) for one in ("plain", way)}
                yield {**row, **pair, "memory_bytes": memory}
            except RuntimeError as error:
                yield {**row, "failed": str(error).splitlines()[0]}
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
