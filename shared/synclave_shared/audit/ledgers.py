"""Several ledgers under one audit: each verified by itself, and what no single one of them can show.

A training has a ledger of its own, a budget spans all trainings of a data set. Which sites and data sets are the same,
:mod:`synclave_shared.audit.histories` says.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclave_shared.audit.histories import History, Site, histories_of, sites_of
from synclave_shared.audit.reading import Place, Reading, Record
from synclave_shared.audit.words import budget_line, listed
from synclave_shared.ledger.checkpoint import Note
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.replay import Finding
from synclave_shared.ledger.verify import Verification, VerifyReport
from synclave_shared.privacy.accountant import MAX_GRID_DISTINCT, distinct
from synclave_shared.privacy.budget import Budget, first_excess
from synclave_shared.privacy.cross_check import cross_check
from synclave_shared.privacy.tally import tallied

__all__ = ["Found", "Ledgers", "Repeat", "Verdict", "read_ledgers", "verdicts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finding, and the number of the ledger it is about; 0 if that is the only one, or if it is about several."""

    ledger: int
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one ledger was found to be.

    Attributes:
        report: the verdict.
        pinned: names whose keys the auditor gave and which are in this ledger, the coordinator's among them.
        seen: number of checkpoints that it was held against.
    """

    report: VerifyReport
    pinned: frozenset[str]
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A ledger that was given a second time, the same or an older copy of it.

    Attributes:
        number: its place among those that were given, from 1.
        of: the number of the one that holds all of it.
        size: number of its entries.
    """

    number: int
    of: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """Ledgers under one audit.

    Attributes:
        readings: each of them that is not a copy of another.
        repeats: those that are.
        sites: everyone who signs or spends as a site.
        histories: what each site did to each data set.
        findings: what is wrong between ledgers, or over all of them; each one's own are in its report.
    """

    readings: tuple[Reading, ...]
    repeats: tuple[Repeat, ...]
    sites: tuple[Site, ...]
    histories: tuple[History, ...]
    findings: tuple[Found, ...]

    @property
    def valid(self) -> bool:
        """Whether no finding is an error."""
        return not any(found.finding.severity == "error" for found in self.all_findings())

    def all_findings(self) -> list[Found]:
        """Those over all ledgers, and each one's own."""
        own = [
            Found(ledger=reading.number, finding=finding)
            for reading in self.readings
            for finding in reading.report.findings
        ]
        return [*self.findings, *own]


def read_ledgers(
    folders: Sequence[Path],
    *,
    coordinator_keys: Sequence[str] = (),
    site_keys: Mapping[str, Sequence[str]] | None = None,
    seen: Sequence[Note] = (),
) -> Ledgers:
    """Verify ledgers, each by itself and all of them together.

    Args:
        folders: one or more ledgers; a ledger and older copies of it count once.
        coordinator_keys: public keys (base64) of coordinators as known from elsewhere. If any are given, each ledger
            must be one of theirs.
        site_keys: site -> its public keys (base64), as known from elsewhere: they are one site's. In each ledger in
            which the site is registered, one of them must be its key.
        seen: checkpoints that sites kept; each must be how the ledger of its origin begins.

    Raises:
        LedgerError: if one is not a folder.
    """
    known = site_keys or {}
    opened = [Verification(folder, Record) for folder in folders]
    repeats, forks = _copies(opened)
    held_against = verdicts(opened, coordinator_keys, known, seen, copies={each.number for each in repeats})
    readings = {
        number: Reading(
            folder=folder,
            number=number if len(folders) > 1 else 0,
            report=held.report,
            replay=verification.replay,
            pinned=held.pinned,
            seen=held.seen,
        )
        for number, (folder, verification, held) in enumerate(zip(folders, opened, held_against, strict=True), start=1)
    }
    # A copy in which something is wrong is shown; what both hold is counted once all the same.
    repeats = [each for each in repeats if readings[each.number].report.valid]
    kept = tuple(reading for number, reading in readings.items() if number not in {repeat.number for repeat in repeats})
    sites = sites_of(kept, known)
    histories = tuple(history for site in sites for history in histories_of(site))
    findings = [*forks, *_strangers(sites)]
    for history in histories:
        if len(history.ledgers) > 1:
            findings += _over_all(history, kept)
    return Ledgers(readings=kept, repeats=tuple(repeats), sites=sites, histories=histories, findings=tuple(findings))


def verdicts(
    opened: Sequence[Verification[Any]],
    coordinator_keys: Sequence[str],
    site_keys: Mapping[str, Sequence[str]],
    seen: Sequence[Note],
    copies: Collection[int] = (),
) -> list[Verdict]:
    """The verdict on each of several ledgers, held against the keys and checkpoints that are for it.

    Args:
        opened: ledgers that were read.
        coordinator_keys: as for :func:`read_ledgers`, like the next two.
        site_keys: site -> its keys.
        seen: checkpoints that sites kept.
        copies: numbers, from 1, of those that are older copies of another: a checkpoint that is newer than such a copy
            takes nothing from it.
    """
    origins = [each.checkpoint.origin for each in opened]
    found = []
    for place, verification in enumerate(opened):
        named = verification.coordinator_key()
        coordinator_key = named if named in coordinator_keys else next(iter(coordinator_keys), None)
        keys = _keys_here(site_keys, verification, opened)
        notes = [
            note
            for note in seen
            # A note of none of the ledgers is held against the first, which says so.
            if (note.checkpoint.origin == origins[place] and place + 1 not in copies)
            or (place == 0 and note.checkpoint.origin not in origins)
        ]
        found.append(
            Verdict(
                report=verification.report(coordinator_key, keys, notes),
                pinned=frozenset([*keys, *([COORDINATOR] if coordinator_key else [])]),
                seen=len(notes),
            )
        )
    return found


