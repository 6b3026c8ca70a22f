"""The ledger on disk: append-only, safe against a crash at any instant, readable as static files.

Order of an append: bundles and tiles under names that the present checkpoint does not use, flushed to disk; then the
new checkpoint, put in place by one rename; then the partial tiles that are no longer used are removed. Whatever a
crash leaves behind, the checkpoint and the files it needs belong together.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import (
    Checkpoint,
    Note,
    NoteSignature,
    cosignature_time,
    open_checkpoint,
    parse_line,
    parse_note,
    sign_checkpoint,
)
from synclave_shared.ledger.entry import KeyRegistered, KeyRotated, parse_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import EMPTY_ROOT, MerkleTree, leaf_hash
from synclave_shared.ledger.tiles import (
    CHECKPOINT_PATH,
    TILE_HEIGHT,
    TILE_WIDTH,
    WITNESS_FOLDER,
    encode_bundle,
    entries_path,
    split_bundle,
    tile_content,
    tile_path,
    tile_positions,
    witness_path,
)

__all__ = ["Ledger"]

TEMPORARY_SUFFIX: Final = ".new"

MAX_WRITERS: Final = 16
"""Threads that wait for the disk at the same time; more make nothing faster."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Ledger:
    """A ledger folder. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, folder: Path, note: Note, key: SigningKey | None) -> None:
        self._folder = folder
        self._key = key
        self._note = note
        self._tree = MerkleTree()
        self._keys: dict[str, set[str]] = {}
        self._bundle: tuple[str, list[bytes]] = ("", [])

    @classmethod
    def create(cls, folder: Path, origin: str, key: SigningKey) -> Self:
        """Start an empty ledger.

        Args:
            folder: made if it does not exist; must not hold a ledger.
            origin: which ledger this is, ``synclave/`` and the first 16 digits of the plan's digest.
            key: the operator's key.

        Raises:
            LedgerError: if there is a ledger already, or the folder cannot be written.
        """
        if (folder / CHECKPOINT_PATH).exists():
            raise LedgerError(
                expected="a folder without a ledger", found=str(folder), remedy="Open it, or choose another folder."
            )
        checkpoint = Checkpoint(origin=origin, size=0, root=EMPTY_ROOT)
        note = _signed(checkpoint, key)
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _replace({}, (folder / CHECKPOINT_PATH, note.text.encode()))
        return cls(folder, note, key)

    @classmethod
    def open(cls, folder: Path, key: SigningKey | None = None) -> Self:
        """Open a ledger and check that its entries have the root of its checkpoint.

        Args:
            folder: where it lies.
            key: the operator's key, to append; without it the ledger is read only and the signature is not checked
                (that is :mod:`synclave_shared.ledger.verify`'s work).

        Raises:
            LedgerError: if there is none, if it is damaged, or if another key signed its checkpoint.
        """
        with _explained(folder):
            text = _read_text(folder / CHECKPOINT_PATH)
            note = parse_note(text)
            checkpoint = note.checkpoint
            if key is not None:
                open_checkpoint(text, origin=checkpoint.origin, operator_key=key.public_text)
            ledger = cls(folder, note, key)
            for data in ledger.entries():
                ledger._tree.append(leaf_hash(data))
                ledger._note_keys(data)
        if ledger._tree.size != checkpoint.size or ledger._tree.root() != checkpoint.root:
            raise LedgerError(
                expected=f"{checkpoint.size} entries with the root of the checkpoint",
                found=f"{ledger._tree.size} entries with another root in {folder}",
                remedy="Run `synclave-audit verify` to see what was changed; restore the ledger from a copy.",
            )
        if key is not None:
            ledger._remove_unused()
        return ledger

    @property
    def origin(self) -> str:
        """Which ledger this is."""
        return self._note.checkpoint.origin

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._note.checkpoint.size

    @property
    def root(self) -> str:
        """Merkle root over all entries, hex."""
        return self._tree.root().hex()

    def entry(self, index: int) -> bytes:
        """The bytes of an entry.

        Raises:
            LedgerError: if there is no such entry.
        """
        self._require(0 <= index < self.size, f"an entry from 0 to {self.size - 1}", str(index))
        number, place = divmod(index, TILE_WIDTH)
        path = entries_path(number, min(TILE_WIDTH, self.size - number * TILE_WIDTH))
        if self._bundle[0] != path:
            self._bundle = path, self._read_bundle(path)
        return self._bundle[1][place]

    def entries(self) -> Iterator[bytes]:
        """The bytes of every entry in order, read from the disk one bundle at a time.

        Raises:
            LedgerError: if they cannot be read.
        """
        for level, index, width in tile_positions(self.size):
            if level:
                break
            yield from self._read_bundle(entries_path(index, width))

    def _read_bundle(self, path: str) -> list[bytes]:
        with _explained(self._folder):
            return split_bundle((self._folder / path).read_bytes())[0]

    def checkpoint(self, size: int | None = None) -> str:
        """The newest signed checkpoint with its co-signatures, as a note; or that of an earlier size, signed anew.

        Raises:
            LedgerError: if there is no such size, or the ledger is read only and an earlier one is asked for.
        """
        if size is None or size == self.size:
            return self._note.text
        self._require(0 <= size <= self.size, f"a size from 0 to {self.size}", str(size))
        return _signed(Checkpoint(origin=self.origin, size=size, root=self._tree.root(size)), self._writing_key()).text

    def inclusion_proof(self, index: int) -> tuple[str, ...]:
        """Proof (hex hashes) that the entry is under :attr:`root`.

        Raises:
            LedgerError: if there is no such entry.
        """
        self._require(0 <= index < self.size, f"an entry from 0 to {self.size - 1}", str(index))
        return tuple(node.hex() for node in self._tree.inclusion_proof(index))

    def consistency_proof(self, old_size: int) -> tuple[str, ...]:
        """Proof (hex hashes) that this ledger extends the one of ``old_size`` entries.

        Raises:
            LedgerError: if this ledger is smaller.
        """
        self._require(0 <= old_size <= self.size, f"a size from 0 to {self.size}", str(old_size))
        return tuple(node.hex() for node in self._tree.consistency_proof(old_size))

    def append(self, entries: Sequence[bytes]) -> list[int]:
        """Add entries and sign a checkpoint over them; they are on disk when this returns.

        Args:
            entries: the bytes of signed entries.

        Returns:
            Their indices. An empty list changes nothing.

        Raises:
            LedgerError: if one is not a well-formed entry with a valid signature, if the ledger is read only, or if it
                was changed by another process. Nothing was appended then.
        """
        key = self._writing_key()
        for data in entries:
            if not parse_entry(data).is_signed(data):
                raise LedgerError(
                    expected="entries with valid signatures", found="one without", remedy="Nothing was appended."
                )
        if not entries:
            return []
        old_size = self.size
        tree = self._tree
        for data in entries:
            tree.append(leaf_hash(data))
        try:
            with _explained(self._folder), self._exclusive():
                self._extend(list(entries), key)
        except BaseException:
            # The folder still has the old checkpoint, or another process's: what we hold goes back to what we read.
            self._tree.truncate(old_size)
            raise
        for data in entries:
            self._note_keys(data)
        with _explained(self._folder):
            self._remove_partials(old_size)
        return list(range(old_size, self.size))

    def _extend(self, entries: list[bytes], key: SigningKey) -> None:
        """Write the files of the grown tree, then its checkpoint; only then does this object know the entries."""
        old_size, tree = self.size, self._tree
        begun = old_size % TILE_WIDTH
        kept = self._read_bundle(entries_path(old_size // TILE_WIDTH, begun)) if begun else []
        checkpoint = Checkpoint(origin=self.origin, size=tree.size, root=tree.root())
        files: dict[str, bytes] = {}
        for level, index, width in tile_positions(tree.size, old_size):
            files[tile_path(level, index, width)] = tile_content(tree, level, index, width)
            if level == 0:
                start, stop = index * TILE_WIDTH, index * TILE_WIDTH + width
                new = entries[max(0, start - old_size) : stop - old_size]
                files[entries_path(index, width)] = encode_bundle(new if start >= old_size else kept + new)
        self._replace(files, _signed(checkpoint, key))

    def add_cosignature(self, size: int, name: str, line: str) -> None:
        """Keep one site's witness line: see :meth:`add_cosignatures`.

        Raises:
            LedgerError: if the ledger has no such size, does not know the site, or the co-signature is not valid.
        """
        for error in self.add_cosignatures([(size, name, line)]).values():
            raise error

    def add_cosignatures(self, lines: Iterable[tuple[int, str, str]]) -> dict[str, LedgerError]:
        """Keep sites' witness lines for checkpoints: (size, name, line) each.

        A line goes to ``witness/<name>``, unless that holds one of a larger size already, and into the checkpoint
        itself if that has this size. All lines of a round are written together: the disk is not waited for per site.

        Returns:
            By name, why a line was not kept: no such size, a site that the ledger does not know, an invalid signature.

        Raises:
            LedgerError: if the ledger is read only, was changed by another process, or cannot be written.
        """
        key = self._writing_key()
        refused: dict[str, LedgerError] = {}
        valid: list[tuple[Checkpoint, NoteSignature]] = []
        for size, name, line in lines:
            try:
                valid.append(self._cosigned(size, name, line))
            except LedgerError as error:
                refused[name] = error
        if not valid:
            return refused
        with _explained(self._folder), self._exclusive():
            note, files = self._note, dict[str, bytes]()
            for checkpoint, signature in valid:
                path = self._folder / witness_path(signature.name)
                # One that holds a larger size stays.
                if not path.exists() or parse_note(_read_text(path)).checkpoint.size <= checkpoint.size:
                    files[witness_path(signature.name)] = _with_line(_signed(checkpoint, key), signature).text.encode()
                if checkpoint.size == self.size:
                    note = _with_line(note, signature)
            self._replace(files, note)
        return refused

    def _cosigned(self, size: int, name: str, line: str) -> tuple[Checkpoint, NoteSignature]:
        """The checkpoint of ``size`` entries and the witness line on it, which is valid and of that site."""
        self._require(0 <= size <= self.size, f"a size from 0 to {self.size}", str(size))
        checkpoint = Checkpoint(origin=self.origin, size=size, root=self._tree.root(size))
        signature = parse_line(line.removesuffix("\n"))
        valid = signature.name == name and any(
            cosignature_time(checkpoint, signature, public_text) is not None for public_text in self._keys.get(name, ())
        )
        self._require(valid, f"a co-signature by {name} on the checkpoint of size {size}", "one that does not verify")
        return checkpoint, signature

    def _note_keys(self, data: bytes) -> None:
        """Remember a public key that an entry registers, or puts in the place of another."""
        if b'"kind":"key-' not in data:
            return
        body = parse_entry(data).body
        if isinstance(body, KeyRegistered | KeyRotated):
            self._keys.setdefault(body.name, set()).add(body.public_key)

    def _writing_key(self) -> SigningKey:
        if self._key is None:
            raise LedgerError(
                expected="a ledger opened with the operator's key",
                found="one opened to read",
                remedy="Open it with the key.",
            )
        return self._key

    def _require(self, condition: bool, expected: str, found: str) -> None:
        if not condition:
            raise LedgerError(expected=expected, found=found, remedy="Check that this is the ledger you mean.")

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the folder, and make sure that nobody else has written to the ledger since we read it."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            current = parse_note(_read_text(self._folder / CHECKPOINT_PATH)).checkpoint
            if current != self._note.checkpoint:
                raise LedgerError(
                    expected=f"the ledger as we left it, with {self.size} entries",
                    found=f"a checkpoint of {current.size} entries",
                    remedy="Another process writes to it. Stop one of the two.",
                )
            yield
        finally:
            os.close(descriptor)

    def _replace(self, files: Mapping[str, bytes], note: Note) -> None:
        """Put files in their places, and after them the checkpoint; only then does this object know of it."""
        targets = {self._folder / path: data for path, data in files.items()}
        for folder in {path.parent for path in targets}:
            self._make_folder(folder)
        last = None if note == self._note else (self._folder / CHECKPOINT_PATH, note.text.encode())
        _replace(targets, last)
        self._note = note

    @staticmethod
    def _make_folder(path: Path) -> None:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _flush_folder(folder.parent)

    def _remove_partials(self, size: int) -> None:
        """Remove the partial tiles that only a checkpoint of ``size`` needed: its successor's tiles contain them."""
        partial = [(level, size // TILE_WIDTH**level) for level in range(size.bit_length() // TILE_HEIGHT + 1)]
        for level, hashes in partial:
            index, width = divmod(hashes, TILE_WIDTH)
            if not width or self.size // TILE_WIDTH**level == hashes:
                continue
            for path in (tile_path(level, index, width), *([entries_path(index, width)] if level == 0 else ())):
                (self._folder / path).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    (self._folder / path).parent.rmdir()

    def _remove_unused(self) -> None:
        """Remove what an interrupted append left behind: files in our folders that no name of this size refers to."""
        with _explained(self._folder), self._exclusive():
            used = {self._folder / path for path in _paths(self.size)}
            for folder in ("tile", WITNESS_FOLDER):
                for path in sorted((self._folder / folder).rglob("*"), reverse=True):
                    unused = path.suffix == TEMPORARY_SUFFIX or (folder == "tile" and path not in used)
                    if path.is_file() and unused:
                        path.unlink()
                    elif path.is_dir():
                        with contextlib.suppress(OSError):
                            path.rmdir()
            (self._folder / (CHECKPOINT_PATH + TEMPORARY_SUFFIX)).unlink(missing_ok=True)


def _paths(size: int) -> Iterator[str]:
    for level, index, width in tile_positions(size):
        yield tile_path(level, index, width)
        if level == 0:
            yield entries_path(index, width)


def _signed(checkpoint: Checkpoint, key: SigningKey) -> Note:
    return Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, key),))


