"""The site's memory of what it promised, spent and released; the only authority on the budget.

SQLite with a write-ahead log and ``synchronous=FULL``: when a method returns, its effect survives a power cut. Order
is everything here: a spend is durable *before* anything is computed from patients, a release *before* it leaves.
Whatever instant the process is killed at, the journal shows a spend for everything that could have left the site.

A spend or a release is never changed or removed; triggers in the database hold that against a mistake in this file.
Payloads lie beside the database, since SQLite is no place for blobs of many megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from synclave_client.vault.data_sets import DataSets
from synclave_client.vault.database import JournalDatabase, sync, unusable
from synclave_client.vault.ledger_copies import LedgerCopies
from synclave_client.vault.signed_entries import EntrySigner, SignedEntries
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
    "PlanSpend",
    "StoredRelease",
]

MAX_ATTEMPTS: Final = 16
"""How often one round may be tried. Whether a try fails can depend on the data, so the tries must be few."""

KEPT_PAYLOADS: Final = 2
"""Payloads kept for replay per plan: a coordinator that was killed asks again for its last round or the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedPlan:
    """A plan this site agreed to, with the data set of that moment and the budget stated last in the plan's ledger."""

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
class PlanSpend:
    """One plan's spend on one data set, for people.

    Attributes:
        kind: what model the plan is of.
        spent: mechanisms reserved so far.
        promised: mechanisms of the rounds that may still come; empty once closed.
    """

    digest: str
    name: str
    kind: str
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
    """One site's journal. Use :meth:`create` once, :meth:`open` in the vault, :meth:`read` everywhere else.

    Attributes:
        ledgers: this site's copies of the ledgers.
        data_sets: whose budget it is.
        signed: what this site signed.
    """

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database
        self._releases = database.path.parent / "releases"
        self.ledgers = LedgerCopies(database)
        self.data_sets = DataSets(database)
        self.signed = SignedEntries(database)

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty journal at ``path`` (mode 0600), once in a site's life.

        Raises:
            JournalError: if there is one already, or it cannot be written.
        """
        JournalDatabase.create(path)

    @classmethod
    def open(cls, path: Path, *, exclusive: bool = True) -> Self:
        """Open the journal for the vault; one process at a time.

        Args:
            path: the journal.
            exclusive: False lets the steward close a plan beside a running vault.

        Raises:
            JournalError: if it is missing, damaged, of another version, or another vault has it open.
        """
        return cls(JournalDatabase.open(path, exclusive=exclusive))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open the journal to look at it, also beside a running vault.

        Raises:
            JournalError: if it is missing, damaged or of another version.
        """
        return cls(JournalDatabase.read(path))

    def close(self) -> None:
        """Close the journal and let another vault open it."""
        self._database.close()

    def accept(
        self,
        plan: TrainPlan,
        *,
        signature: str,
        dataset: str,
        folder: Path,
        patients: Collection[bytes],
        budget: Budget,
        entry: EntrySigner,
    ) -> None:
        """Store an accepted plan and its ``plan-accepted`` entry, durably, and bind the data set's name.

        Args:
            plan: the plan.
            signature: the coordinator's signature over it, base64.
            dataset: name of the data set.
            folder: where its data are.
            patients: marks of its patients (:meth:`DataSets.marks`).
            budget: what all plans together may spend on it.
            entry: signs the entry.

        Raises:
            ConfigurationError: see :class:`DataSets`.
        """
        with self._database.write() as database:
            self.data_sets.bind(database, dataset, folder, patients)
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
            self.signed.insert(database, plan.digest, entry)

    def state_budget(self, digest: str, budget: Budget, entry: EntrySigner) -> None:
        """Record that the plan's ledger is told another budget, by the entry that ``entry`` signs."""
        with self._database.write() as database:
            database.execute(
                "UPDATE plans SET epsilon = ?, delta = ? WHERE digest = ?",
                (decimal_text(budget.epsilon), decimal_text(budget.delta), digest),
            )
            self.signed.insert(database, digest, entry)

    def plan(self, digest: str) -> AcceptedPlan | None:
        """The accepted plan of that digest, or None."""
        row = self._database.one("SELECT plan, dataset, epsilon, delta, closed_at FROM plans WHERE digest = ?", digest)
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
        with self._database.write() as database:
            database.execute("UPDATE plans SET closed_at = ? WHERE digest = ? AND closed_at IS NULL", (_now(), digest))
        for file in self._releases.glob(f"{digest}-*"):
            file.unlink(missing_ok=True)

    def refuse(
        self, digest: str, refusal: str, *, round_number: int | None = None, entry: EntrySigner | None = None
    ) -> None:
        """Record a refusal. A refused plan gets one ledger entry per reason, however often it is proposed.

        Args:
            digest: digest of the plan.
            refusal: code of the refusal.
            round_number: the round that was refused; None if the plan itself was.
            entry: signs the ``plan-refused`` entry; None for refused rounds, which have no entry.
        """
        with self._database.write() as database:
            known = database.execute(
                "SELECT entry FROM refusals WHERE plan = ? AND refusal = ? AND round IS ? AND (entry IS NULL) = ?",
                (digest, refusal, round_number, entry is None),
            ).fetchone()
            if known is not None:
                return
            number = None if entry is None else self.signed.insert(database, digest, entry)[0]
            database.execute(
                "INSERT INTO refusals (plan, round, refusal, entry, refused_at) VALUES (?, ?, ?, ?, ?)",
                (digest, round_number, refusal, number, _now()),
            )

    def refusals(self) -> list[tuple[str, int | None, str]]:
        """Every recorded refusal as (plan digest, round or None, code), oldest first."""
        return [
            (row[0], row[1], row[2])
            for row in self._database.all("SELECT plan, round, refusal FROM refusals ORDER BY number")
        ]

    def reserve(
        self,
        digest: str,
        round_number: int,
        mechanism: PoissonGaussian | GaussianSum,
        *,
        request_digest: str,
        entry: EntrySigner,
    ) -> None:
        """Spend ``mechanism`` for a round, durably, before anything of it is computed.

        A second call for the same request is a retry after a crash: nothing left the site, nothing is spent again.

        Args:
            digest: an accepted plan that is not closed.
            round_number: must be greater than every round of this plan reserved before, unless it is a retry.
            mechanism: what will be done to the data.
            request_digest: digest of the request's payload (the model); a retry must bring the same.
            entry: signs the ``spend-reserved`` entry; called for the first reservation only.

        Raises:
            PolicyRefusal: ``plan-not-accepted``; ``round-out-of-order`` for a released, skipped or altered round, or
                one that was tried :data:`MAX_ATTEMPTS` times.
        """
        with self._database.write() as database:
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
                        found=f"round {round_number} after round {last[0]} (released: {bool(last[3])},"
                        f" attempts: {last[2]}, same model: {last[1] == request_digest})",
                        remedy="Go on with the next round.",
                    )
                database.execute(
                    "UPDATE reservations SET attempts = attempts + 1 WHERE plan = ? AND round = ?",
                    (digest, round_number),
                )
                return
            database.execute(
                "INSERT INTO reservations (plan, round, dataset, mechanism, request_digest, reserved_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (digest, round_number, owner[0], canonical_bytes(mechanism).decode(), request_digest, _now()),
            )
            self.signed.insert(database, digest, entry)

    def release(
        self,
        digest: str,
        round_number: int,
        *,
        payload: bytes,
        entry: EntrySigner,
        header: Callable[[bytes], bytes],
        sent: Sequence[int],
    ) -> bytes:
        """Store a round's reply, durably, before it leaves.

        Args:
            digest: the plan.
            round_number: a reserved round without a release.
            payload: the reply's payload.
            entry: signs the ``update-released`` entry.
            header: makes the reply's header, which contains that entry.
            sent: numbers of the older entries that the header contains.

        Returns:
            The header as it was stored.

        Raises:
            JournalError: if the round was not reserved or is released already.
        """
        file = self._payload_file(digest, round_number)
        try:
            if not file.parent.exists():
                file.parent.mkdir(mode=0o700)
                sync(file.parent.parent)
            part = file.with_suffix(".part")
            with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise unusable(self._database.path, error) from None
        with self._database.write() as database:
            number, content = self.signed.insert(database, digest, entry)
            stored = header(content)
            database.execute(
                "INSERT INTO releases VALUES (?, ?, ?, ?, ?)",
                (digest, round_number, stored, sha256_hex(payload), _now()),
            )
            self.signed.mark(database, [number, *sent])
            # Inside the transaction: the row becomes visible only after the file is in its place.
            part.replace(file)
            sync(file.parent)
        for row in self._database.all(
            "SELECT round FROM releases WHERE plan = ? ORDER BY round DESC LIMIT -1 OFFSET ?", digest, KEPT_PAYLOADS
        ):
            self._payload_file(digest, row[0]).unlink(missing_ok=True)
        return stored

    def stored_release(self, digest: str, round_number: int) -> StoredRelease | None:
        """The reply that was stored for a round, or None.

        Raises:
            JournalError: if the stored payload is not what was released.
        """
        row = self._database.one(
            "SELECT s.request_digest, r.header, r.payload_digest FROM releases AS r"
            " JOIN reservations AS s USING (plan, round) WHERE plan = ? AND round = ?",
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
            raise unusable(self._database.path, error) from None
        if sha256_hex(payload) != row[2]:
            raise JournalError(
                expected=f"the released payload of round {round_number} with digest {row[2]}",
                found="other bytes",
                remedy="Nothing was sent. Go on with the next round; do not restore an older copy for this:"
                " it forgets what was spent since (Back up in deploy/README.md).",
            )
        return StoredRelease(request_digest=row[0], header=row[1], payload=payload)

    def is_reserved(self, digest: str, round_number: int) -> bool:
        """Whether the round was spent already."""
        return (
            self._database.one("SELECT 1 FROM reservations WHERE plan = ? AND round = ?", digest, round_number)
            is not None
        )

    def spent(self, dataset: str) -> list[PoissonGaussian | GaussianSum]:
        """Every mechanism ever reserved on ``dataset``, under all plans."""
        rows = self._database.all("SELECT mechanism FROM reservations WHERE dataset = ? ORDER BY rowid", dataset)
        return _mechanisms(row[0] for row in rows)

    def committed(self, dataset: str) -> list[PoissonGaussian | GaussianSum]:
        """The worst case of ``dataset``: :meth:`spent`, and the rounds that accepted, open plans may still ask for."""
        with self._database.lock:
            promised = [
                mechanism for spend in self.plan_spends() if spend.dataset == dataset for mechanism in spend.promised
            ]
            return self.spent(dataset) + promised

    def uses(self, dataset: str) -> frozenset[str]:
        """Kinds of models for which the patients of ``dataset`` were looked at, or may yet be."""
        return frozenset(
            spend.kind for spend in self.plan_spends() if spend.dataset == dataset and (spend.spent or spend.promised)
        )

    def plan_spends(self) -> list[PlanSpend]:
        """What each accepted plan spent and may still spend, oldest plan first."""
        spends = []
        with self._database.lock:
            for digest, content, dataset, accepted_at, closed_at in self._database.all(
                "SELECT digest, plan, dataset, accepted_at, closed_at FROM plans ORDER BY rowid"
            ):
                plan = TrainPlan.from_bytes(content)
                rows = self._database.all(
                    "SELECT mechanism, round FROM reservations WHERE plan = ? ORDER BY round", digest
                )
                following = rows[-1][1] + 1 if rows else plan.first_round()
                promised = [] if closed_at else [plan.mechanism(n) for n in range(following, plan.last_round() + 1)]
                released = self._database.one("SELECT COUNT(*) FROM releases WHERE plan = ?", digest)
                spends.append(
                    PlanSpend(
                        digest=digest,
                        name=plan.name,
                        kind=plan.model.kind,
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

    def open_plans(self) -> list[str]:
        """Digests of the accepted plans that are not closed."""
        return [row[0] for row in self._database.all("SELECT digest FROM plans WHERE closed_at IS NULL ORDER BY rowid")]

    def _payload_file(self, digest: str, round_number: int) -> Path:
        return self._releases / f"{digest}-{round_number}.bin"


def _mechanisms(texts: Iterable[str]) -> list[PoissonGaussian | GaussianSum]:
    known: dict[str, PoissonGaussian | GaussianSum] = {}
    return [known.setdefault(text, known.get(text) or MECHANISM.validate_json(text)) for text in texts]
