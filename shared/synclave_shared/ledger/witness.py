"""Witnessing: the coordinator shows its ledger, the site checks that history only grew, and co-signs.

Both sides are pure functions of bytes. A site that always asks for a proof from the checkpoint it saw last, and for the
entries it sent, notices if the coordinator rewrites or withholds; its co-signature lets others know what it saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import cosignature_line, open_checkpoint, parse_note
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import EMPTY_ROOT, leaf_hash, verify_consistency, verify_inclusion
from synclave_shared.ledger.store import Ledger
from synclave_shared.protocol import CheckpointPresentation, InclusionPresentation

__all__ = ["SeenCheckpoint", "cosign", "present", "verify_presentation"]


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """A checkpoint that a site verified.

    Attributes:
        size: number of entries.
        root: Merkle root, hex.
        note: the signed note.
    """

    size: int
    root: str
    note: str


def _refused(expected: str, found: str) -> LedgerError:
    return LedgerError(
        expected=expected,
        found=found,
        remedy="The coordinator's ledger is not the one seen before. Tell your data-protection officer.",
    )


def present(ledger: Ledger, previous_size: int, leaf_indices: Iterable[int]) -> CheckpointPresentation:
    """Show the ledger to a site.

    Args:
        ledger: as it is now.
        previous_size: size that the site saw last (``Reply.seen_size``), 0 if none.
        leaf_indices: the entries which that site sent since then.

    Raises:
        LedgerError: if the ledger has no such size or entry.
    """
    return CheckpointPresentation(
        note=ledger.checkpoint(),
        previous_size=previous_size,
        consistency=ledger.consistency_proof(previous_size),
        inclusions=tuple(
            InclusionPresentation(
                index=index, leaf_hash=leaf_hash(ledger.entry(index)).hex(), proof=ledger.inclusion_proof(index)
            )
            for index in leaf_indices
        ),
    )


def verify_presentation(
    presentation: CheckpointPresentation,
    *,
    origin: str,
    operator_key: str,
    seen_size: int,
    seen_root: str,
    expected_leaves: Sequence[str],
) -> SeenCheckpoint:
    """Check a presented ledger against what this site knows.

    Args:
        presentation: what the coordinator showed.
        origin: the ledger it must be.
        operator_key: the pinned coordinator's public key, base64.
        seen_size: size of the checkpoint this site verified last; 0 if none.
        seen_root: its root, hex; not looked at if ``seen_size`` is 0.
        expected_leaves: leaf hashes (hex) of entries of this site that must be in the ledger by now.

    Returns:
        The checkpoint to remember.

    Raises:
        LedgerError: if the signature, the consistency with what was seen, or an inclusion does not hold.
    """
    checkpoint = open_checkpoint(presentation.note, origin=origin, operator_key=operator_key).checkpoint
    if presentation.previous_size != seen_size:
        raise _refused(f"a proof from size {seen_size}", f"one from size {presentation.previous_size}")
    known_root = bytes.fromhex(seen_root) if seen_size else EMPTY_ROOT
    proof = [bytes.fromhex(node) for node in presentation.consistency]
    if not verify_consistency(seen_size, checkpoint.size, proof, known_root, checkpoint.root):
        raise _refused(
            f"a ledger that extends the one of {seen_size} entries seen before",
            f"one of {checkpoint.size} entries without a valid proof of it",
        )
    for shown in presentation.inclusions:
        path = [bytes.fromhex(node) for node in shown.proof]
        if not verify_inclusion(bytes.fromhex(shown.leaf_hash), shown.index, checkpoint.size, path, checkpoint.root):
            raise _refused("valid proofs of inclusion", f"an invalid one for entry {shown.index}")
    missing = set(expected_leaves) - {shown.leaf_hash for shown in presentation.inclusions}
    if missing:
        raise _refused("every entry that this site sent", f"{len(missing)} of them missing")
    return SeenCheckpoint(size=checkpoint.size, root=checkpoint.root.hex(), note=presentation.note)


def cosign(note: str, site_name: str, key: SigningKey, time: datetime) -> str:
    """The site's witness line for a checkpoint it has verified, without a newline.

    Raises:
        LedgerError: if the note is malformed.
    """
    return cosignature_line(parse_note(note).checkpoint, site_name, key, time)
