"""Memory that is needed again in the next step stays with the process.

A step takes and gives back up to some hundred megabytes. By default glibc returns large pieces to the operating system
at once and gets them back page by page, each page cleared: up to a tenth of a step, plain or private.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["freed_memory_kept"]

# From glibc's malloc.h.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3

KEPT_BYTES: Final = 2**31 - 1
"""The largest value that mallopt takes."""

USUAL_BYTES: Final = 32 * 2**20
"""To which glibc's own rule rises once large pieces were freed."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the next allocation until the context ends, then give it back. Without glibc: nothing."""
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, KEPT_BYTES)
    try:
        yield
    finally:
        _set(libc, USUAL_BYTES)
        libc.malloc_trim(0)


def _glibc() -> Any:
    try:
        libc = ctypes.CDLL(None)
        return libc if libc.gnu_get_libc_version and libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None


def _set(libc: Any, size_bytes: int) -> None:
    # Older versions take no more than the usual maximum; setting the other one alone would switch their own rule off.
    if not libc.mallopt(M_MMAP_THRESHOLD, size_bytes):
        libc.mallopt(M_MMAP_THRESHOLD, USUAL_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, size_bytes)
