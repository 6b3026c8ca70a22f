"""Writing a whole ledger as a folder that ``synclave-audit verify`` reads: a site's copy for an auditor, say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from synclave_shared.errors import ConfigurationError
from synclave_shared.ledger.checkpoint import parse_note
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.ledger.tiles import (
    CHECKPOINT_PATH,
    TILE_WIDTH,
    encode_bundle,
    entries_path,
    tile_content,
    tile_path,
    tile_positions,
    witness_path,
)

__all__ = ["new_folder", "write_ledger"]


def write_ledger(folder: Path, entries: Sequence[bytes], note: str, witness: str) -> None:
    """Write a ledger into a new folder.

    Args:
        folder: is made; must not hold anything.
        entries: the bytes of every entry, in order.
        note: the signed checkpoint over them.
        witness: the newest checkpoint that a site co-signed.

    Raises:
        ConfigurationError: if the folder holds something or cannot be written.
    """
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    files = {CHECKPOINT_PATH: note.encode("utf-8")}
    for level, index, width in tile_positions(tree.size):
        files[tile_path(level, index, width)] = tile_content(tree, level, index, width)
        if level == 0:
            start = index * TILE_WIDTH
            files[entries_path(index, width)] = encode_bundle(entries[start : start + width])
    files[witness_path(parse_note(witness).checkpoint.size)] = witness.encode("utf-8")
    new_folder(folder, files)


def new_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by their paths below it, into a folder that is made for them.

    Raises:
        ConfigurationError: if the folder holds something or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigurationError(
                expected="a new folder", found=f"{folder}, which holds something", remedy="Choose another folder."
            )
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    except OSError as error:
        raise ConfigurationError(
            expected=f"a folder {folder} that can be written",
            found=f"{error.filename}: {error.strerror}",
            remedy="Check the path, its permissions and the free space.",
        ) from None
