"""Witnessing: the coordinator shows what its ledger gained, the site checks it, keeps a copy, and co-signs.

Both sides are pure functions. A site holds every entry itself: that history only grew, and that the site's own entries
are in it, follows from the root that it computes over them. Its co-signature lets others know what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Note, cosignature_line, is_operator_signature, open_checkpoint, parse_note
from synclave_shared.ledger.entry import COORDINATOR, KeyRegistered, KeyRotated, SignedEntry, parse_entry
from synclave_shared.ledger.frontier import Frontier
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.ledger.store import Ledger
from synclave_shared.protocol import MAX_SHOWN_BYTES, MAX_SHOWN_ENTRIES, CheckpointPresentation

__all__ = ["Growth", "KnownActor", "check_roster", "cosign", "follow", "present"]


@dataclass(frozen=True, slots=True)
class KnownActor:
    """Somebody who signs entries of a ledger.

    Attributes:
        public_key: the key that counts as its own now, base64.
        newest: leaf hash, hex, of its newest entry.
    """

    public_key: str
    newest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What a presentation adds to a site's copy of the ledger.

    Attributes:
        frontier: of the ledger as it was presented.
        operator_key: public key that signed its checkpoint, base64.
        note: its checkpoint, with the coordinator's signature alone.
        entries: the bytes of the new entries; the first has the index ``frontier.size - len(entries)``.
        actors: by name, everyone who signed one of them.
    """

    frontier: Frontier
    operator_key: str
    note: str
    entries: tuple[bytes, ...]
    actors: Mapping[str, KnownActor]


def _refused(expected: str, found: str) -> LedgerError:
    return LedgerError(
        expected=expected,
        found=found,
        remedy="The coordinator's ledger is not the one seen before. Tell your data-protection officer.",
    )


def present(ledger: Ledger, seen_size: int) -> CheckpointPresentation:
    """Show a site what the ledger gained since it had ``seen_size`` entries, or as much as one presentation may hold.

    In the latter case the checkpoint is that of an earlier size, so that each presentation can be verified by itself.

    Raises:
        LedgerError: if the ledger has no such size.
    """
    stop, size_bytes = seen_size, 0
    entries: list[str] = []
    while stop < ledger.size and len(entries) < MAX_SHOWN_ENTRIES:
        content = ledger.entry(stop)
        size_bytes += len(content)
        if size_bytes > MAX_SHOWN_BYTES:
            break
        entries.append(content.decode("utf-8"))
        stop += 1
    return CheckpointPresentation(note=ledger.checkpoint(stop), previous_size=seen_size, entries=tuple(entries))


def follow(
    presentation: CheckpointPresentation,
    *,
    origin: str,
    operator_key: str,
    roster: Mapping[str, str] | None,
    known: Frontier,
    actors: Mapping[str, KnownActor],
    site: str,
    wrote: Callable[[bytes], bool],
    sent: Collection[bytes] = (),
) -> Growth:
    """Check a presented ledger against this site's copy of it.

    Args:
        presentation: what the coordinator showed.
        origin: the ledger it must be.
        operator_key: the pinned coordinator's public key, base64.
        roster: by name, the key with which the plan names a site, base64; None while the site was not shown the plan,
            and then :func:`check_roster` makes up for it.
        known: frontier of the copy.
        actors: by name, everyone who signed an entry of the copy.
        site: this site's name.
        wrote: whether this site signed an entry with these bytes.
        sent: entries of this site that are not in the copy and must be in the ledger by now.

    Returns:
        What is new.

    Raises:
        LedgerError: if the coordinator did not sign it; if it is not the copy with entries behind it; if a new entry is
            malformed, not signed with its actor's key or not next in its actor's chain; if one is of somebody whom the
            plan does not name with this key; if one in this site's name is not of this site; or if one of ``sent`` is
            missing.
    """
    note = open_checkpoint(presentation.note, origin=origin, operator_key=operator_key)
    checkpoint = note.checkpoint
    # A coordinator that missed a reply shows entries again that the copy has; the root decides about those, too.
    repeated = known.size - presentation.previous_size
    if repeated < 0:
        raise _refused(f"the entries from {known.size} on", f"those from {presentation.previous_size} on")
    if checkpoint.size != presentation.end or checkpoint.size < known.size:
        raise _refused(
            f"a ledger that extends the {known.size} entries seen before, with all that is new",
            f"one of {checkpoint.size} entries, shown up to {presentation.end}",
        )
    contents = tuple(text.encode("utf-8") for text in presentation.entries[repeated:])
    frontier = known.extend(map(leaf_hash, contents))
    if frontier.root() != checkpoint.root:
        raise _refused("entries that have the root of the checkpoint", "entries with another root")
    changed: dict[str, KnownActor] = {}
    for index, content in enumerate(contents, known.size):
        entry = _verified(content)
        actor = changed.get(entry.actor) or actors.get(entry.actor)
        # Of its own key a site hears from its policy, which says what to do.
        if roster is not None and actor is None and entry.actor != site:
            _check_named(index, entry, roster)
        changed[entry.actor] = _admitted(index, entry, content, actor, operator_key)
        if entry.actor == site and not wrote(content):
            raise LedgerError(
                expected="in this site's name only what it signed, by its journal",
                found=f"entry {index} ({entry.kind}), which the journal does not know",
                remedy="Either somebody else has this site's key, or the journal is an older copy that forgets spends."
                " Do not go on before you know which: see Back up in deploy/README.md.",
            )
    missing = set(sent).difference(contents)
    if missing:
        raise _refused("every entry that this site sent", f"{len(missing)} of them missing")
    operator = next(line for line in note.signatures if is_operator_signature(checkpoint, line, operator_key))
    return Growth(
        frontier=frontier,
        operator_key=operator_key,
        note=Note(checkpoint=checkpoint, signatures=(operator,)).text,
        entries=contents,
        actors=changed,
    )


