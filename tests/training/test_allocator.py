"""Memory between steps."""

import os
from pathlib import Path

import pytest
import torch

from synclave_client.training import allocator
from synclave_client.training.allocator import freed_memory_kept

PIECE_BYTES = 2**26


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(allocator._glibc() is None, reason="keeps memory with glibc only")
def test_freed_memory_stays_until_the_context_ends() -> None:
    with freed_memory_kept():
        before = resident_bytes()
        torch.ones(PIECE_BYTES // 4)
        kept = resident_bytes() - before
    given_back = resident_bytes() - before
    assert kept > 0.8 * PIECE_BYTES
    assert given_back < 0.5 * PIECE_BYTES


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with pytest.raises(KeyError), freed_memory_kept():
        raise KeyError


def test_an_error_passes_through_and_ends_the_keeping() -> None:
    with pytest.raises(KeyError), freed_memory_kept():
        raise KeyError
    before = resident_bytes()
    torch.ones(PIECE_BYTES // 4)
    assert resident_bytes() - before < 0.5 * PIECE_BYTES
