"""The site's own copies of the ledgers it witnesses, in the journal's database: they only grow, one for each plan.

A copy and the checkpoint over it change in one transaction, so after a crash they belong together. What a copy is good
for: nobody can rewrite what this site holds, and every receipt can be made from it when the coordinator is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from synclave_client.vault.database import OF_LEDGER, JournalDatabase
from synclave_shared.ledger.checkpoint import Note, parse_line, parse_note
from synclave_shared.ledger.frontier import Frontier
from synclave_shared.ledger.witness import Growth, KnownActor

__all__ = ["LedgerCopies", "OwnEntry", "SeenLedger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenLedger:
    """A plan's ledger as this site saw it last.

    Attributes:
        plan: digest of the plan.
        frontier: size and right edge of the tree.
        coordinator_key: public key that signed the checkpoint, base64.
        note: the checkpoint, with the coordinator's signature alone.
        cosignature: this site's witness line for it.
        seen_at: when, UTC, ISO 8601.
    """

    plan: str
    frontier: Frontier
    coordinator_key: str
    note: str
    cosignature: str
    seen_at: str

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.frontier.size

    @property
    def root(self) -> str:
        """Merkle root over them, hex."""
        return self.frontier.root().hex()

    @property
    def witnessed(self) -> str:
        """The checkpoint with both signatures: the coordinator's and this site's."""
        note = parse_note(self.note)
        return Note(checkpoint=note.checkpoint, signatures=(*note.signatures, parse_line(self.cosignature))).text


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEntry:
    """An entry of this site and its place in the copy of one ledger.

    Attributes:
        content: canonical JSON.
        index: its index; None while the ledger was not seen to hold it.
    """

    content: bytes
    index: int | None


class LedgerCopies:
    """The part of the journal that holds the copies; :class:`synclave_client.vault.journal.Journal` has one."""

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database

    def seen(self, digest: str) -> SeenLedger | None:
        """The ledger of a plan as it was seen last, or None."""
        row = self._database.one(
            "SELECT plan, size, frontier, coordinator_key, note, cosignature, seen_at FROM ledgers WHERE plan = ?",
            digest,
        )
        return None if row is None else _seen(row)

    def all(self) -> list[SeenLedger]:
        """Every ledger of which there is a copy, newest first."""
        rows = self._database.all(
            "SELECT plan, size, frontier, coordinator_key, note, cosignature, seen_at FROM ledgers ORDER BY number DESC"
        )
        return [_seen(row) for row in rows]

    def actors(self, digest: str) -> dict[str, KnownActor]:
        """By name, everyone who signed an entry of a copy."""
        rows = self._database.all(
            "SELECT name, public_key, newest FROM ledger_actors JOIN ledgers ON number = ledger WHERE plan = ?", digest
        )
        return {name: KnownActor(public_key, newest) for name, public_key, newest in rows}

    def extend(self, digest: str, growth: Growth, cosignature: str) -> SeenLedger:
        """Add what was presented to the copy, durably; this site's entries among it are no longer open.

        Args:
            digest: the plan.
            growth: what :func:`synclave_shared.ledger.witness.follow` found, starting from this very copy.
            cosignature: this site's witness line for the new checkpoint.

        Raises:
            JournalError: if it does not start from this copy, or cannot be stored. The copy is as it was then.
        """
        seen = SeenLedger(
            plan=digest,
            frontier=growth.frontier,
            coordinator_key=growth.operator_key,
            note=growth.note,
            cosignature=cosignature,
            seen_at=datetime.now(UTC).replace(microsecond=0).isoformat(),
        )
        first = seen.size - len(growth.entries)
        with self._database.write() as database:
            (number,) = database.execute(
                "INSERT INTO ledgers (plan, size, frontier, coordinator_key, note, cosignature, seen_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plan) DO UPDATE SET"
                " size = excluded.size, frontier = excluded.frontier, coordinator_key = excluded.coordinator_key,"
                " note = excluded.note, cosignature = excluded.cosignature, seen_at = excluded.seen_at"
                " RETURNING number",
                (
                    digest,
                    seen.size,
                    seen.frontier.to_bytes(),
                    seen.coordinator_key,
                    seen.note,
                    seen.cosignature,
                    seen.seen_at,
                ),
            ).fetchone()
            # The primary key refuses a growth that starts from another copy.
            database.executemany(
                "INSERT INTO copies VALUES (?, ?, ?)",
                [(number, index, content) for index, content in enumerate(growth.entries, first)],
            )
            database.executemany(
                "INSERT OR REPLACE INTO ledger_actors VALUES (?, ?, ?, ?)",
                [(number, name, actor.public_key, actor.newest) for name, actor in growth.actors.items()],
            )
            # A ledger may hold an entry twice (verification says so); a receipt needs one place.
            database.executemany(
                "INSERT OR IGNORE INTO inclusions SELECT ?, number, ? FROM entries WHERE content = ?",
                [(digest, index, content) for index, content in enumerate(growth.entries, first)],
            )
        return seen

    def entries(self, digest: str) -> list[bytes]:
        """The bytes of every entry of a copy, in order."""
        rows = self._database.all(
            "SELECT content FROM copies JOIN ledgers ON number = ledger WHERE plan = ? ORDER BY position", digest
        )
        return [row[0] for row in rows]

    def own(self, digest: str) -> list[OwnEntry]:
        """This site's entries that belong into a plan's ledger, oldest first, and where the copy has them."""
        query = (
            "SELECT content, position FROM entries AS e"  # noqa: S608 - a constant
            " LEFT JOIN inclusions AS i ON i.entry = e.number AND i.plan = ?1"
            f" WHERE {OF_LEDGER} ORDER BY e.number"
        )
        rows = self._database.all(query, digest)
        return [OwnEntry(content=row[0], index=row[1]) for row in rows]


def _seen(row: tuple[Any, ...]) -> SeenLedger:
    plan, size, peaks, coordinator_key, note, cosignature, seen_at = row
    return SeenLedger(
        plan=plan,
        frontier=Frontier.from_bytes(size, peaks),
        coordinator_key=coordinator_key,
        note=note,
        cosignature=cosignature,
        seen_at=seen_at,
    )
