"""The ledger on disk: append-only, safe against a crash at any instant, readable as static files.

Order of an append: bundles and tiles under names that the present checkpoint does not use, flushed to disk with their
folders; then the new checkpoint, put in place by one rename; then what is no longer used is removed. Whatever a crash
leaves behind, the checkpoint and the files it needs belong together.

The disk is waited for twice in a step, however much is in it: once for all that is new, once for the rename. So what
sites said and what they co-signed go into one step (:meth:`Ledger.update`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

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
from synclave_shared.ledger.durable import TEMPORARY_SUFFIX, commit
from synclave_shared.ledger.entry import KeyRegistered, KeyRotated, parse_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import EMPTY_ROOT, MerkleTree, leaf_hash
from synclave_shared.ledger.reading import EntryReader
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


class Ledger:
    """A ledger folder. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, folder: Path, note: Note, key: SigningKey | None) -> None:
        self._folder = folder
        self._key = key
        self._note = note
        self._tree = MerkleTree()
        self._reader = EntryReader()
        self._keys: dict[str, set[str]] = {}
        self._cosigned: dict[str, tuple[Checkpoint, NoteSignature]] = {}
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
            commit({}, {folder / CHECKPOINT_PATH: note.text.encode()})
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
            with _explained(folder), ledger._exclusive():
                ledger._remove_unused()
                ledger._read_witnesses()
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
        """Add entries: see :meth:`update`. Returns their indices."""
        old_size = self.size
        self.update(entries)
        return list(range(old_size, self.size))

    def add_cosignature(self, size: int, name: str, line: str) -> None:
        """Keep one site's witness line: see :meth:`update`.

        Raises:
            LedgerError: if the ledger has no such size, does not know the site, or the co-signature is not valid.
        """
        for error in self.update((), [(size, name, line)]).values():
            raise error

    def update(
        self, entries: Sequence[bytes], cosignatures: Iterable[tuple[int, str, str]] = ()
    ) -> dict[str, LedgerError]:
        """Add entries, and keep what sites co-signed of the ledger before them; on disk when this returns.

        Args:
            entries: the bytes of signed entries.
            cosignatures: sites' witness lines: (size of the checkpoint, name, line) each. A line stays until the site
                has co-signed a larger checkpoint. If there are no entries, those on the present checkpoint also
                go into that.

        Returns:
            By name, why a line was not kept: no such size, a site that the ledger does not know, an invalid signature.

        Raises:
            LedgerError: if an entry is not well formed or has no valid signature, if the ledger is read only or cannot
                be written, or if it was changed by another process. Nothing was added then.
        """
        key = self._writing_key()
        for data in entries:
            if not self._reader.read(data).is_signed(data):
                raise LedgerError(
                    expected="entries with valid signatures", found="one without", remedy="Nothing was appended."
                )
        lines, refused = self._checked(cosignatures)
        if not entries and not lines:
            return refused
        old_size, old_lines = self.size, dict(self._cosigned)
        for data in entries:
            self._tree.append(leaf_hash(data))
        try:
            with _explained(self._folder), self._exclusive():
                files = self._grown(list(entries))
                note = _signed(self._checkpoint(self._tree.size), key) if entries else self._note
                for checkpoint, line in lines:
                    self._note_cosignature(checkpoint, line)
                    if checkpoint == note.checkpoint:
                        note = _with_line(note, line)
                self._put(files, note, key)
        except BaseException:
            # The folder still has the old checkpoint, or another process's: what we hold goes back to what we read.
            self._tree.truncate(old_size)
            self._cosigned = old_lines
            raise
        for data in entries:
            self._note_keys(data)
        # Done, and nothing is taken back: what stays here because it cannot be removed counts no more.
        with contextlib.suppress(OSError):
            self._remove_superseded()
            self._remove_partials(old_size)
        return refused

    def _grown(self, entries: list[bytes]) -> dict[str, bytes]:
        """Bundles and tiles of the grown tree that its last size had not, by their paths."""
        old_size, tree = self.size, self._tree
        begun = old_size % TILE_WIDTH
        kept = self._read_bundle(entries_path(old_size // TILE_WIDTH, begun)) if begun and entries else []
        files: dict[str, bytes] = {}
        for level, index, width in tile_positions(tree.size, old_size):
            files[tile_path(level, index, width)] = tile_content(tree, level, index, width)
            if level == 0:
                start, stop = index * TILE_WIDTH, index * TILE_WIDTH + width
                new = entries[max(0, start - old_size) : stop - old_size]
                files[entries_path(index, width)] = encode_bundle(new if start >= old_size else kept + new)
        return files

    def _put(self, files: Mapping[str, bytes], note: Note, key: SigningKey) -> None:
        """Put new files, co-signed checkpoints and the checkpoint in their places; only then does this object know."""
        witnessed = {self._folder / path: data for path, data in self._witness_notes(key).items()}
        present = self._witness_files()
        replaced = {path: data for path, data in witnessed.items() if path not in present or path.read_bytes() != data}
        if note != self._note:
            replaced[self._folder / CHECKPOINT_PATH] = note.text.encode()
        commit({self._folder / path: data for path, data in files.items()}, replaced)
        self._note = note

    def _witness_notes(self, key: SigningKey) -> dict[str, bytes]:
        """The co-signed checkpoints, each with the lines of the sites that co-signed none later, by their paths."""
        notes: dict[int, Note] = {}
        for name in sorted(self._cosigned):
            checkpoint, line = self._cosigned[name]
            notes[checkpoint.size] = _with_line(notes.get(checkpoint.size) or _signed(checkpoint, key), line)
        return {witness_path(size): note.text.encode() for size, note in notes.items()}

    def _witness_files(self) -> set[Path]:
        folder = self._folder / WITNESS_FOLDER
        return {path for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()

    def _read_witnesses(self) -> None:
        for path in self._witness_files():
            try:
                note = parse_note(_read_text(path))
                size = note.checkpoint.size
                extended = size <= self.size and note.checkpoint == self._checkpoint(size)
                self._require(extended, "one that this ledger extends", "another one")
            except LedgerError as error:
                raise LedgerError(
                    expected=f"a checkpoint of this ledger, co-signed, in {path}",
                    found=error.found,
                    remedy="Run `synclave-audit verify` to see what was changed; restore the ledger from a copy.",
                ) from None
            for line in note.signatures:
                self._note_cosignature(note.checkpoint, line)

    def _note_cosignature(self, checkpoint: Checkpoint, line: NoteSignature) -> None:
        known = self._cosigned.get(line.name)
        if line.name != self.origin and (known is None or known[0].size <= checkpoint.size):
            self._cosigned[line.name] = checkpoint, line

    def _checked(
        self, cosignatures: Iterable[tuple[int, str, str]]
    ) -> tuple[list[tuple[Checkpoint, NoteSignature]], dict[str, LedgerError]]:
        """The valid witness lines with the checkpoints that they are on, and by name why others are not."""
        valid: list[tuple[Checkpoint, NoteSignature]] = []
        refused: dict[str, LedgerError] = {}
        for size, name, line in cosignatures:
            try:
                self._require(0 <= size <= self.size, f"a size from 0 to {self.size}", str(size))
                checkpoint, signature = self._checkpoint(size), parse_line(line.removesuffix("\n"))
                keys = self._keys.get(name, ()) if signature.name == name else ()
                self._require(
                    any(cosignature_time(checkpoint, signature, public_text) is not None for public_text in keys),
                    f"a co-signature by {name} on the checkpoint of size {size}",
                    "one that does not verify",
                )
                valid.append((checkpoint, signature))
            except LedgerError as error:
                refused[name] = error
        return valid, refused

    def _checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(origin=self.origin, size=size, root=self._tree.root(size))

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

    def _remove_superseded(self) -> None:
        """Remove co-signed checkpoints whose every site has co-signed a later one."""
        counting = {self._folder / witness_path(checkpoint.size) for checkpoint, _ in self._cosigned.values()}
        for path in self._witness_files() - counting:
            path.unlink(missing_ok=True)

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


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
        raise LedgerError(
            expected=f"a ledger in {folder}", found=reason, remedy="Check the path and its permissions, or the copy."
        ) from None
