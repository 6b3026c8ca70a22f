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
)

__all__ = ["MAX_BUNDLE_BYTES", "MAX_TILE_BYTES", "LedgerFiles"]

MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (MAX_ENTRY_BYTES + 2)
MAX_TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES

NOT_LISTED: Final = bytes(HASH_BYTES)
"""Stands for a hash that no tile lists; no entry has this hash."""

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
        return [f"{WITNESS_FOLDER}/{path}" for path in _walk(self._folder / WITNESS_FOLDER)]

    def tree(self, checkpoint: Checkpoint) -> MerkleTree:
        """Compare every entry with the tiles and the checkpoint's root, one bundle at a time.

        Returns:
            The tree that has the checkpoint's root or, if none has, the tree of the entries as they are.
        """
        own, listed = MerkleTree(), MerkleTree()
        for level, index, width in tile_positions(checkpoint.size):
            if level:
                break
            path = entries_path(index, width)
            data = self._read(path, MAX_BUNDLE_BYTES)
            tile = self._read(tile_path(0, index, width), MAX_TILE_BYTES)
            # A tile of another length lists nothing that can be relied on.
            for node in split_tile(tile) if tile and len(tile) == width * HASH_BYTES else [NOT_LISTED] * width:
                listed.append(node)
            if data is None:
                # Later bundles have nothing to stand on, and a false size must not keep us busy.
                break
            found, rest = split_bundle(data)
            for entry in found:
                own.append(leaf_hash(entry))
            if rest or len(found) != width:
                excess = f" and {len(rest)} bytes more" if rest else ""
                self.find("bundle-damaged", f"{len(found)} entries{excess} instead of {width} entries", file=path)
                break
        if own.size == checkpoint.size and own.root() == checkpoint.root:
            self._check_tiles(own)
            return own
        covered = listed.size == checkpoint.size and listed.root() == checkpoint.root
        if not covered:
            self.find("root-mismatch", "the entries do not have the root that it states", file=CHECKPOINT_PATH)
        for place in range(min(own.size, listed.size)):
            node = listed.leaf(place)
            if node not in (own.leaf(place), NOT_LISTED):
                self.find("entry-altered", "not the entry whose hash the tile lists", entry=place)
        return listed if covered else own

    def entries(self, size: int, tree: MerkleTree) -> Iterator[tuple[int, bytes, bytes]]:
        """Index, bytes and leaf hash of the entries that ``tree`` covers; one bundle in memory at a time.

        Args:
            size: number of entries of the checkpoint.
            tree: what :meth:`tree` returned.
        """
        index = 0
        for level, number, width in tile_positions(size):
            if level or index >= tree.size:
                return
            found = self._bundle(number, width)
            for entry in found[: tree.size - index]:
                leaf = leaf_hash(entry)
                if leaf == tree.leaf(index):
                    yield index, entry, leaf
                index += 1
            if len(found) != width:
                return

    def present(self, size: int) -> Iterator[bytes]:
        """The entries as they lie there, up to the first bundle that is not whole; nothing is compared."""
        for level, number, width in tile_positions(size):
            if level:
                return
            found = self._bundle(number, width)
            yield from found[:width]
            if len(found) != width:
                return

    def entry(self, size: int, index: int) -> bytes:
        """One entry that :meth:`entries` gave before; empty if it is gone meanwhile."""
        number, place = divmod(index, TILE_WIDTH)
        found = self._bundle(number, min(TILE_WIDTH, size - number * TILE_WIDTH))
        return found[place] if place < len(found) else b""

    def _bundle(self, number: int, width: int) -> list[bytes]:
        """The entries of a bundle that was read before; what was wrong with it is a finding already."""
        path = entries_path(number, width)
        if path in {finding.file for finding in self.findings if finding.code.startswith("file-")}:
            return []
        data = self._read(path, MAX_BUNDLE_BYTES)
        return [] if data is None else split_bundle(data)[0]

    def _check_tiles(self, tree: MerkleTree) -> None:
        known = {finding.file for finding in self.findings}
        for level, index, width in tile_positions(tree.size):
            path = tile_path(level, index, width)
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
