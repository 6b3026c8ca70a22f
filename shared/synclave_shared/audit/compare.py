"""Two copies of a ledger, or a copy and a checkpoint: the same, an extension, cut short, or two histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Note, cosignature_time
from synclave_shared.ledger.entry import KeyRegistered, KeyRotated, SignedEntry, parse_entry
from synclave_shared.ledger.files import LedgerFiles
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.ledger.tiles import CHECKPOINT_PATH

__all__ = ["Comparison", "Copy", "Relation", "compare", "load_copy", "load_note", "of_note"]

Relation = Literal["same", "first-extends", "second-extends", "fork", "truncated", "foreign", "damaged"]

WORDS: Final[dict[Relation, str]] = {
    "same": "Both are the same ledger in the same state.",
    "first-extends": "The first continues the second: everything that the second holds is how the first begins.",
    "second-extends": "The second continues the first: everything that the first holds is how the second begins."
    " The first is older, or was cut short.",
    "fork": "Two histories: they begin alike and then differ. Neither continues the other.",
    "truncated": "The copy lacks entries which the checkpoint covers: it is older, or was cut short.",
    "foreign": "These are not one ledger: they state different origins.",
    "damaged": "At least one does not hold the entries that its own checkpoint covers: run `synclave-audit verify`.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One side of a comparison.

    Attributes:
        origin: which ledger it states to be.
        size: number of entries of its checkpoint.
        root: root of its checkpoint, hex.
        note: the checkpoint with its signatures.
        entries: the entries; None for a checkpoint alone.
    """

    origin: str
    size: int
    root: str
    note: Note
    entries: tuple[bytes, ...] | None

    @property
    def sound(self) -> bool:
        """Whether the entries have the checkpoint's root; a checkpoint alone has nothing that could disagree."""
        if self.entries is None:
            return True
        return len(self.entries) == self.size and _root(self.entries) == self.root


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two copies relate.

    Attributes:
        relation: see :data:`Relation`.
        explanation: the same in words.
        first_size, second_size: numbers of entries.
        first_difference: index of the first entry in which they differ, or that only one has; None if there is none, or
            if only a checkpoint is there to compare with.
        coordinator_keys: the coordinator's key of the first and of the second: the given one, or else that which its
            first entry registers; of a checkpoint alone, the other's. None where nothing tells.
        signed: whether that key signed the first and the second checkpoint. A fork under one key with two true values
            is proof, by the coordinator's own signatures, that it showed two histories.
        cosigners: names of the sites whose co-signatures of the first and the second checkpoint verify with keys that
            its entries register.
    """

    relation: Relation
    explanation: str
    first_size: int
    second_size: int
    first_difference: int | None
    coordinator_keys: tuple[str | None, str | None]
    signed: tuple[bool, bool]
    cosigners: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def two_coordinators(self) -> bool:
        """Whether each side names a coordinator's key and these differ."""
        first, second = self.coordinator_keys
        return first is not None and second is not None and first != second


def load_note(path: Path) -> Note:
    """Read a checkpoint from a file.

    Raises:
        LedgerError: if it is none.
    """
    files = LedgerFiles(path.parent)
    note = files.note(path.name)
    if note is None:
        raise LedgerError(
            expected="a checkpoint note",
            found=f"{path}: {files.findings[-1].explanation}",
            remedy="Ask the site for it again.",
        )
    return note


def load_copy(folder: Path) -> Copy:
    """Read a ledger folder to compare it; it need not be valid.

    Raises:
        LedgerError: if its checkpoint is missing or malformed.
    """
    files = LedgerFiles(folder)
    note = files.note(CHECKPOINT_PATH)
    if note is None:
        found = files.findings[-1]
        missing = found.code == "file-missing"
        raise LedgerError(
            expected="a ledger folder, an exported ledger or a checkpoint",
            found=f"no checkpoint in {folder}" if missing else f"{folder}/{CHECKPOINT_PATH}: {found.explanation}",
            remedy="Check the path.",
        )
    return _copy(note, tuple(files.present(note.checkpoint.size)))


def of_note(note: Note) -> Copy:
    """A checkpoint alone as one side of a comparison."""
    return _copy(note, None)


def _copy(note: Note, entries: tuple[bytes, ...] | None) -> Copy:
    checkpoint = note.checkpoint
    return Copy(origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root.hex(), note=note, entries=entries)


