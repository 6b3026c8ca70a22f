"""The site's memory of what it promised, spent and released; the only authority on the budget.

SQLite with a write-ahead log and ``synchronous=FULL``: when a method returns, its effect survives a power cut. Order is
everything here: a spend is durable *before* anything is computed from patients, a release is durable *before* it leaves.
Whatever instant the process is killed at, the journal shows a spend for everything that could have left the site.

Rows of ``reservations`` and ``releases`` are never changed or removed; triggers in the database hold that against a
mistake in this file. Payloads lie beside the database, since SQLite is no place for blobs of many megabytes.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from synclave_shared.canonical import canonical_bytes, decimal_text, sha256_hex
from synclave_shared.errors import JournalError, PolicyRefusal
from synclave_shared.plan import TrainPlan
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import MECHANISM, GaussianSum, PoissonGaussian

__all__ = [
    "KEPT_PAYLOADS",
    "MAX_ATTEMPTS",
    "AcceptedPlan",
    "Journal",
    "JournalEntry",
    "PlanSpend",
    "SeenNote",
    "StoredRelease",
]

MAX_ATTEMPTS: Final = 16
"""How often one round may be tried. Whether a try fails can depend on the data, so the tries must be few."""

KEPT_PAYLOADS: Final = 2
"""Payloads kept for replay per plan: a coordinator that was killed asks again for its last round or the one before."""

_APPLICATION_ID: Final = 0x53594E43  # "SYNC": tells our journal from any other SQLite file
_VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE plans (
    digest TEXT PRIMARY KEY, plan BLOB NOT NULL, signature TEXT NOT NULL, dataset TEXT NOT NULL,
    epsilon TEXT NOT NULL, delta TEXT NOT NULL, accepted_at TEXT NOT NULL, closed_at TEXT
) STRICT;
CREATE TABLE reservations (
    plan TEXT NOT NULL REFERENCES plans(digest), round INTEGER NOT NULL, dataset TEXT NOT NULL, mechanism TEXT NOT NULL,
    request_digest TEXT NOT NULL, reserved_at TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (plan, round)
) STRICT;
CREATE TABLE releases (
    plan TEXT NOT NULL, round INTEGER NOT NULL, header BLOB NOT NULL, payload_digest TEXT NOT NULL, released_at TEXT NOT NULL,
    PRIMARY KEY (plan, round), FOREIGN KEY (plan, round) REFERENCES reservations(plan, round)
) STRICT;
CREATE TABLE refusals (
    number INTEGER PRIMARY KEY, plan TEXT NOT NULL, round INTEGER, refusal TEXT NOT NULL, entry INTEGER, refused_at TEXT NOT NULL
) STRICT;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY, plan TEXT NOT NULL, content BLOB NOT NULL UNIQUE, sent INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE inclusions (
    plan TEXT NOT NULL, entry INTEGER NOT NULL REFERENCES entries(number), PRIMARY KEY (plan, entry)
) STRICT;
CREATE TABLE seen (plan TEXT PRIMARY KEY, size INTEGER NOT NULL, root TEXT NOT NULL, note TEXT NOT NULL) STRICT;
CREATE TRIGGER spend_stays BEFORE DELETE ON reservations BEGIN SELECT RAISE(ABORT, 'a spend is never undone'); END;
CREATE TRIGGER spend_is_fixed BEFORE UPDATE OF plan, round, dataset, mechanism, request_digest, reserved_at ON reservations
BEGIN SELECT RAISE(ABORT, 'a spend is never changed'); END;
CREATE TRIGGER release_stays BEFORE DELETE ON releases BEGIN SELECT RAISE(ABORT, 'a release is never undone'); END;
CREATE TRIGGER release_is_fixed BEFORE UPDATE ON releases BEGIN SELECT RAISE(ABORT, 'a release is never changed'); END;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedPlan:
    """A plan this site agreed to, with the data set and budget of that moment."""

    plan: TrainPlan
    dataset: str
    budget: Budget
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRelease:
    """What left, or was about to leave, the site: the reply's header and payload. ``payload`` is None once dropped."""

    request_digest: str
    header: bytes
    payload: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A ledger entry signed by this site; ``sent`` once it was part of a stored reply."""

    number: int
    content: bytes
    sent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNote:
    """The newest checkpoint of a plan's ledger that this site has verified."""

    size: int
    root: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpend:
    """One plan's spend on one data set, for people.

    Attributes:
        spent: mechanisms reserved so far.
        promised: mechanisms of the rounds that may still come; empty once closed.
    """

    digest: str
    name: str
    dataset: str
    closed: bool
    accepted_at: str
    reserved_rounds: int
    released_rounds: int
    spent: list[PoissonGaussian | GaussianSum]
    promised: list[PoissonGaussian | GaussianSum]


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat()


