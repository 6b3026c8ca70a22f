"""Memory between steps, in processes of their own: this one's heap has room already."""

import json
import subprocess
import sys

import pytest

from synclave_client.training import allocator
from synclave_client.training.allocator import freed_memory_kept

PIECE_BYTES = 2**26

PROGRAM = f"""
import json, os
import numpy as np
from synclave_client.training.allocator import freed_memory_kept

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

# In pieces that glibc may keep on its heap, whatever its version.
def take_and_give_back():
    pieces = [np.ones({PIECE_BYTES} // 8 // 16) for _ in range(16)]
    del pieces

before = resident()
take_and_give_back()
usual = resident() - before
with freed_memory_kept():
    take_and_give_back()
    kept = resident() - before
print(json.dumps([usual, kept, resident() - before]))
"""


@pytest.mark.skipif(allocator._glibc() is None, reason="keeps memory with glibc only")
def test_freed_memory_stays_until_the_context_ends() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    usual, kept, afterwards = json.loads(done.stdout)
    assert usual < 0.5 * PIECE_BYTES
    assert kept > 0.8 * PIECE_BYTES
    assert afterwards < 0.5 * PIECE_BYTES


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with pytest.raises(KeyError), freed_memory_kept():
        raise KeyError
