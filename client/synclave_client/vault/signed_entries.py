"""What this site signed: its ledger entries, each after the one before it, and its keys by their registrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from synclave_client.vault.database import OF_LEDGER, JournalDatabase
from synclave_shared.errors import JournalError
from synclave_shared.ledger.entry import KeyRegistered, parse_entry
from synclave_shared.ledger.merkle import leaf_hash

__all__ = ["EntrySigner", "JournalEntry", "SignedEntries"]

EntrySigner = Callable[[str], bytes]
"""Makes a signed entry, given the leaf hash of this site's entry before it in the same ledger (empty: the first)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A ledger entry signed by this site.

    Attributes:
        number: its place in the journal.
        content: canonical JSON.
        sent: whether it was part of a reply.
        of_plan: whether it belongs to one plan; a registration belongs to the ledgers of all plans of its time.
    """

    number: int
    content: bytes
    sent: bool
    of_plan: bool


class SignedEntries:
    """The part of the journal that holds them; :class:`synclave_client.vault.journal.Journal` has one."""

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database

    def registration(self, digest: str, entry: EntrySigner) -> bytes:
        """The ``key-registered`` entry that comes first in the ledger of a plan; made if the site has none at all.

        Args:
            digest: the plan; of one for which the site signed nothing yet, it is the registration of the present key.
            entry: signs the first registration of the site's life.
        """
        query = f"SELECT content FROM entries AS e WHERE plan = '' AND {OF_LEDGER}"  # noqa: S608 - a constant
        row = self._database.one(query, digest)
        if row is not None:
            return bytes(row[0])
        with self._database.write() as database:
            first = database.execute(query, (digest,)).fetchone()
            return bytes(first[0]) if first is not None else _register(database, entry)

    def rotate(self, hand_over: EntrySigner | None, registration: EntrySigner) -> tuple[str, ...]:
        """Let a new key count, durably and in one step.

        Args:
            hand_over: signs, with the old key, the ``key-rotated`` entry for each ledger that goes on; None: for none.
            registration: signs the new key's registration, for the ledgers of plans to come.

        Returns:
            Digests of the plans whose ledgers are told.
        """
        with self._database.write() as database:
            rows = database.execute(
                "SELECT plan FROM entries WHERE plan != '' GROUP BY plan"
                " HAVING plan NOT IN (SELECT digest FROM plans WHERE closed_at IS NOT NULL) ORDER BY MIN(number)"
            ).fetchall()
            plans = tuple(row[0] for row in rows) if hand_over is not None else ()
            for digest in plans:
                if hand_over is not None:
                    self.insert(database, digest, hand_over)
            _register(database, registration)
        return plans

    def registered_keys(self) -> list[str]:
        """Public keys that this site registered, base64, oldest first; the last one counts."""
        rows = self._database.all("SELECT content FROM entries WHERE plan = '' ORDER BY number")
        return [_registered(row[0]) for row in rows]

    def registered_key(self) -> str | None:
        """The public key that counts now, base64; None if none was registered."""
        row = self._database.one("SELECT content FROM entries WHERE plan = '' ORDER BY number DESC LIMIT 1")
        return None if row is None else _registered(row[0])

    def keys_needed(self, site: str) -> frozenset[str]:
        """Public keys under which the copies of open plans' ledgers know this site: for these it co-signs with them."""
        rows = self._database.all(
            "SELECT a.public_key FROM ledger_actors AS a JOIN ledgers AS l ON l.number = a.ledger"
            " JOIN plans AS p ON p.digest = l.plan WHERE p.closed_at IS NULL AND a.name = ?",
            site,
        )
        return frozenset(row[0] for row in rows)

    def open(self, digest: str) -> list[JournalEntry]:
        """Entries of this site that its copy of the ledger of plan ``digest`` does not hold yet, oldest first."""
        rows = self._database.all(
            f"SELECT number, content, sent, plan FROM entries AS e WHERE {OF_LEDGER}"  # noqa: S608 - a constant
            " AND number NOT IN (SELECT entry FROM inclusions WHERE plan = ?1) ORDER BY number",
            digest,
        )
        return [JournalEntry(number=row[0], content=row[1], sent=bool(row[2]), of_plan=bool(row[3])) for row in rows]

    def mark_sent(self, numbers: Sequence[int]) -> None:
        """Record that these entries are about to leave; from now on their inclusion is demanded."""
        with self._database.write() as database:
            self.mark(database, numbers)

    def wrote(self, digest: str, content: bytes) -> bool:
        """Whether this site signed an entry with these bytes for the ledger of plan ``digest``."""
        found = self._database.one("SELECT 1 FROM entries WHERE content = ? AND plan IN (?, '')", content, digest)
        return found is not None

    @staticmethod
    def insert(database: sqlite3.Connection, digest: str, entry: EntrySigner) -> tuple[int, bytes]:
        """Sign an entry that follows this site's newest in a plan's ledger, and insert it: its number and bytes."""
        # A registration, under no plan's digest, comes first in the ledger of a plan.
        newest = database.execute(
            "SELECT content FROM entries WHERE plan IN (?, '') ORDER BY plan DESC, number DESC LIMIT 1", (digest,)
        ).fetchone()
        content = entry("" if newest is None else leaf_hash(newest[0]).hex())
        row = database.execute(
            "INSERT INTO entries (plan, content) VALUES (?, ?) RETURNING number", (digest, content)
        ).fetchone()
        return int(row[0]), content

    @staticmethod
    def mark(database: sqlite3.Connection, numbers: Sequence[int]) -> None:
        """:meth:`mark_sent` within a transaction that is open."""
        database.executemany("UPDATE entries SET sent = 1 WHERE number = ?", [(number,) for number in numbers])


def _register(database: sqlite3.Connection, entry: EntrySigner) -> bytes:
    content = entry("")
    # Said in every hello from now on: its inclusion is demanded.
    database.execute("INSERT INTO entries (plan, content, sent) VALUES ('', ?, 1)", (content,))
    return content


@lru_cache(maxsize=8)
def _registered(content: bytes) -> str:
    body = parse_entry(content).body
    if not isinstance(body, KeyRegistered):
        raise JournalError(
            expected="a registration under no plan",
            found="another entry",
            remedy="The journal was altered; see Back up.",
        )
    return body.public_key
