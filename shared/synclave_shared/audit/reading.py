"""A ledger as an auditor reads it: the verdict, and which entry said what.

The verdict is that of :func:`verify_ledger`. Everything that the other views show comes from the same replay, so an
entry that counts for nothing there (no valid signature, altered bytes) counts for nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Note
from synclave_shared.ledger.entry import (
    COORDINATOR,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    SignedEntry,
    parse_entry,
)
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.ledger.replay import Replay
from synclave_shared.ledger.tiles import entries_path, split_bundle, tile_positions
from synclave_shared.ledger.verify import VerifyReport, verify_ledger

__all__ = ["Reading", "read_entries", "read_ledger"]

VOID: Final = {"entry-altered", "entry-malformed", "signature-invalid"}
"""Findings that make an entry count for nothing."""


@dataclass(slots=True)
class Reading:
    """Everything that a view of a ledger needs.

    Attributes:
        report: the verdict.
        replay: keys, plans, budgets and spends, as the rules left them.
        entries: bytes of each entry; None for one that cannot be read.
        kinds: kind -> indices of its entries, in order; of entries that count.
        proposed: plan's digest -> the entry that proposed it.
        accepted: (plan's digest, site) -> the entry in which the site accepted it.
        refused: (plan's digest, site, refusal code, entry).
        registered: name -> the entry that registered its key.
        times: first and last time that the actors' clocks showed; empty for an empty ledger.
        pinned: names whose keys the auditor gave, the coordinator's among them.
        seen: number of checkpoints kept by sites that the auditor gave.
    """

    report: VerifyReport
    replay: Replay
    entries: tuple[bytes | None, ...]
    kinds: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    proposed: dict[str, int] = field(default_factory=dict)
    accepted: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: list[tuple[str, str, str, int]] = field(default_factory=list)
    registered: dict[str, int] = field(default_factory=dict)
    times: tuple[str, ...] = ()
    pinned: frozenset[str] = frozenset()
    seen: int = 0

    def entry(self, index: int) -> SignedEntry:
        """The entry at ``index``.

        Raises:
            LedgerError: if there is none, or none that can be read.
        """
        content = self.entries[index] if 0 <= index < len(self.entries) else None
        if content is None:
            last = len(self.entries) - 1
            raise LedgerError(
                expected=f"an entry from 0 to {last}" if last >= 0 else "an entry; this ledger has none",
                found=f"{index}" if not 0 <= index <= last else f"{index}, which cannot be read",
                remedy="`synclave-audit show` lists the entries, `verify` says what is wrong with them.",
            )
        return parse_entry(content)

    def counted(self, kind: str) -> int:
        """How many entries of a kind count."""
        return len(self.kinds.get(kind, ()))

    def sites(self) -> list[str]:
        """Everyone who registered as a site, or spent as one, in the ledger's order."""
        return list(self.report.sites)

    def _note(self, index: int, entry: SignedEntry) -> None:
        """Remember which entry said what, if the rules let it count."""
        self.kinds[entry.kind].append(index)
        self.times = (
            (min(self.times[0], entry.time), max(self.times[1], entry.time)) if self.times else (entry.time,) * 2
        )
        if entry.actor in self.replay.actors.by_name:
            self.registered.setdefault(entry.actor, index)
        body, plans = entry.body, self.replay.plans
        if isinstance(body, PlanProposed) and body.plan_digest in plans:
            self.proposed.setdefault(body.plan_digest, index)
        if isinstance(body, PlanRefused):
            self.refused.append((body.plan_digest, entry.actor, body.refusal, index))
        if isinstance(body, PlanAccepted) and entry.actor in self._acceptors(body.plan_digest):
            self.accepted.setdefault((body.plan_digest, entry.actor), index)

    def _acceptors(self, digest: str) -> Mapping[str, PlanAccepted]:
        state = self.replay.plans.get(digest)
        return state.accepted if state else {}


def read_entries(folder: Path, size: int) -> Iterator[bytes]:
    """The bytes of the first ``size`` entries of a ledger folder, as far as its bundles can be read."""
    for level, index, width in tile_positions(size):
        if level:
            return
        try:
            found = split_bundle((folder / entries_path(index, width)).read_bytes())[0]
        except OSError:
            return
        yield from found
        if len(found) != width:
            return


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
    void = {finding.entry for finding in report.findings if finding.code in VOID}
    contents = tuple(
        None if index in void and not _readable(content) else content
        for index, content in enumerate(read_entries(folder, report.size))
    )
    reading = Reading(
        report=report,
        replay=Replay(),
        entries=contents,
        pinned=frozenset([*(site_keys or {}), *([COORDINATOR] if coordinator_key else [])]),
        seen=len(seen),
    )
    for index, content in enumerate(contents):
        if content is None or index in void:
            continue
        entry = parse_entry(content)
        reading.replay.apply(index, entry, leaf_hash(content))
        reading._note(index, entry)
    return reading


def _readable(content: bytes) -> bool:
    try:
        parse_entry(content)
    except LedgerError:
        return False
    return True
