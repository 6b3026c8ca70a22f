"""Who acts in a ledger: names, roles and keys, and each actor's chain of entries, as the entries themselves tell.

A name has one key at a time, registered by itself. A site's key may hand over to another (``key-rotated``); what the
old one signs from then on is not the site's. Every entry of an actor names the leaf hash of the one before it, so an
operator cannot leave one out, move it, or tell another story between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from synclave_shared.ledger.entry import KeyRegistered, KeyRotated, SignedEntry

__all__ = ["Actor", "Actors"]

Fault = tuple[str, str]
"""Code and explanation of what is not as it must be."""


@dataclass(slots=True)
class Actor:
    """One name in the ledger.

    Attributes:
        role: ``coordinator`` or ``site``.
        keys: public keys that counted as its own, base64, oldest first; the last one counts now.
        not_after: until when the present key may sign, by the actor's clock; empty if it has no end.
        newest: leaf hash, hex, of its newest entry.
        signing: how many of the keys have signed an entry: a rotation is signed by the old key alone, so a key that has
            signed nothing yet may be anybody's.
    """

    role: str
    keys: list[str]
    not_after: str
    newest: str
    signing: int = 0

    @property
    def proven_keys(self) -> tuple[str, ...]:
        """The keys that have signed an entry, oldest first: whoever holds the last one holds the name."""
        return tuple(self.keys[: self.signing])


class Actors:
    """Everyone who registered, by name, in the order of registration."""

    def __init__(self) -> None:
        self.by_name: dict[str, Actor] = {}
        self._leaves: set[bytes] = set()

    def is_repeated(self, leaf: bytes) -> bool:
        """Take note of an entry by its leaf hash; whether it stood in the ledger before."""
        if leaf in self._leaves:
            return True
        self._leaves.add(leaf)
        return False

    def key(self, name: str) -> str | None:
        """The key that counts as ``name``'s now, or None if it never registered one."""
        actor = self.by_name.get(name)
        return actor.keys[-1] if actor else None

    def coordinator_key(self) -> str | None:
        """The key of the one coordinator, or None."""
        return next((actor.keys[-1] for actor in self.by_name.values() if actor.role == "coordinator"), None)

    def register(self, entry: SignedEntry, body: KeyRegistered, leaf: str) -> list[Fault]:
        """Take a registration into account; returns its faults."""
        known = self.by_name.get(body.name)
        if (entry.actor, entry.key, entry.run) != (body.name, body.public_key, ""):
            return [("registration-wrong", f"{entry.actor} registers a key or a name that is not its own")]
        if known is not None and known.keys[-1] != body.public_key:
            return [("key-conflict", f"{body.name} registered another key before; that one stays")]
        if known is not None and known.role != body.role:
            return [("key-conflict", f"{body.name} registered in another role before")]
        if known is None and body.role == "coordinator" and self.coordinator_key() is not None:
            return [("key-conflict", "a second coordinator; a ledger has one")]
        if known is None:
            known = self.by_name[body.name] = Actor(body.role, [body.public_key], body.not_after, "")
        return self._follow(known, entry, leaf)

    def admit(self, entry: SignedEntry, leaf: str) -> tuple[Actor | None, list[Fault]]:
        """Whose entry this is, and whether it comes in its place in that actor's chain.

        Returns:
            The actor, or None if the key is not that of the name; and the faults.
        """
        actor = self.by_name.get(entry.actor)
        if actor is None or entry.key not in actor.keys:
            return None, [("key-unknown", f"signed with a key that {entry.actor} did not register before")]
        if entry.key != actor.keys[-1]:
            return None, [("key-retired", f"signed with a key that {entry.actor} had replaced by another before")]
        return actor, self._follow(actor, entry, leaf)

    def rotate(self, actor: Actor, entry: SignedEntry, body: KeyRotated) -> list[Fault]:
        """Let a site's new key count from here on; returns the faults."""
        if actor.role != "site":
            # The coordinator's key is the one that sites pin and that the plan names: it changes with the next plan.
            return [("role-wrong", "only a site's key is replaced within a ledger")]
        if entry.actor != body.name or entry.run or body.public_key in actor.keys:
            return [("rotation-wrong", f"{entry.actor} replaces a key that is not its own, or by one it had before")]
        actor.keys.append(body.public_key)
        actor.not_after = body.not_after
        return []

    def _follow(self, actor: Actor, entry: SignedEntry, leaf: str) -> list[Fault]:
        faults = []
        if entry.previous != actor.newest:
            known = not entry.previous or bytes.fromhex(entry.previous) in self._leaves
            if known:
                explanation = f"follows an earlier entry of {entry.actor} than its newest: moved, or another story"
                faults.append(("previous-superseded", explanation))
            else:
                explanation = f"follows an entry of {entry.actor} that does not stand before it: left out, or moved"
                faults.append(("previous-missing", explanation))
        actor.newest = leaf
        actor.signing = len(actor.keys)
        if actor.not_after and entry.time > actor.not_after:
            faults.append(("key-expired", f"dated {entry.time}; the key of {entry.actor} ended {actor.not_after}"))
        return faults
