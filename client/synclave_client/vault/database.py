"""The journal's SQLite file: its tables, who may open it, and transactions that survive a power cut."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from synclave_shared.errors import JournalError

__all__ = ["OF_LEDGER", "JournalDatabase", "sync", "unusable"]

_APPLICATION_ID: Final = 0x53594E43  # tells a journal from any other SQLite file
_VERSION: Final = 4
_BUSY_TIMEOUT_S: Final = 30.0

OF_LEDGER: Final = (
    "(e.plan = ?1 OR e.number = (SELECT MAX(r.number) FROM entries AS r WHERE r.plan = '' AND r.number <"
    " COALESCE((SELECT MIN(o.number) FROM entries AS o WHERE o.plan = ?1), 9223372036854775807)))"
)
"""Condition for an entry ``e`` that belongs into the ledger of plan ``?1``: it is of the plan, or it is the site's
registration of the key that counted when the site first signed for the plan."""

_TABLES: Final = """
CREATE TABLE plans (
    digest TEXT PRIMARY KEY, plan BLOB NOT NULL, signature TEXT NOT NULL, dataset TEXT NOT NULL,
    epsilon TEXT NOT NULL, delta TEXT NOT NULL, accepted_at TEXT NOT NULL, closed_at TEXT
) STRICT;
CREATE TABLE reservations (
    plan TEXT NOT NULL REFERENCES plans(digest), round INTEGER NOT NULL, dataset TEXT NOT NULL,
    mechanism TEXT NOT NULL, request_digest TEXT NOT NULL, reserved_at TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (plan, round)
) STRICT;
CREATE TABLE releases (
    plan TEXT NOT NULL, round INTEGER NOT NULL, header BLOB NOT NULL, payload_digest TEXT NOT NULL,
    released_at TEXT NOT NULL,
    PRIMARY KEY (plan, round), FOREIGN KEY (plan, round) REFERENCES reservations(plan, round)
) STRICT;
CREATE TABLE refusals (
    number INTEGER PRIMARY KEY, plan TEXT NOT NULL, round INTEGER, refusal TEXT NOT NULL,
    entry INTEGER REFERENCES entries(number), refused_at TEXT NOT NULL
) STRICT;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY, plan TEXT NOT NULL, content BLOB NOT NULL UNIQUE, sent INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE ledgers (
    number INTEGER PRIMARY KEY, plan TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, frontier BLOB NOT NULL,
    coordinator_key TEXT NOT NULL, note TEXT NOT NULL, cosignature TEXT NOT NULL, seen_at TEXT NOT NULL
) STRICT;
CREATE TABLE copies (
    ledger INTEGER NOT NULL REFERENCES ledgers(number), position INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (ledger, position)
) STRICT;
CREATE TABLE ledger_actors (
    ledger INTEGER NOT NULL REFERENCES ledgers(number), name TEXT NOT NULL, public_key TEXT NOT NULL,
    newest TEXT NOT NULL, PRIMARY KEY (ledger, name)
) STRICT;
CREATE TABLE inclusions (
    plan TEXT NOT NULL REFERENCES ledgers(plan), entry INTEGER NOT NULL REFERENCES entries(number),
    position INTEGER NOT NULL, PRIMARY KEY (plan, entry)
) STRICT;
CREATE TABLE data_sets (name TEXT PRIMARY KEY, folder TEXT NOT NULL UNIQUE) STRICT;
CREATE TRIGGER data_set_stays BEFORE DELETE ON data_sets BEGIN SELECT RAISE(ABORT, 'a name stays bound'); END;
CREATE TRIGGER data_set_is_fixed BEFORE UPDATE ON data_sets BEGIN SELECT RAISE(ABORT, 'a name stays bound'); END;
CREATE TABLE patients (mark BLOB NOT NULL, dataset TEXT NOT NULL, PRIMARY KEY (mark, dataset)) STRICT, WITHOUT ROWID;
CREATE TRIGGER patient_stays BEFORE DELETE ON patients BEGIN SELECT RAISE(ABORT, 'a patient stays counted'); END;
CREATE TRIGGER patient_is_fixed BEFORE UPDATE ON patients BEGIN SELECT RAISE(ABORT, 'a patient stays counted'); END;
CREATE TRIGGER spend_stays BEFORE DELETE ON reservations BEGIN SELECT RAISE(ABORT, 'a spend is never undone'); END;
CREATE TRIGGER spend_is_fixed
BEFORE UPDATE OF plan, round, dataset, mechanism, request_digest, reserved_at ON reservations
BEGIN SELECT RAISE(ABORT, 'a spend is never changed'); END;
CREATE TRIGGER release_stays BEFORE DELETE ON releases BEGIN SELECT RAISE(ABORT, 'a release is never undone'); END;
CREATE TRIGGER release_is_fixed BEFORE UPDATE ON releases BEGIN SELECT RAISE(ABORT, 'a release is never changed'); END;
CREATE TRIGGER copy_stays BEFORE DELETE ON copies BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END;
CREATE TRIGGER copy_is_fixed BEFORE UPDATE ON copies BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END;
CREATE TRIGGER ledger_stays BEFORE DELETE ON ledgers BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END;
CREATE TRIGGER ledger_grows BEFORE UPDATE ON ledgers WHEN NEW.size < OLD.size OR NEW.plan != OLD.plan
BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END;
"""


class JournalDatabase:
    """One connection, used by one thread at a time. Make it with :meth:`open` or :meth:`read`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock_file: int | None) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._connection = connection
        self._lock_file = lock_file

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty journal at ``path`` (mode 0600).

        Raises:
            JournalError: if there is one already, or it cannot be written.
        """
        if path.exists():
            raise JournalError(
                expected=f"no journal at {path} yet",
                found="one",
                remedy="Keep it: it is the record of what was spent. A second site needs another state folder.",
            )
        part = path.with_name(path.name + ".part")
        try:
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            connection = sqlite3.connect(part, isolation_level=None)
            try:
                connection.executescript(
                    f"PRAGMA application_id={_APPLICATION_ID}; BEGIN; {_TABLES} PRAGMA user_version={_VERSION}; COMMIT;"
                )
            finally:
                connection.close()
            sync(part)
            # A link, not a rename: it fails if somebody made a journal meanwhile, instead of replacing it.
            os.link(part, path)
            part.unlink()
            sync(path.parent)
        except (sqlite3.Error, OSError) as error:
            raise unusable(path, error) from None

    @classmethod
    def open(cls, path: Path, *, exclusive: bool = True) -> Self:
        """Open for writing.

        Args:
            path: the journal.
            exclusive: be its one vault; the lock goes with the process, however it ends. False: a single transaction
                of the steward beside a running vault.

        Raises:
            JournalError: if it is missing, damaged, of another version, or another process has it open.
        """
        if not path.is_file():
            raise JournalError(
                expected=f"the site's journal at {path}",
                found="nothing",
                remedy="A new site: `synclave-site init`. An old one: an older copy forgets what was spent since;"
                " to restore one, lower the budget by that (Back up in deploy/README.md).",
            )
        if not exclusive:
            return cls(path, _connect(path, write=True), None)
        try:
            lock_file = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(path, error) from None
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock_file)
            raise JournalError(
                expected=f"{path} to be free", found="another vault using it", remedy="Stop the other vault first."
            ) from None
        try:
            return cls(path, _connect(path, write=True), lock_file)
        except JournalError:
            os.close(lock_file)
            raise

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open to look at it, also beside a running vault.

        Raises:
            JournalError: if it is missing, damaged or of another version.
        """
        if not path.is_file():
            raise JournalError(
                expected=f"the site's journal at {path}", found="nothing", remedy="Check the settings' state_folder."
            )
        return cls(path, _connect(path, write=False), None)

    def close(self) -> None:
        """Close the file and give the lock back."""
        with self.lock:
            self._connection.close()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: durable when the block ends, undone if it raises.

        Raises:
            JournalError: if the database cannot be written.
        """
        with self.lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                raise unusable(self.path, error) from error

    def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Every row of a query.

        Raises:
            JournalError: if the database cannot be read.
        """
        with self.lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise unusable(self.path, error) from error

    def one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, or None.

        Raises:
            JournalError: if the database cannot be read.
        """
        rows = self.all(query, *values)
        return rows[0] if rows else None


def _connect(path: Path, *, write: bool) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={'rw' if write else 'ro'}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,  # gRPC answers from a pool of threads; our lock serialises them
            timeout=_BUSY_TIMEOUT_S,
        )
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from None
    try:
        found = tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if found != (_APPLICATION_ID, _VERSION):
            raise JournalError(
                expected=f"a Synclave journal of version {_VERSION}",
                found=f"{path} with application id {found[0]:#x}, version {found[1]}",
                remedy="Check the path, or run the version of Synclave that wrote it.",
            )
        if write:
            for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {setting}")
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from None
    except JournalError:
        connection.close()
        raise
    return connection


def sync(path: Path) -> None:
    """Force a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unusable(path: Path, error: Exception) -> JournalError:
    """The error for a journal on which the machine failed."""
    return JournalError(
        expected=f"a journal at {path} that can be read and written",
        found=f"{type(error).__name__}: {error}",
        remedy="Check disk, free space and the folder's owner. If it is damaged: an older copy forgets what was spent"
        " since; lower the budget by that (Back up in deploy/README.md).",
    )
