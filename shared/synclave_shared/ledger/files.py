"""Reading a ledger folder that an adversary may have written: a fault becomes a finding that names file or entry."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import MAX_NOTE_BYTES, Checkpoint, Note, parse_note
from synclave_shared.ledger.entry import MAX_ENTRY_BYTES
from synclave_shared.ledger.merkle import HASH_BYTES, MerkleTree, leaf_hash
from synclave_shared.ledger.replay import Finding
from synclave_shared.ledger.tiles import (
    CHECKPOINT_PATH,
    TILE_WIDTH,
    WITNESS_FOLDER,
    entries_path,
    split_bundle,
    split_tile,
    tile_content,
    tile_path,
    tile_positions,
    witness_path,
)

__all__ = ["LedgerFiles"]

MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (MAX_ENTRY_BYTES + 2)
MAX_TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES

MAX_LISTED: Final = 50
"""Files that do not belong to the ledger are named up to this number."""


class LedgerFiles:
    """The files of a ledger folder.

    Attributes:
        findings: what was wrong with them so far.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.findings: list[Finding] = []

    def find(
        self,
        code: str,
        explanation: str,
        *,
        file: str | None = None,
        entry: int | None = None,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Record a finding."""
        self.findings.append(Finding(code=code, severity=severity, explanation=explanation, file=file, entry=entry))

    def _read(self, path: str, limit_bytes: int) -> bytes | None:
        target = self._folder / path
        try:
            # Not a pipe and not a device: those would block or never end.
            if not stat.S_ISREG(target.stat().st_mode):
                self.find("file-unreadable", "not a file", file=path)
                return None
            with target.open("rb") as file:
                data = file.read(limit_bytes + 1)
        except OSError as error:
            code = "file-missing" if isinstance(error, FileNotFoundError) else "file-unreadable"
            self.find(code, error.strerror or "unreadable", file=path)
            return None
        if len(data) > limit_bytes:
            self.find("file-too-large", f"more than the {limit_bytes} bytes it can have", file=path)
            return None
        return data

    def note(self, path: str) -> Note | None:
        """Read a checkpoint; only its form is checked."""
        data = self._read(path, MAX_NOTE_BYTES)
        if data is None:
            return None
        try:
            return parse_note(data.decode("utf-8"))
        except UnicodeDecodeError:
            self.find("checkpoint-malformed", "not text", file=path)
        except LedgerError as error:
            self.find("checkpoint-malformed", error.found, file=path)
        return None

    def witness_paths(self) -> list[str]:
        """Paths of the checkpoints that sites co-signed."""
        return [witness_path(path) for path in _walk(self._folder / WITNESS_FOLDER)]

    def entries(self, checkpoint: Checkpoint) -> tuple[list[bytes | None], MerkleTree]:
        """Read every entry and compare it with the tiles and the checkpoint's root.

        Returns:
            The entries, None in the place of one that is not what the tree covers; and the tree that has the
            checkpoint's root or, if none has, the tree of the entries as they are.
        """
        entries: list[bytes] = []
        listed: list[bytes] = []
        for level, index, width in tile_positions(checkpoint.size):
            if level:
                break
            path = entries_path(index, width)
            data = self._read(path, MAX_BUNDLE_BYTES)
            tile = self._read(tile_path(0, index, width), MAX_TILE_BYTES)
            hashes = split_tile(tile or b"")
            # A tile of another length lists nothing that can be relied on.
            listed += hashes if len(hashes) == width else [b""] * width
            if data is None:
                # Later bundles have nothing to stand on, and a false size must not keep us busy.
                break
            found, rest = split_bundle(data)
            entries += found
            if rest or len(found) != width:
                excess = f" and {len(rest)} bytes more" if rest else ""
                self.find("bundle-damaged", f"{len(found)} entries{excess} instead of {width} entries", file=path)
                break
        own = MerkleTree(leaf_hash(entry) for entry in entries)
        if own.size == checkpoint.size and own.root() == checkpoint.root:
            self._check_tiles(own)
            return [*entries], own
        tiles = MerkleTree(listed)
        covered = tiles.size == checkpoint.size and tiles.root() == checkpoint.root
        if not covered:
            self.find("root-mismatch", "the entries do not have the root that it states", file=CHECKPOINT_PATH)
        sound: list[bytes | None] = []
        for place, (entry, node) in enumerate(zip(entries, listed, strict=False)):
            same = leaf_hash(entry) == node
            sound.append(entry if same or not covered else None)
            if not same and node:
                self.find("entry-altered", "not the entry whose hash the tile lists", entry=place)
        return sound, tiles if covered else own

    def _check_tiles(self, tree: MerkleTree) -> None:
        for level, index, width in tile_positions(tree.size):
            path = tile_path(level, index, width)
            known = {finding.file for finding in self.findings}
            data = None if path in known else self._read(path, MAX_TILE_BYTES)
            if data is not None and data != tile_content(tree, level, index, width):
                self.find("tile-damaged", "does not hold the hashes of its entries", file=path)

    def check_unexpected(self, size: int) -> None:
        """Name the files that are no part of a ledger with ``size`` entries."""
        expected = {CHECKPOINT_PATH}
        for level, index, width in tile_positions(size):
            expected.add(tile_path(level, index, width))
            if level == 0:
                expected.add(entries_path(index, width))
        listed = 0
        for path in _walk(self._folder):
            if path not in expected and not path.startswith(f"{WITNESS_FOLDER}/"):
                listed += 1
                if listed > MAX_LISTED:
                    return
                explanation = "no part of this ledger: left by an interrupted write, or put there"
                self.find("file-unexpected", explanation, file=path, severity="warning")


def _walk(folder: Path) -> Iterator[str]:
    """Paths below a folder, relative to it, of everything that is not a folder; links to folders are not followed."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield (Path(parent) / name).relative_to(folder).as_posix()