def _keys_here(
    known: Mapping[str, Sequence[str]], here: Verification[Any], opened: Sequence[Verification[Any]]
) -> dict[str, str]:
    """Which of the known keys of sites this ledger is held to."""
    keys = {}
    for site, given in known.items():
        registered = here.site_key(site)
        nowhere = all(each.site_key(site) is None for each in opened)
        if registered is not None or (nowhere and here is opened[0]):
            keys[site] = registered if registered is not None and registered in given else given[0]
    return keys


def _copies(opened: Sequence[Verification[Record]]) -> tuple[list[Repeat], list[Found]]:
    """Which ledgers are copies of another, and which are two histories of one."""
    repeats, forks = [], []
    numbered = sorted(enumerate(opened, start=1), key=lambda item: -item[1].checkpoint.size)
    whole: list[tuple[int, Verification[Record]]] = []
    for number, shorter in numbered:
        if shorter.checkpoint.size == 0 or not shorter.extends(shorter.checkpoint):
            # Nothing in it, or not what its own checkpoint covers, which its verdict says.
            continue
        same = [(other, longer) for other, longer in whole if longer.checkpoint.origin == shorter.checkpoint.origin]
        of = next((other for other, longer in same if longer.extends(shorter.checkpoint)), None)
        if of is not None:
            repeats.append(Repeat(number=number, of=of, size=shorter.checkpoint.size))
            continue
        for other, _ in same:
            first, second = sorted((number, other))
            explanation = (
                f"ledgers {first} and {second} state one origin, {shorter.checkpoint.origin}, and neither continues the"
                " other; what stands in both is counted once"
            )
            forks.append(Found(ledger=0, finding=Finding(code="fork", severity="error", explanation=explanation)))
        whole.append((number, shorter))
    return repeats, forks


def _strangers(sites: Sequence[Site]) -> Iterator[Found]:
    """Sites of one name whose keys nothing links."""
    by_name: dict[str, list[Site]] = {}
    for site in sites:
        by_name.setdefault(site.members[0][1], []).append(site)
    for name, same in by_name.items():
        if len(same) < 2:
            continue
        each = [
            f"{site.name} in {' and '.join(f'ledger {reading.number}' for reading, _ in site.members)}" for site in same
        ]
        explanation = (
            f"{name} has keys in these ledgers that nothing links, so they count as {len(same)} sites:"
            f" {'; '.join(each)}"
        )
        yield Found(ledger=0, finding=Finding(code="site-key-differs", severity="warning", explanation=explanation))


def _held(history: History) -> Iterator[tuple[int, Budget]]:
    """Budgets as they were stated, each at the smallest delta so far: a promise is not made cheaper later."""
    deltas = itertools.accumulate((each.budget.delta for each in history.budgets), min)
    for each, smallest in zip(history.budgets, deltas, strict=True):
        yield each.before, each.budget.model_copy(update={"delta": smallest})


def _over_all(history: History, readings: Sequence[Reading]) -> Iterator[Found]:
    """What is wrong with a data set over all ledgers that say something about it."""
    whose = f"{history.site}, {history.dataset}, over all ledgers"
    ends: dict[Budget, list[Place]] = {}
    for last in {each.entry.ledger: each for each in history.budgets}.values():
        ends.setdefault(last.budget, []).append(last.entry)
    if len(ends) > 1:
        stated = "; ".join(f"{budget_line(budget)} (entry {listed(places)})" for budget, places in ends.items())
        explanation = (
            f"{whose}: the ledgers end with different budgets for it: {stated}. The one stated last by the site's"
            f" clock is taken, that of entry {listed([history.budgets[-1].entry])}"
        )
        yield Found(ledger=0, finding=Finding(code="budgets-differ", severity="warning", explanation=explanation))
    excess = first_excess(history.mechanisms, list(_held(history)))
    if excess:
        place = history.entries[excess.place]
        own = next(reading.report.findings for reading in readings if reading.number == place.ledger)
        if not any(finding.code == "budget-exceeded" and finding.entry == place.entry for finding in own):
            explanation = f"{whose}: epsilon {excess.epsilon:.4g} was spent; the budget was {excess.budget.epsilon}"
            finding = Finding(code="budget-exceeded", severity="error", explanation=explanation, entry=place.entry)
            yield Found(ledger=place.ledger, finding=finding)
    short = tallied(history.mechanisms)
    if not short:
        return
    different = len(distinct(short))
    if different > MAX_GRID_DISTINCT:
        explanation = f"{whose}: {different} different mechanisms, so epsilon is the looser Rényi bound"
        yield Found(ledger=0, finding=Finding(code="accountants-skipped", severity="warning", explanation=explanation))
    for disagreement in cross_check(short, history.delta).disagreements:
        explanation = f"{whose}, at delta {history.delta:g}: {disagreement}"
        yield Found(ledger=0, finding=Finding(code="accountants-disagree", severity="error", explanation=explanation))
