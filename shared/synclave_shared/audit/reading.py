"""A ledger as an auditor reads it: the verdict, and which entry said what.

The verdict is that of :func:`verify_ledger`. All that the other views show comes from the same replay of the same
entries, so an entry that counts for nothing there (no valid signature, altered bytes) counts for nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Note
from synclave_shared.ledger.entry import (
    COORDINATOR,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    SignedEntry,
    SpendReserved,
    parse_entry,
)
from synclave_shared.ledger.files import LedgerFiles
from synclave_shared.ledger.reading import EntryReader
from synclave_shared.ledger.replay import Replay
from synclave_shared.ledger.tiles import CHECKPOINT_PATH
from synclave_shared.ledger.verify import VerifyReport, verify_ledger

__all__ = ["Reading", "Refusal", "Stated", "read_ledger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A site that declined a plan, and the entry that says so."""

    site: str
    plan_digest: str
    code: str
    entry: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Versions of software that a site stated when it accepted a plan."""

    site: str
    entry: int
    versions: dict[str, str]


@dataclass(slots=True, kw_only=True)
class Reading:
    """Everything that a view of a ledger needs; the entries themselves stay in the folder.

    Attributes:
        folder: where the ledger lies.
        report: the verdict.
        replay: keys, plans, budgets and spends, as the rules left them.
        pinned: names whose keys the auditor gave, the coordinator's among them.
        seen: number of checkpoints kept by sites that the auditor gave.
        kinds: kind -> indices of its entries, in order; of entries that count.
        proposed: plan's digest -> the entry that proposed it.
        accepted: (plan's digest, site) -> the entry in which the site accepted it.
        refused: who declined which plan.
        registered: name -> the entry that registered its key.
        reserved: index of a reservation -> (plan's digest, round).
        versions: software that sites stated.
        times: first and last time that the actors' clocks showed; empty for an empty ledger.
    """

    folder: Path
    report: VerifyReport
    replay: Replay
    pinned: frozenset[str]
    seen: int
    kinds: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    proposed: dict[str, int] = field(default_factory=dict)
    accepted: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    registered: dict[str, int] = field(default_factory=dict)
    reserved: dict[int, tuple[str, int]] = field(default_factory=dict)
    versions: list[Stated] = field(default_factory=list)
    times: tuple[str, ...] = ()

    def entry(self, index: int) -> SignedEntry:
        """The entry at ``index``, read from the folder, whether or not it counts.

        Raises:
            LedgerError: if there is none, or none that can be read.
        """
        size = self.report.size
        content = LedgerFiles(self.folder).entry(size, index) if 0 <= index < size else b""
        if not content:
            raise LedgerError(
                expected=f"an entry from 0 to {size - 1}" if size else "an entry; this ledger has none",
                found=f"{index}, which cannot be read" if 0 <= index < size else str(index),
                remedy="`synclave-audit show` lists the entries, `verify` says what is wrong with them.",
            )
        return parse_entry(content)

    def counted(self, kind: str) -> int:
        """How many entries of a kind count."""
        return len(self.kinds.get(kind, ()))

    def sites(self) -> list[str]:
        """Everyone who registered as a site, or spent as one, in the ledger's order."""
        return list(self.report.sites)

    def add(self, index: int, entry: SignedEntry, leaf: bytes) -> None:
        """Replay an entry, and remember what it said if the rules let it count."""
        replay = self.replay
        replay.apply(index, entry, leaf)
        self.kinds[entry.kind].append(index)
        first, last = self.times or (entry.time, entry.time)
        self.times = (min(first, entry.time), max(last, entry.time))
        if entry.actor in replay.actors.by_name:
            self.registered.setdefault(entry.actor, index)
        match entry.body:
            case SpendReserved() as body:
                self.reserved[index] = (body.plan_digest, body.round)
            case PlanProposed() as body if body.plan_digest in replay.plans:
                self.proposed.setdefault(body.plan_digest, index)
            case PlanRefused() as body:
                refusal = Refusal(site=entry.actor, plan_digest=body.plan_digest, code=body.refusal, entry=index)
                self.refused.append(refusal)
            case PlanAccepted() as body:
                state = replay.plans.get(body.plan_digest)
                if state and entry.actor in state.accepted:
                    self.accepted.setdefault((body.plan_digest, entry.actor), index)
                    versions = dict(sorted(body.versions.items()))
                    self.versions.append(Stated(site=entry.actor, entry=index, versions=versions))


def read_ledger(
    folder: Path,
    *,
    coordinator_key: str | None = None,
    site_keys: Mapping[str, str] | None = None,
    seen: Sequence[Note] = (),
) -> Reading:
    """Verify a ledger folder and read it.

    Args:
        folder: the ledger.
        coordinator_key: as for :func:`verify_ledger`, like the others.
        site_keys: site -> key.
        seen: checkpoints that sites kept.

    Raises:
        LedgerError: if ``folder`` is not a folder.
    """
    report = verify_ledger(folder, coordinator_key=coordinator_key, site_keys=site_keys, seen=seen)
    reading = Reading(
        folder=folder,
        report=report,
        replay=Replay(),
        pinned=frozenset([*(site_keys or {}), *([COORDINATOR] if coordinator_key else [])]),
        seen=len(seen),
    )
    files, reader = LedgerFiles(folder), EntryReader()
    note = files.note(CHECKPOINT_PATH)
    if note is None:
        return reading
    unsigned = {finding.entry for finding in report.findings if finding.code == "signature-invalid"}
    for index, content, leaf in files.entries(report.size, files.tree(note.checkpoint)):
        if index in unsigned:
            continue
        try:
            entry = reader.read(content)
        except LedgerError:
            # A finding of the verdict already.
            continue
        reading.add(index, entry, leaf)
    return reading
