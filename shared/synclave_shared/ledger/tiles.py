"""How the ledger lies on disk: names and bytes of the files (C2SP tlog-tiles), without any input or output.

::

    checkpoint                       the newest signed checkpoint
    tile/<L>/<N>[.p/<W>]             up to 256 hashes of 32 bytes: complete subtrees of 256**L leaves
    tile/entries/<N>[.p/<W>]         up to 256 entries, each with its length in two bytes before it
    witness/<S>                      the checkpoint of S entries with the lines of the sites that co-signed none later
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from synclave_shared.ledger.merkle import HASH_BYTES, MerkleTree

__all__ = [
    "CHECKPOINT_PATH",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "WITNESS_FOLDER",
    "encode_bundle",
    "entries_path",
    "split_bundle",
    "split_tile",
    "tile_content",
    "tile_path",
    "tile_positions",
    "witness_path",
]

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
LENGTH_BYTES: Final = 2

CHECKPOINT_PATH: Final = "checkpoint"
WITNESS_FOLDER: Final = "witness"


def witness_path(size: int) -> str:
    """Path of the co-signed checkpoint of ``size`` entries."""
    return f"{WITNESS_FOLDER}/{size}"


def _index_path(index: int, width: int) -> str:
    groups: list[str] = []
    rest = index
    while True:
        rest, group = divmod(rest, 1000)
        groups.append(f"{group:03d}" if not groups else f"x{group:03d}")
        if not rest:
            break
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return "/".join(reversed(groups)) + partial


def tile_path(level: int, index: int, width: int) -> str:
    """Path of a tile of ``width`` hashes at a tile level."""
    return f"tile/{level}/{_index_path(index, width)}"


def entries_path(index: int, width: int) -> str:
    """Path of a bundle of ``width`` entries."""
    return f"tile/entries/{_index_path(index, width)}"


def tile_positions(size: int, old_size: int = 0) -> Iterator[tuple[int, int, int]]:
    """(level, index, width) of every tile of a ledger with ``size`` entries that ``old_size`` entries did not have.

    Level 0 tiles have the same indices and widths as the entry bundles.
    """
    level = 0
    while size:
        first = old_size // TILE_WIDTH
        for index in range(first, (size + TILE_WIDTH - 1) // TILE_WIDTH):
            width = min(TILE_WIDTH, size - index * TILE_WIDTH)
            if width != min(TILE_WIDTH, old_size - index * TILE_WIDTH):
                yield level, index, width
        size, old_size, level = size // TILE_WIDTH, old_size // TILE_WIDTH, level + 1


def tile_content(tree: MerkleTree, level: int, index: int, width: int) -> bytes:
    """The bytes of a tile."""
    start = index * TILE_WIDTH
    return tree.complete_subtrees(level * TILE_HEIGHT, start, start + width)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries with their lengths (16-bit big-endian).

    Raises:
        OverflowError: if an entry is longer than 65,535 bytes.
    """
    return b"".join(len(entry).to_bytes(LENGTH_BYTES, "big") + entry for entry in entries)


def split_bundle(data: bytes) -> tuple[list[bytes], bytes]:
    """The entries of a bundle, and the rest from where its lengths stop making sense (empty for a sound bundle)."""
    entries: list[bytes] = []
    position = 0
    while position + LENGTH_BYTES <= len(data):
        start = position + LENGTH_BYTES
        stop = start + int.from_bytes(data[position:start], "big")
        if stop > len(data):
            break
        entries.append(data[start:stop])
        position = stop
    return entries, data[position:]


def split_tile(data: bytes) -> list[bytes]:
    """The hashes of a tile; a short rest is kept as a short last element, so that nothing is overlooked."""
    return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]
