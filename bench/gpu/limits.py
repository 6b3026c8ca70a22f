"""What a device can do at best, measured on it, and how long some work takes there.

The two ends of a roofline (Williams et al. 2009): bytes a second of a large copy, read and written, and floating-point
operations a second of a large matrix product. Work that must move B bytes and do F operations cannot take less than
max(B / bandwidth, F / rate).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Limits", "flops_of", "peak_bytes", "seconds_of", "synchronised", "tf32"]

COPY_BYTES: Final = 2**31
PRODUCT: Final = 8192
"""Side of the matrices; a smaller product does not fill a large GPU."""


def synchronised(device: torch.device) -> float:
    """The clock once the device has done what it was asked for, seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(work: Callable[[], object], device: torch.device, turns: int = 5) -> float:
    """Median seconds of some turns, after one that does not count."""
    work()
    taken = []
    for _ in range(turns):
        begun = synchronised(device)
        work()
        taken.append(synchronised(device) - begun)
    return statistics.median(taken)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Memory of a CUDA device at the peak of some work, what was held before included; None elsewhere."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def flops_of(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions in some uncompiled work."""
    counter = FlopCounterMode(display=False)
    scope: AbstractContextManager[Any] = counter
    with scope:
        work()
    return int(counter.get_total_flops())


class tf32:  # noqa: N801 - used like a function
    """Within: float32 products on CUDA are rounded to 10 bits of mantissa first."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled

    def __enter__(self) -> None:
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self._enabled else "highest")

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self._before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The two ends.

    Attributes:
        bytes_per_s: of a copy, read and written.
        flops_per_s: of a matrix product, by ``float32``, ``tf32`` and ``bfloat16``.
    """

    bytes_per_s: float
    flops_per_s: dict[str, float]

    @classmethod
    def of(cls, device: torch.device, quick: bool) -> Limits:
        """Measured, about a second."""
        size, side = (2**24, 256) if quick else (COPY_BYTES, PRODUCT)
        source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
        goal = torch.empty_like(source)
        copied = 2 * size / seconds_of(lambda: goal.copy_(source), device)
        rates = {}
        for name in ("float32", "tf32", "bfloat16"):
            kind = torch.bfloat16 if name == "bfloat16" else torch.float32
            left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
            with tf32(name == "tf32"):
                rates[name] = 2 * side**3 / seconds_of(lambda a=left, b=right: a @ b, device)  # type: ignore[misc]
        return cls(bytes_per_s=copied, flops_per_s=rates)

    def least_s(self, flops: float, moved: float, precision: str) -> tuple[float, str]:
        """Least seconds for so many operations and bytes, and which of the two it is."""
        arithmetic, memory = flops / self.flops_per_s[precision], moved / self.bytes_per_s
        return max(arithmetic, memory), "arithmetic" if arithmetic > memory else "memory"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