class Journal:
    """One site's journal. Use :meth:`create` once, :meth:`open` in the vault, :meth:`read` everywhere else."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock_file: int | None) -> None:
        self._path = path
        self._connection = connection
        self._lock_file = lock_file
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty journal at ``path`` (mode 0600), once in a site's life.

        Raises:
            JournalError: if there is one already, or it cannot be written.
        """
        part = path.with_name(path.name + ".part")
        if path.exists():
            raise JournalError(
                expected=f"no journal at {path} yet",
                found="one",
                remedy="Keep it: it is the record of what was spent. A second site needs another state folder.",
            )
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
            _sync(part)
            # A link, not a rename: it fails if somebody made a journal meanwhile, instead of replacing it.
            os.link(part, path)
            part.unlink()
            _sync(path.parent)
        except (sqlite3.Error, OSError) as error:
            raise _unusable(path, error) from None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal for the vault. One process at a time; the lock goes with the process, however it ends.

        Raises:
            JournalError: if it is missing, damaged, of another version, or another vault has it open.
        """
        if not path.is_file():
            raise JournalError(
                expected=f"the site's journal at {path}",
                found="nothing",
                remedy="A new site: `synclave-site init`. An old one: restore the state folder from its backup;"
                " without the journal nobody knows what was spent.",
            )
        try:
            lock_file = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from None
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
        """Open the journal to look at it, also beside a running vault.

        Raises:
            JournalError: if it is missing, damaged or of another version.
        """
        if not path.is_file():
            raise JournalError(
                expected=f"the site's journal at {path}", found="nothing", remedy="Check the settings' state_folder."
            )
        return cls(path, _connect(path, write=False), None)

    def close(self) -> None:
        """Close the database and give the lock back."""
        with self._lock:
            self._connection.close()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    # --- plans -------------------------------------------------------------------------------------------------

    def accept(self, plan: TrainPlan, *, signature: str, dataset: str, budget: Budget, entry: bytes) -> None:
        """Store an accepted plan and its signed ``plan-accepted`` entry, durably."""
        with self._write() as database:
            database.execute(
                "INSERT INTO plans VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    plan.digest,
                    plan.to_bytes(),
                    signature,
                    dataset,
                    decimal_text(budget.epsilon),
                    decimal_text(budget.delta),
                    _now(),
                ),
            )
            _insert_entry(database, plan.digest, entry)

    def plan(self, digest: str) -> AcceptedPlan | None:
        """The accepted plan of that digest, or None."""
        row = self._one("SELECT plan, dataset, epsilon, delta, closed_at FROM plans WHERE digest = ?", digest)
        if row is None:
            return None
        return AcceptedPlan(
            plan=TrainPlan.from_bytes(row[0]),
            dataset=row[1],
            budget=Budget.model_validate({"epsilon": row[2], "delta": row[3]}),
            closed=row[4] is not None,
        )

    def close_plan(self, digest: str) -> None:
        """End a plan: its rounds that never came are promised no longer, and its payloads are dropped."""
        with self._write() as database:
            database.execute("UPDATE plans SET closed_at = ? WHERE digest = ? AND closed_at IS NULL", (_now(), digest))
        for file in self._payload_folder.glob(f"{digest}-*"):
            file.unlink(missing_ok=True)

    def refuse(
        self, digest: str, refusal: str, *, round_number: int | None = None, entry: Callable[[], bytes] | None = None
    ) -> None:
        """Record a refusal. A refused plan gets one ledger entry per reason, however often it is proposed.

        Args:
            digest: digest of the plan.
            refusal: code of the refusal.
            round_number: the round that was refused; None if the plan itself was.
            entry: makes the signed ``plan-refused`` entry; None for refused rounds, which have no entry.
        """
        with self._write() as database:
            known = database.execute(
                "SELECT entry FROM refusals WHERE plan = ? AND refusal = ? AND round IS ? AND (entry IS NULL) = ?",
                (digest, refusal, round_number, entry is None),
            ).fetchone()
            if known is not None:
                return
            number = None if entry is None else _insert_entry(database, digest, entry())
            database.execute(
                "INSERT INTO refusals (plan, round, refusal, entry, refused_at) VALUES (?, ?, ?, ?, ?)",
                (digest, round_number, refusal, number, _now()),
            )

    def refusals(self) -> list[tuple[str, int | None, str]]:
        """Every recorded refusal as (plan digest, round or None, code), oldest first."""
        return [
            (row[0], row[1], row[2]) for row in self._all("SELECT plan, round, refusal FROM refusals ORDER BY number")
        ]

    # --- spends and releases -----------------------------------------------------------------------------------

    def reserve(
        self,
        digest: str,
        round_number: int,
        mechanism: PoissonGaussian | GaussianSum,
        *,
        request_digest: str,
        entry: Callable[[], bytes],
    ) -> None:
        """Spend ``mechanism`` for a round, durably, before anything of it is computed.

        A second call for the same request is a retry after a crash: nothing left the site, nothing is spent again.

        Args:
            digest: an accepted plan that is not closed.
            round_number: must be greater than every round of this plan reserved before, unless it is a retry.
            mechanism: what will be done to the data.
            request_digest: digest of the request's payload (the model); a retry must bring the same.
            entry: makes the signed ``spend-reserved`` entry; called for the first reservation only.

        Raises:
            PolicyRefusal: ``plan-not-accepted``; ``round-out-of-order`` for a released, skipped or altered round, or
                one that was tried :data:`MAX_ATTEMPTS` times.
        """
        with self._write() as database:
            owner = database.execute("SELECT dataset, closed_at FROM plans WHERE digest = ?", (digest,)).fetchone()
            if owner is None or owner[1] is not None:
                raise PolicyRefusal("plan-not-accepted", found=digest, remedy="Propose the plan first.")
            last = database.execute(
                "SELECT round, request_digest, attempts, EXISTS (SELECT 1 FROM releases AS r WHERE r.plan = s.plan"
                " AND r.round = s.round) FROM reservations AS s WHERE plan = ? ORDER BY round DESC LIMIT 1",
                (digest,),
            ).fetchone()
            if last is not None and round_number <= last[0]:
                if round_number < last[0] or last[3] or last[1] != request_digest or last[2] >= MAX_ATTEMPTS:
                    raise PolicyRefusal(
                        "round-out-of-order",
                        found=f"round {round_number} after round {last[0]}"
                        f" ({'released' if last[3] else f'{last[2]} attempts'}; same model: {last[1] == request_digest})",
                        remedy="Go on with the next round.",
                    )
                database.execute(
                    "UPDATE reservations SET attempts = attempts + 1 WHERE plan = ? AND round = ?",
                    (digest, round_number),
                )
                return
            database.execute(
                "INSERT INTO reservations (plan, round, dataset, mechanism, request_digest, reserved_at) VALUES (?, ?, ?, ?, ?, ?)",
                (digest, round_number, owner[0], canonical_bytes(mechanism).decode(), request_digest, _now()),
            )
            _insert_entry(database, digest, entry())

    def release(
        self, digest: str, round_number: int, *, header: bytes, payload: bytes, entry: bytes, sent: Sequence[int]
    ) -> None:
        """Store a round's reply, durably, before it leaves.

        Args:
            digest: the plan.
            round_number: a reserved round without a release.
            header, payload: the reply, byte for byte.
            entry: the signed ``update-released`` entry that the header contains.
            sent: numbers of the older entries that it contains.

        Raises:
            JournalError: if the round was not reserved or is released already.
        """
        file = self._payload_file(digest, round_number)
        try:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            part = file.with_suffix(".part")
            with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise _unusable(self._path, error) from None
        with self._write() as database:
            database.execute(
                "INSERT INTO releases VALUES (?, ?, ?, ?, ?)",
                (digest, round_number, header, sha256_hex(payload), _now()),
            )
            _mark_sent(database, [_insert_entry(database, digest, entry), *sent])
            # Inside the transaction: the row becomes visible only after the file is in its place.
            part.replace(file)
            _sync(file.parent)
        for row in self._all(
            "SELECT round FROM releases WHERE plan = ? ORDER BY round DESC LIMIT -1 OFFSET ?", digest, KEPT_PAYLOADS
        ):
            self._payload_file(digest, row[0]).unlink(missing_ok=True)

    def stored_release(self, digest: str, round_number: int) -> StoredRelease | None:
        """The reply that was stored for a round, or None.

        Raises:
            JournalError: if the stored payload is not what was released.
        """
        row = self._one(
            "SELECT s.request_digest, r.header, r.payload_digest FROM releases AS r JOIN reservations AS s USING (plan, round)"
            " WHERE plan = ? AND round = ?",
            digest,
            round_number,
        )
        if row is None:
            return None
        try:
            payload = self._payload_file(digest, round_number).read_bytes()
        except FileNotFoundError:
            return StoredRelease(request_digest=row[0], header=row[1], payload=None)
        except OSError as error:
            raise _unusable(self._path, error) from None
        if sha256_hex(payload) != row[2]:
            raise JournalError(
                expected=f"the released payload of round {round_number} with digest {row[2]}",
                found="other bytes",
                remedy="Nothing was sent. Restore the state folder from its backup.",
            )
        return StoredRelease(request_digest=row[0], header=row[1], payload=payload)

    def is_reserved(self, digest: str, round_number: int) -> bool:
        """Whether the round was spent already."""
        return self._one("SELECT 1 FROM reservations WHERE plan = ? AND round = ?", digest, round_number) is not None

    def spent(self, dataset: str) -> list[PoissonGaussian | GaussianSum]:
        """Every mechanism ever reserved on ``dataset``, under all plans."""
        rows = self._all("SELECT mechanism FROM reservations WHERE dataset = ? ORDER BY rowid", dataset)
        return _mechanisms(row[0] for row in rows)

    def committed(self, dataset: str) -> list[PoissonGaussian | GaussianSum]:
        """The worst case of ``dataset``: :meth:`spent`, and the rounds that accepted, unfinished plans may still ask for."""
        with self._lock:
            promised = [
                mechanism for spend in self.plan_spends() if spend.dataset == dataset for mechanism in spend.promised
            ]
            return self.spent(dataset) + promised

    def plan_spends(self) -> list[PlanSpend]:
        """What each accepted plan spent and may still spend, oldest plan first."""
        spends = []
        with self._lock:
            for digest, content, dataset, accepted_at, closed_at in self._all(
                "SELECT digest, plan, dataset, accepted_at, closed_at FROM plans ORDER BY rowid"
            ):
                plan = TrainPlan.from_bytes(content)
                rows = self._all("SELECT mechanism, round FROM reservations WHERE plan = ? ORDER BY round", digest)
                following = rows[-1][1] + 1 if rows else plan.first_round()
                promised = (
                    [] if closed_at else [plan.mechanism(n) for n in range(following, plan.federation.rounds + 1)]
                )
                released = self._one("SELECT COUNT(*) FROM releases WHERE plan = ?", digest)
                spends.append(
                    PlanSpend(
                        digest=digest,
                        name=plan.name,
                        dataset=dataset,
                        closed=closed_at is not None,
                        accepted_at=accepted_at,
                        reserved_rounds=len(rows),
                        released_rounds=0 if released is None else released[0],
                        spent=_mechanisms(row[0] for row in rows),
                        promised=promised,
                    )
                )
        return spends

    # --- ledger ------------------------------------------------------------------------------------------------

    def registration(self, entry: Callable[[], bytes]) -> bytes:
        """The site's one ``key-registered`` entry; made at the first call. It belongs to the ledger of every plan."""
        with self._write() as database:
            row = database.execute("SELECT content FROM entries WHERE plan = ''").fetchone()
            content: bytes = entry() if row is None else row[0]
            if row is None:
                _mark_sent(database, [_insert_entry(database, "", content)])
            return content

    def open_entries(self, digest: str) -> list[JournalEntry]:
        """Entries of this site that the ledger of plan ``digest`` was not yet proved to include, oldest first."""
        rows = self._all(
            "SELECT number, content, sent FROM entries WHERE plan IN (?, '')"
            " AND number NOT IN (SELECT entry FROM inclusions WHERE plan = ?) ORDER BY number",
            digest,
            digest,
        )
        return [JournalEntry(number=row[0], content=row[1], sent=bool(row[2])) for row in rows]

    def mark_sent(self, numbers: Sequence[int]) -> None:
        """Record that these entries are about to leave; from now on their inclusion is demanded."""
        with self._write() as database:
            _mark_sent(database, numbers)

    def seen(self, digest: str) -> SeenNote | None:
        """The newest verified checkpoint of the plan's ledger, or None."""
        row = self._one("SELECT size, root, note FROM seen WHERE plan = ?", digest)
        return None if row is None else SeenNote(size=row[0], root=row[1], note=row[2])

    def record_seen(self, digest: str, seen: SeenNote, included: Sequence[int]) -> None:
        """Remember a verified checkpoint and the numbers of the entries that it was proved to include."""
        with self._write() as database:
            database.execute(
                "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT (plan) DO UPDATE SET size = excluded.size,"
                " root = excluded.root, note = excluded.note WHERE excluded.size >= size",
                (digest, seen.size, seen.root, seen.note),
            )
            database.executemany(
                "INSERT OR IGNORE INTO inclusions VALUES (?, ?)", [(digest, number) for number in included]
            )

    # --- inside ------------------------------------------------------------------------------------------------

    @property
    def _payload_folder(self) -> Path:
        return self._path.parent / "releases"

    def _payload_file(self, digest: str, round_number: int) -> Path:
        return self._payload_folder / f"{digest}-{round_number}.bin"

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                raise _unusable(self._path, error) from error

    def _all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from error

    def _one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        rows = self._all(query, *values)
        return rows[0] if rows else None


