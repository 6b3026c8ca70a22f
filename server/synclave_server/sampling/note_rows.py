"""A synthetic note as a row of bytes: its type, a zero, its text in UTF-8, zeros up to the width."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTE_BYTES", "pack_note", "unpack_note"]

NOTE_BYTES: Final = 8192
"""Width of a row: four times the longest note of the shipped templates. A longer one is cut."""


def pack_note(kind: str, text: str) -> NDArray[np.uint8]:
    """A row uint8 [:data:`NOTE_BYTES`]."""
    content = f"{kind}\0{text.replace(chr(0), ' ')}".encode()[:NOTE_BYTES].decode(errors="ignore").encode()
    return np.frombuffer(content.ljust(NOTE_BYTES, b"\0"), np.uint8)


def unpack_note(row: NDArray[np.uint8]) -> tuple[str, str]:
    """Type and text of a row."""
    kind, _, text = row.tobytes().decode().partition("\0")
    return kind, text.rstrip("\0")