def compare(first: Copy, second: Copy, coordinator_key: str | None = None) -> Comparison:
    """Say how two copies relate. At least one of them needs entries to tell more than whether they are equal.

    Args:
        first: one side.
        second: the other.
        coordinator_key: the coordinator's public key as the auditor knows it; None takes what the entries say.
    """
    relation, difference = _relation(first, second)
    named = [coordinator_key or _coordinator(copy.entries or ()) for copy in (first, second)]
    # A checkpoint alone names no key.
    keys = (
        named[0] if first.entries is not None else named[0] or named[1],
        named[1] if second.entries is not None else named[1] or named[0],
    )
    known = [_site_keys(copy.entries or ()) for copy in (first, second)]
    return Comparison(
        relation=relation,
        explanation=WORDS[relation],
        first_size=first.size,
        second_size=second.size,
        first_difference=difference,
        coordinator_keys=keys,
        signed=(_signed(first.note, keys[0]), _signed(second.note, keys[1])),
        cosigners=(
            _cosigners(first, known[0] if first.entries is not None else known[1]),
            _cosigners(second, known[1] if second.entries is not None else known[0]),
        ),
    )


def _relation(first: Copy, second: Copy) -> tuple[Relation, int | None]:
    if first.origin != second.origin:
        return "foreign", None
    if not first.sound or not second.sound:
        return "damaged", _first_difference(first.entries, second.entries)
    if (first.size, first.root) == (second.size, second.root):
        return "same", None
    if first.entries is not None and second.entries is not None:
        difference = _first_difference(first.entries, second.entries)
        if difference == second.size:
            return "first-extends", difference
        return ("second-extends" if difference == first.size else "fork"), difference
    if first.entries is None and second.entries is None:
        raise LedgerError(
            expected="at least one ledger with its entries",
            found="two checkpoints of different states, which alone prove nothing about each other",
            remedy="Compare each with a copy of the ledger.",
        )
    whole, note = (first, second) if first.entries is not None else (second, first)
    if note.size > whole.size:
        return "truncated", whole.size
    extends = _root((whole.entries or ())[: note.size]) == note.root
    if not extends:
        return "fork", None
    return ("first-extends" if whole is first else "second-extends"), note.size


def _first_difference(first: Sequence[bytes] | None, second: Sequence[bytes] | None) -> int | None:
    if first is None or second is None:
        return None
    shorter = min(len(first), len(second))
    differing = next((place for place in range(shorter) if first[place] != second[place]), shorter)
    return None if differing == len(first) == len(second) else differing


def _root(entries: Sequence[bytes]) -> str:
    return MerkleTree(leaf_hash(entry) for entry in entries).root().hex()


def _coordinator(entries: Sequence[bytes]) -> str | None:
    """The key that entry 0 registers as the coordinator's."""
    body = next((entry.body for entry in _of_keys(entries[:1])), None)
    return body.public_key if isinstance(body, KeyRegistered) and body.role == "coordinator" else None


def _site_keys(entries: Sequence[bytes]) -> dict[str, list[str]]:
    """Name of a site -> the keys that it ever had, by its first registration and what these keys handed over to."""
    keys: dict[str, list[str]] = {}
    for entry in _of_keys(entries):
        if isinstance(entry.body, KeyRegistered) and entry.key == entry.body.public_key:
            keys.setdefault(entry.actor, [entry.key])
        elif isinstance(entry.body, KeyRotated) and entry.key in keys.get(entry.actor, ()):
            keys[entry.actor].append(entry.body.public_key)
    return keys


def _of_keys(entries: Sequence[bytes]) -> Iterator[SignedEntry]:
    """The properly signed entries that register or rotate a key."""
    for content in entries:
        # Reading each of millions of entries would take minutes, and few are about keys.
        if b'"key-r' not in content:
            continue
        try:
            entry = parse_entry(content)
        except LedgerError:
            continue
        if isinstance(entry.body, KeyRegistered | KeyRotated) and entry.is_signed(content):
            yield entry


def _signed(note: Note, key: str | None) -> bool:
    return key is not None and note.is_signed_by(key)


def _cosigners(copy: Copy, keys: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    checkpoint = copy.note.checkpoint
    return tuple(
        line.name
        for line in copy.note.signatures
        if any(cosignature_time(checkpoint, line, key) is not None for key in keys.get(line.name, ()))
    )
