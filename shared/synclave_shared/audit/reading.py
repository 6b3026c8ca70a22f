"""A ledger as an auditor reads it: the verdict, and which entry said what.

The verdict is that of :func:`verify_ledger`. All that the other views show comes from the same replay of the same
entries, so an entry that counts for nothing there (no valid signature, altered bytes) counts for nothing here.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Note
from synclave_shared.ledger.entry import (
    COORDINATOR,
    BudgetChanged,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    SignedEntry,
    SpendReserved,
    parse_entry,
)
from synclave_shared.ledger.files import LedgerFiles
from synclave_shared.ledger.replay import Replay
from synclave_shared.ledger.verify import Verification, VerifyReport

__all__ = ["Place", "Reading", "Record", "Refusal", "Reserved", "Stated", "read_ledger"]


class Place(NamedTuple):
    """An entry of one of the ledgers under audit.

    Attributes:
        ledger: the ledger's place among those that were given, from 1; 0 if it is the only one.
        entry: index of the entry in it.
    """

    ledger: int
    entry: int


class Reserved(NamedTuple):
    """What a reservation was for, the plan's digest and its round; and when it was, by the site's clock."""

    plan: str
    round: int
    time: str


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


class Record(Replay):
    """A replay that remembers which entry said what.

    Attributes:
        kinds: kind -> indices of its entries, in order; of entries that count.
        proposed: plan's digest -> the entry that proposed it.
        accepted: (plan's digest, site) -> the entry in which the site accepted it.
        refused: who declined which plan.
        registered: name -> the entry that registered its key.
        reserved: index of a reservation -> what it was for.
        stated: index of an entry that states a budget -> its time, by the site's clock.
        versions: software that sites stated.
        times: first and last time that the actors' clocks showed; empty for an empty ledger.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[str, list[int]] = defaultdict(list)
        self.proposed: dict[str, int] = {}
        self.accepted: dict[tuple[str, str], int] = {}
        self.refused: list[Refusal] = []
        self.registered: dict[str, int] = {}
        self.reserved: dict[int, Reserved] = {}
        self.stated: dict[int, str] = {}
        self.versions: list[Stated] = []
        self.times: tuple[str, ...] = ()

    def apply(self, index: int, entry: SignedEntry, leaf: bytes) -> None:
        """Replay an entry, and remember what it said if the rules let it count."""
        super().apply(index, entry, leaf)
        self.kinds[entry.kind].append(index)
        first, last = self.times or (entry.time, entry.time)
        self.times = (min(first, entry.time), max(last, entry.time))
        if entry.actor in self.actors.by_name:
            self.registered.setdefault(entry.actor, index)
        body = entry.body
        match body:
            case SpendReserved():
                # There may be a million of these, of a few plans.
                self.reserved[index] = Reserved(sys.intern(body.plan_digest), body.round, entry.time)
            case BudgetChanged():
                self.stated[index] = entry.time
            case PlanProposed() if body.plan_digest in self.plans:
                self.proposed.setdefault(body.plan_digest, index)
            case PlanRefused():
                refusal = Refusal(site=entry.actor, plan_digest=body.plan_digest, code=body.refusal, entry=index)
                self.refused.append(refusal)
            case PlanAccepted():
                self.stated[index] = entry.time
                state = self.plans.get(body.plan_digest)
                if state and entry.actor in state.accepted:
                    self.accepted.setdefault((body.plan_digest, entry.actor), index)
                    versions = dict(sorted(body.versions.items()))
                    self.versions.append(Stated(site=entry.actor, entry=index, versions=versions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that a view of a ledger needs; the entries themselves stay in the folder.

    Attributes:
        folder: where the ledger lies.
        number: its place among several ledgers, from 1; 0 if it is the only one.
        report: the verdict.
        replay: keys, plans, budgets and spends, as the rules left them, and where each was said.
        pinned: names whose keys the auditor gave and which are in this ledger, the coordinator's among them.
        seen: number of checkpoints kept by sites that the auditor gave.
    """

    folder: Path
    number: int = 0
    report: VerifyReport
    replay: Record
    pinned: frozenset[str]
    seen: int

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

    def place(self, index: int) -> Place:
        """An entry of this ledger, among those of all."""
        return Place(self.number, index)

    def counted(self, kind: str) -> int:
        """How many entries of a kind count."""
        return len(self.replay.kinds.get(kind, ()))

    def sites(self) -> list[str]:
        """Everyone who registered as a site, or spent as one, in the ledger's order."""
        return list(self.report.sites)


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
    verification = Verification(folder, Record)
    return Reading(
        folder=folder,
        report=verification.report(coordinator_key, site_keys or {}, seen),
        replay=verification.replay,
        pinned=frozenset([*(site_keys or {}), *([COORDINATOR] if coordinator_key else [])]),
        seen=len(seen),
    )