def check_roster(entries: Iterable[bytes], roster: Mapping[str, str], site: str) -> None:
    """Check a copy that was made before its site was shown the plan.

    Args:
        entries: the entries of the copy, in order.
        roster: by name, the key with which the plan names a site, base64.
        site: this site's name.

    Raises:
        LedgerError: if somebody signed one of them whom the plan does not name with this key.
    """
    known = {site}
    for index, content in enumerate(entries):
        entry = _verified(content)
        if entry.actor not in known:
            _check_named(index, entry, roster)
            known.add(entry.actor)


def _check_named(index: int, entry: SignedEntry, roster: Mapping[str, str]) -> None:
    """The first entry of an actor says with which key it comes; later ones follow from it (:func:`_admitted`)."""
    if entry.actor != COORDINATOR and roster.get(entry.actor) != entry.key:
        raise _refused(
            "sites that the plan names, with the keys that it names",
            f"{entry.actor} with {'another key' if entry.actor in roster else 'no place in the plan'} in entry {index}",
        )


def _admitted(
    index: int, entry: SignedEntry, content: bytes, actor: KnownActor | None, operator_key: str
) -> KnownActor:
    """The actor after this entry, which must be signed with its key and name its entry before.

    Of the rules of a ledger, those that need nothing but the actor's last entry; verification checks the others.
    """
    role = "coordinator" if entry.actor == COORDINATOR else "site"
    body = entry.body
    if isinstance(body, KeyRegistered) and (body.name, body.public_key, body.role) != (entry.actor, entry.key, role):
        raise _refused(f"{entry.actor} to register its own key as a {role}", f"another registration in entry {index}")
    # The coordinator's key is the one that sites pin: within a ledger only sites replace theirs.
    if isinstance(body, KeyRotated) and (body.name, role) != (entry.actor, "site"):
        raise _refused("a site to replace its own key", f"another replacement in entry {index}")
    key = None if actor is None else actor.public_key
    if entry.actor == COORDINATOR:
        key = operator_key
    elif actor is None and isinstance(body, KeyRegistered):
        key = body.public_key
    if entry.key != key:
        raise _refused(f"entries signed with the key that {entry.actor} registered", f"another key in entry {index}")
    newest = "" if actor is None else actor.newest
    if entry.previous != newest:
        raise _refused(f"each entry of {entry.actor} after the one before it", f"another one named in entry {index}")
    if isinstance(body, KeyRotated):
        key = body.public_key
    return KnownActor(key, leaf_hash(content).hex())


@lru_cache(maxsize=1024)
def _verified(content: bytes) -> SignedEntry:
    """The entry, its signature checked. Kept for a while: the vaults of a simulation are all shown the same ones."""
    try:
        entry = parse_entry(content)
    except LedgerError as error:
        raise _refused("well-formed entries", error.found) from None
    if not entry.is_signed(content):
        raise _refused("entries with valid signatures", f"one in the name of {entry.actor} without")
    return entry


def cosign(note: str, site_name: str, key: SigningKey, time: datetime) -> str:
    """The site's witness line for a checkpoint it has verified, without a newline.

    Raises:
        LedgerError: if the note is malformed.
    """
    return cosignature_line(parse_note(note).checkpoint, site_name, key, time)
