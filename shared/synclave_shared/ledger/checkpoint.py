"""Checkpoints of the ledger as signed notes, and the sites' co-signatures on them.

Formats: C2SP signed-note, tlog-checkpoint and tlog-cosignature (Ed25519 variant, ``cosignature/v1``). A note is::

    synclave/0123456789abcdef          origin
    42                                 number of entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB…=  Merkle root, base64

    — synclave/0123456789abcdef <base64 of key id and signature>
    — berlin <base64 of key id, time and signature>

Stricter than the C2SP text, because one ledger must have one form: no extension lines, and every signature line must
come from a key that the ledger knows.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.keys import SIGNATURE_BYTES, SigningKey, decode_base64, encode_base64, verify_signature
from synclave_shared.ledger.merkle import HASH_BYTES

__all__ = [
    "MAX_NOTE_BYTES",
    "Checkpoint",
    "Note",
    "NoteSignature",
    "cosignature_line",
    "cosignature_time",
    "is_operator_signature",
    "open_checkpoint",
    "parse_line",
    "parse_note",
    "sign_checkpoint",
]

MAX_NOTE_BYTES: Final = 2 * 2**20
"""A checkpoint co-signed by a roster of 10,000 sites is about 1.8 MB."""

ED25519: Final = b"\x01"
COSIGNATURE_V1: Final = b"\x04"
KEY_ID_BYTES: Final = 4

_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")
_NAME = re.compile(r"[!-*,-~]+")
"""Key names: visible ASCII without the plus sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The ledger's state in three values.

    Attributes:
        origin: which ledger this is.
        size: number of entries.
        root: Merkle root over them, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def body(self) -> str:
        """The note text that is signed, with its final newline."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: the key's name, its 4-byte id, and what it signed with."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line without its newline."""
        return f"— {self.name} {encode_base64(self.key_id + self.signature)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A parsed note: nothing in it is believed before a signature has been checked."""

    checkpoint: Checkpoint
    signatures: tuple[NoteSignature, ...]

    @property
    def text(self) -> str:
        """The note's one text form."""
        return self.checkpoint.body + "\n" + "".join(f"{signature.line}\n" for signature in self.signatures)

    def is_signed_by(self, operator_key: str) -> bool:
        """Whether the operator with this key (base64) signed the checkpoint."""
        return any(is_operator_signature(self.checkpoint, line, operator_key) for line in self.signatures)


def _malformed(found: str) -> LedgerError:
    return LedgerError(
        expected="a checkpoint: origin, size, root, a blank line and signature lines",
        found=found,
        remedy="Ask the coordinator for the ledger again.",
    )


def parse_line(line: str) -> NoteSignature:
    """Read a signature line (without its newline).

    Raises:
        LedgerError: if it is not one.
    """
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _NAME.fullmatch(parts[1]):
        raise _malformed("a malformed signature line")
    try:
        data = decode_base64(parts[2])
    except ValueError as error:
        raise _malformed(f"a signature line by {parts[1]} that is {error}") from None
    if len(data) <= KEY_ID_BYTES:
        raise _malformed(f"a signature line by {parts[1]} that is too short")
    return NoteSignature(name=parts[1], key_id=data[:KEY_ID_BYTES], signature=data[KEY_ID_BYTES:])


def parse_note(text: str) -> Note:
    """Read a note's form; believes nothing yet.

    Raises:
        LedgerError: if it is not in the one form described above.
    """
    if len(text) > MAX_NOTE_BYTES:
        raise _malformed(f"{len(text)} characters")
    body, separator, tail = text.partition("\n\n")
    lines = body.split("\n")
    if not separator or len(lines) != 3 or not tail.endswith("\n"):
        raise _malformed("another arrangement of lines")
    origin, size, root = lines
    if not _NAME.fullmatch(origin) or not _SIZE.fullmatch(size):
        raise _malformed("an unreadable origin or size")
    try:
        root_hash = decode_base64(root, HASH_BYTES)
    except ValueError as error:
        raise _malformed(f"a root hash that is {error}") from None
    checkpoint = Checkpoint(origin=origin, size=int(size), root=root_hash)
    return Note(checkpoint=checkpoint, signatures=tuple(parse_line(line) for line in tail[:-1].split("\n")))


def _key_id(name: str, algorithm: bytes, public_text: str) -> bytes:
    material = name.encode() + b"\n" + algorithm + decode_base64(public_text)
    return hashlib.sha256(material).digest()[:KEY_ID_BYTES]


def _has_key_id(signature: NoteSignature, algorithm: bytes, public_text: str) -> bool:
    try:
        return signature.key_id == _key_id(signature.name, algorithm, public_text)
    except ValueError:
        return False


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> NoteSignature:
    """The operator's signature; its key name is the origin (C2SP tlog-checkpoint)."""
    return NoteSignature(
        name=checkpoint.origin,
        key_id=_key_id(checkpoint.origin, ED25519, key.public_text),
        signature=key.sign(checkpoint.body.encode()),
    )


def is_operator_signature(checkpoint: Checkpoint, signature: NoteSignature, operator_key: str) -> bool:
    """Whether the line is the operator's valid signature on the checkpoint."""
    return (
        signature.name == checkpoint.origin
        and _has_key_id(signature, ED25519, operator_key)
        and verify_signature(operator_key, checkpoint.body.encode(), signature.signature)
    )


def open_checkpoint(text: str, *, origin: str, operator_key: str) -> Note:
    """Read a note and believe it because the operator signed it.

    Args:
        text: the note.
        origin: the ledger it must be about.
        operator_key: the coordinator's public key, base64.

    Raises:
        LedgerError: if it is malformed, about another ledger, or not signed by that key.
    """
    note = parse_note(text)
    if note.checkpoint.origin != origin:
        raise LedgerError(
            expected=f"a checkpoint of the ledger {origin}",
            found=f"one of {note.checkpoint.origin}",
            remedy="Check that this is the ledger of the run you mean.",
        )
    if not note.is_signed_by(operator_key):
        raise LedgerError(
            expected="the coordinator's signature on the checkpoint",
            found="none that its key verifies",
            remedy="Do not trust this ledger; ask the coordinator.",
        )
    return note


def _cosigned_message(body: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{body}".encode()


def cosignature_line(checkpoint: Checkpoint, name: str, key: SigningKey, time: datetime) -> str:
    """The witness line with which ``name`` states that it saw this checkpoint and that it extends what it saw before.

    Args:
        checkpoint: what was verified.
        name: the site's name.
        key: the site's key.
        time: when, timezone-aware; kept to whole seconds.
    """
    time_s = int(time.timestamp())
    signature = key.sign(_cosigned_message(checkpoint.body, time_s))
    return NoteSignature(
        name=name,
        key_id=_key_id(name, COSIGNATURE_V1, key.public_text),
        signature=struct.pack(">Q", time_s) + signature,
    ).line


def cosignature_time(checkpoint: Checkpoint, signature: NoteSignature, public_text: str) -> int | None:
    """The POSIX time of a valid co-signature by that key on the checkpoint, or None if it is not valid."""
    if len(signature.signature) != 8 + SIGNATURE_BYTES:
        return None
    if not _has_key_id(signature, COSIGNATURE_V1, public_text):
        return None
    (time_s,) = struct.unpack(">Q", signature.signature[:8])
    if time_s >= 2**63:
        return None
    message = _cosigned_message(checkpoint.body, time_s)
    return int(time_s) if verify_signature(public_text, message, signature.signature[8:]) else None
