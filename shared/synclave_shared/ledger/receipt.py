"""Receipts: one entry, its inclusion proof and the signed checkpoint that covers it, in a small file of their own.

Whoever holds a receipt can prove, without the ledger and offline, that the coordinator had this entry in its history:
a ledger without it contradicts the coordinator's own signature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from synclave_shared.canonical import FrozenModel, canonical_bytes
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Checkpoint, Note, is_operator_signature, parse_note
from synclave_shared.ledger.entry import SignedEntry, parse_entry
from synclave_shared.ledger.merkle import leaf_hash, verify_inclusion
from synclave_shared.ledger.replay import Finding
from synclave_shared.plan import PublicKeyText, explain_validation

__all__ = ["MAX_RECEIPT_BYTES", "Receipt", "ReceiptReport", "check_receipt", "make_receipt"]

MAX_RECEIPT_BYTES: Final = 128 * 1024
"""An entry has at most 65,535 bytes, a proof 64 hashes, and the checkpoint in a receipt one signature."""

ProofNode = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Receipt(FrozenModel):
    """A receipt as it is written: one canonical JSON object.

    Attributes:
        format: of the file.
        coordinator_key: public key that signed the checkpoint, base64; compare it with one you have from elsewhere.
        entry: the entry, as the JSON object whose canonical form the ledger holds.
        index: its place in the ledger.
        proof: inclusion proof (RFC 9162, 2.1.3), hex hashes from the leaf's side.
        checkpoint: the signed note, with the coordinator's signature alone.
    """

    format: Literal["synclave-receipt/v1"] = "synclave-receipt/v1"
    coordinator_key: PublicKeyText
    entry: dict[str, Any]
    index: Annotated[int, Field(ge=0)]
    proof: Annotated[tuple[ProofNode, ...], Field(max_length=64)]
    checkpoint: Annotated[str, Field(max_length=4096)]

    def to_bytes(self) -> bytes:
        """The file: canonical JSON on one line."""
        return canonical_bytes(self) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptReport:
    """What a receipt proves.

    Attributes:
        valid: whether there is no finding: the coordinator signed a ledger that holds this entry at this place, and the
            entry is its actor's.
        findings: what is wrong with it, each with a code of docs/ledger-format.md.
        entry: the entry; None if it cannot be read.
        index: its place in the ledger.
        checkpoint: the state of the ledger that the proof leads to; None if it cannot be read.
        coordinator_key: the key that the receipt names as the coordinator's; None if the receipt cannot be read.
    """

    valid: bool
    findings: tuple[Finding, ...]
    entry: SignedEntry | None = None
    index: int | None = None
    checkpoint: Checkpoint | None = None
    coordinator_key: str | None = None


def make_receipt(content: bytes, index: int, proof: Sequence[str], note: str, coordinator_key: str) -> Receipt:
    """Put a receipt together; :func:`check_receipt` says whether it holds.

    Args:
        content: the entry's bytes in the ledger.
        index: its place.
        proof: inclusion proof under the root of ``note``, hex.
        note: the signed checkpoint; co-signatures are left out, since a receipt cannot prove whose they are.
        coordinator_key: the public key that signed ``note``, base64.

    Raises:
        LedgerError: if entry or note is malformed, or the coordinator's signature is missing from it.
    """
    parsed = parse_note(note)
    signed = [line for line in parsed.signatures if is_operator_signature(parsed.checkpoint, line, coordinator_key)]
    if not signed:
        raise LedgerError(
            expected="a checkpoint signed by the coordinator",
            found="one without its signature",
            remedy="Take the checkpoint that this site verified.",
        )
    return Receipt(
        coordinator_key=coordinator_key,
        entry=parse_entry(content).model_dump(mode="json"),
        index=index,
        proof=tuple(proof),
        checkpoint=Note(checkpoint=parsed.checkpoint, signatures=(signed[0],)).text,
    )


def check_receipt(data: bytes, *, coordinator_key: str | None = None, site_key: str | None = None) -> ReceiptReport:
    """Check a receipt that an adversary may have written. Nothing in it makes this raise.

    Args:
        data: the file.
        coordinator_key: the key that must have signed the checkpoint, base64; None believes the one it names.
        site_key: the key that must have signed the entry, base64; None believes the one it names.
    """
    if len(data) > MAX_RECEIPT_BYTES:
        return _unreadable(f"{len(data)} bytes, more than the {MAX_RECEIPT_BYTES} that a receipt can have")
    try:
        receipt = Receipt.model_validate_json(data)
        # One receipt has one form: a field that is written twice, say, would be shown by some and not by others.
        if receipt.to_bytes() != data:
            return _unreadable("not in its one form, canonical JSON and a line feed")
    except ValidationError as error:
        return _unreadable(explain_validation(error))
    except ValueError as error:
        return _unreadable(str(error))
    findings: list[Finding] = []

    def find(code: str, explanation: str) -> None:
        findings.append(Finding(code=code, severity="error", explanation=explanation, entry=receipt.index))

    content = canonical_bytes(receipt.entry)
    entry = _entry(content, find)
    if entry is not None and site_key not in (None, entry.key):
        find("site-key-unexpected", f"{entry.actor} signed with another key than the one you named")
    if coordinator_key not in (None, receipt.coordinator_key):
        find("coordinator-unexpected", "it names another coordinator's key than the one you named")
    checkpoint = _checkpoint(receipt, find)
    if checkpoint is not None:
        path = [bytes.fromhex(node) for node in receipt.proof]
        if not verify_inclusion(leaf_hash(content), receipt.index, checkpoint.size, path, checkpoint.root):
            find("inclusion-invalid", "the proof does not lead from the entry to the checkpoint's root")
    return ReceiptReport(
        valid=not findings,
        findings=tuple(findings),
        entry=entry,
        index=receipt.index,
        checkpoint=checkpoint,
        coordinator_key=receipt.coordinator_key,
    )


def _unreadable(explanation: str) -> ReceiptReport:
    finding = Finding(code="receipt-malformed", severity="error", explanation=explanation)
    return ReceiptReport(valid=False, findings=(finding,))


def _entry(content: bytes, find: Callable[[str, str], None]) -> SignedEntry | None:
    try:
        entry = parse_entry(content)
    except LedgerError as error:
        find("entry-malformed", error.found)
        return None
    if not entry.is_signed(content):
        find("signature-invalid", f"the signature is not {entry.actor}'s")
    return entry


def _checkpoint(receipt: Receipt, find: Callable[[str, str], None]) -> Checkpoint | None:
    try:
        note = parse_note(receipt.checkpoint)
    except LedgerError as error:
        find("checkpoint-malformed", error.found)
        return None
    if len(note.signatures) != 1 or not is_operator_signature(
        note.checkpoint, note.signatures[0], receipt.coordinator_key
    ):
        find("checkpoint-signature-invalid", "the checkpoint is not signed by the coordinator's key, and by it alone")
    return note.checkpoint
