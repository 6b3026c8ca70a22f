"""Keeps a run's ledger for the coordinator: appends what happened, never twice, and shows it to the sites."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from synclave_shared.canonical import FrozenModel
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import (
    COORDINATOR,
    KeyRegistered,
    KeyRotated,
    PlanProposed,
    RunClosed,
    SamplesReleased,
    SignedEntry,
    SnapshotWritten,
    SpendReserved,
    sign_entry,
)
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.ledger.reading import EntryReader
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.tiles import CHECKPOINT_PATH
from synclave_shared.ledger.witness import present
from synclave_shared.plan import TrainPlan
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from synclave_shared.protocol import CheckpointPresentation

__all__ = ["Notary"]

_log = logging.getLogger("synclave.rounds")


class Notary:
    """The ledger of one run, opened by its operator.

    Args:
        folder: where the ledger is; it is made if there is none.
        plan: the run's plan.
        signature: the coordinator's signature over the plan, base64.
        key: the coordinator's key, the one the plan names.

    Raises:
        LedgerError: if the ledger is damaged or belongs to another run, or the key is another one than the plan's.
    """

    def __init__(self, folder: Path, plan: TrainPlan, signature: str, key: SigningKey) -> None:
        if key.public_text != plan.coordinator_key:
            raise LedgerError(
                expected="the key of the coordinator that signed the plan",
                found="another key",
                remedy="Give the key file that belongs to coordinator_key of the plan.",
            )
        self._plan = plan
        self._key = key
        if (folder / CHECKPOINT_PATH).exists():
            self._ledger = Ledger.open(folder, key)
        else:
            self._ledger = Ledger.create(folder, f"synclave/{plan.digest[:16]}", key)
        self._known: set[str] = set()
        self._newest: dict[str, str] = {}
        self._keys: dict[str, list[str]] = {}
        self._spends: dict[str, dict[int, PoissonGaussian | GaussianSum]] = {}
        self._snapshots: dict[int, str] = {}
        self._samples: dict[SamplesReleased, int] = {}
        self._closed = False
        reader = EntryReader()
        for index, content in enumerate(self._ledger.entries()):
            self._note(index, content, reader.read(content))
        if self.size == 0:
            registration = KeyRegistered(
                name=COORDINATOR, role="coordinator", public_key=key.public_text, not_after=key.not_after
            )
            proposal = PlanProposed(plan=plan.model_dump(mode="json"), plan_digest=plan.digest, signature=signature)
            self.record(("key-registered", registration), ("plan-proposed", proposal))

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._ledger.size

    @property
    def closed(self) -> bool:
        """Whether the run was closed in an earlier start."""
        return self._closed

    def append(
        self, entries: Iterable[SignedEntry], cosignatures: Mapping[str, tuple[int, str]] | None = None
    ) -> frozenset[str]:
        """Append sites' entries that were verified before, each after the one of its site that it follows.

        Those that are there already are left out, and those that do not follow the newest of their site, or are not
        under the key that counts as its own by then.

        Args:
            entries: the entries.
            cosignatures: what sites co-signed of the ledger before them, as :meth:`witness` takes it; kept in one step
                with the entries.

        Returns:
            The sites of which an entry does not follow.
        """
        new = {entry.leaf: entry for entry in entries}
        following: dict[tuple[str, str], list[SignedEntry]] = {}
        for leaf, entry in new.items():
            if leaf not in self._known:
                following.setdefault((entry.actor, entry.previous), []).append(entry)
        chained: list[SignedEntry] = []
        for site in dict.fromkeys(site for site, _ in following):
            newest, key = self._newest.get(site, ""), next(reversed(self.keys(site)), None)
            while (site, newest) in following:
                waiting = following[site, newest]
                if waiting[0].key != (key or waiting[0].key):
                    break
                entry = waiting.pop(0)
                chained.append(entry)
                if not waiting:
                    del following[site, newest]
                newest, key = entry.leaf, entry.body.public_key if isinstance(entry.body, KeyRotated) else entry.key
        self._append(chained, cosignatures or {})
        return frozenset(site for site, _ in following)

    def record(self, *bodies: tuple[str, FrozenModel]) -> None:
        """Append the coordinator's own entries, in one step: (kind, body) each."""
        entries: list[SignedEntry] = []
        for kind, body in bodies:
            previous = entries[-1].leaf if entries else self._newest.get(COORDINATOR, "")
            run = "" if isinstance(body, KeyRegistered) else self._plan.digest
            entries.append(sign_entry(kind, COORDINATOR, run, body, self._key, previous=previous))
        self._append(entries, {})

    def record_samples(self, *, snapshot_digest: str, request_digest: str, cohort_digest: str, patients: int) -> int:
        """Append that synthetic patients were drawn, unless the very same ones are recorded; returns the entry's index.

        Raises:
            LedgerError: if the ledger does not hold that snapshot.
        """
        if snapshot_digest not in self._snapshots.values():
            raise LedgerError(
                expected="a snapshot that the run's ledger holds",
                found=f"one with digest {snapshot_digest[:16]}",
                remedy="Name the run that the snapshot is of.",
            )
        body = SamplesReleased(
            plan_digest=self._plan.digest,
            snapshot_digest=snapshot_digest,
            request_digest=request_digest,
            cohort_digest=cohort_digest,
            patients=patients,
        )
        if body not in self._samples:
            self.record(("samples-released", body))
        return self._samples[body]

    def keys(self, site: str) -> tuple[str, ...]:
        """A site's public keys in this ledger (base64), oldest first; the last one counts now."""
        return tuple(self._keys.get(site, ()))

    def has_snapshot(self, round_number: int) -> bool:
        """Whether the snapshot of a round is recorded."""
        return round_number in self._snapshots

    def spends(self, site: str) -> list[PoissonGaussian | GaussianSum]:
        """What a site has charged for this plan so far, in the order of rounds."""
        return [mechanism for _, mechanism in sorted(self._spends.get(site, {}).items())]

    def present(self, seen_size: int) -> CheckpointPresentation:
        """The ledger as it is shown to a site that last saw it with ``seen_size`` entries: all of it, if that fits."""
        return present(self._ledger, min(seen_size, self.size))

    def witness(self, cosignatures: Mapping[str, tuple[int, str]]) -> None:
        """Keep sites' co-signatures: site -> (number of entries of the checkpoint, co-signature). Wrong ones go."""
        self._append((), cosignatures)

    def _append(self, entries: Sequence[SignedEntry], cosignatures: Mapping[str, tuple[int, str]]) -> None:
        first, contents = self.size, [entry.to_bytes() for entry in entries]
        lines = [(size, site, line) for site, (size, line) in cosignatures.items()]
        for site, error in self._ledger.update(contents, lines).items():
            _log.warning("dropped a co-signature of %s: %s", site, error)
        for index, (content, entry) in enumerate(zip(contents, entries, strict=True), first):
            self._note(index, content, entry)

    def _note(self, index: int, content: bytes, entry: SignedEntry) -> None:
        """Remember what later questions are about."""
        leaf = leaf_hash(content).hex()
        self._known.add(leaf)
        self._newest[entry.actor] = leaf
        match entry.body:
            case KeyRegistered() | KeyRotated():
                self._keys.setdefault(entry.actor, []).append(entry.body.public_key)
            case SpendReserved():
                self._spends.setdefault(entry.actor, {})[entry.body.round] = entry.body.mechanism
            case SnapshotWritten():
                self._snapshots[entry.body.round] = entry.body.snapshot_digest
            case SamplesReleased():
                self._samples[entry.body] = index
            case RunClosed():
                self._closed = True