def _with_line(note: Note, signature: NoteSignature) -> Note:
    """The note with this signature, in place of an earlier one by the same name."""
    others = tuple(line for line in note.signatures if line.name != signature.name)
    return Note(checkpoint=note.checkpoint, signatures=(*others, signature))


def _read_text(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(files: Mapping[Path, bytes], last: tuple[Path, bytes] | None) -> None:
    """Put contents in their places so that after a crash each is the old one or the new one, never a part.

    All are written before any is in its place, and ``last`` comes when the others are there for good. Files that need
    not wait for each other are waited for together: a disk makes many durable in about the time of one.
    """
    contents = {**files, **dict([last] if last else [])}
    temporaries = dict(zip(contents, _together(lambda path: _prepare(path, contents[path]), contents), strict=True))
    for group in (files, [last[0]] if last else []):
        for path in group:
            _move(temporaries[path], path)
        _together(_flush_folder, {path.parent for path in group})


def _together(act: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    waiting = list(items)
    if len(waiting) < 2:
        return [act(item) for item in waiting]
    with ThreadPoolExecutor(min(len(waiting), MAX_WRITERS)) as pool:
        return list(pool.map(act, waiting))


def _move(temporary: Path, path: Path) -> None:
    temporary.replace(path)


def _prepare(path: Path, data: bytes) -> Path:
    """Write ``data`` beside ``path``, durably; returns where."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
        raise LedgerError(
            expected=f"a ledger in {folder}", found=reason, remedy="Check the path and its permissions, or the copy."
        ) from None