def _insert_entry(database: sqlite3.Connection, digest: str, content: bytes) -> int:
    row = database.execute(
        "INSERT INTO entries (plan, content) VALUES (?, ?) RETURNING number", (digest, content)
    ).fetchone()
    return int(row[0])


def _mark_sent(database: sqlite3.Connection, numbers: Sequence[int]) -> None:
    database.executemany("UPDATE entries SET sent = 1 WHERE number = ?", [(number,) for number in numbers])


def _mechanisms(texts: Iterator[str]) -> list[PoissonGaussian | GaussianSum]:
    known: dict[str, PoissonGaussian | GaussianSum] = {}
    return [known.setdefault(text, known.get(text) or MECHANISM.validate_json(text)) for text in texts]


def _connect(path: Path, *, write: bool) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={'rw' if write else 'ro'}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,  # gRPC answers from a pool of threads; our lock serialises them
            timeout=30,
        )
        found = (
            connection.execute("PRAGMA application_id").fetchone()[0],
            connection.execute("PRAGMA user_version").fetchone()[0],
        )
        if found != (_APPLICATION_ID, _VERSION):
            connection.close()
            raise JournalError(
                expected=f"a Synclave journal of version {_VERSION}",
                found=f"{path} with application id {found[0]:#x}, version {found[1]}",
                remedy="Check the path, or run the version of Synclave that wrote it.",
            )
        if write:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from None
    return connection


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: Exception) -> JournalError:
    return JournalError(
        expected=f"a journal at {path} that can be read and written",
        found=f"{type(error).__name__}: {error}",
        remedy="Check the disk, its free space and the folder's owner; restore the state folder from its backup if damaged.",
    )
