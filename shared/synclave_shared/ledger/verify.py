"""Verification of a ledger folder by a stranger: files, tree, signatures, rules, witnesses and the cumulative epsilon.

Everything in the folder is taken as written by an adversary. Whatever is wrong becomes a finding that names the entry
or the file; nothing here raises because of what a file contains.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from synclave_shared.canonical import finite
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.chains import Chains
from synclave_shared.ledger.checkpoint import Checkpoint, Note, cosignature_time, is_operator_signature
from synclave_shared.ledger.files import LedgerFiles
from synclave_shared.ledger.merkle import MerkleTree
from synclave_shared.ledger.reading import EntryReader
from synclave_shared.ledger.replay import Finding, Replay, Spend
from synclave_shared.ledger.tiles import CHECKPOINT_PATH
from synclave_shared.privacy.accountant import MAX_GRID_DISTINCT, bounds, distinct
from synclave_shared.privacy.budget import Budget, first_excess
from synclave_shared.privacy.cross_check import cross_check
from synclave_shared.privacy.tally import spent_together, tallied

__all__ = ["DatasetReport", "Finding", "PlanReport", "SiteReport", "Verification", "VerifyReport", "verify_ledger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """What a site spent on one data set, over every plan in the ledger.

    Attributes:
        dataset: the site's name for it.
        epsilon: cumulative, recomputed, at ``delta``; infinite if none holds.
        epsilon_rdp: the same by Rényi divergences, to compare.
        delta: of the site's budget.
        budget_epsilon: what the site allows; None if it stated no budget.
        spends: number of reservations.
    """

    dataset: str
    epsilon: float
    epsilon_rdp: float
    delta: float
    budget_epsilon: float | None
    spends: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """What the ledger says about one site.

    Attributes:
        epsilon, epsilon_rdp, delta, dataset, budget_epsilon, spends: of the data set with the highest epsilon
            (:class:`DatasetReport`); epsilon 0 if nothing was spent, and no data set if no plan was accepted.
        epsilon_all_datasets: of everything the site reserved, all data sets together, at the smallest delta of those it
            spent on: the bound for a patient who is in all of them, and for one data set that goes by several names.
        witnessed_size: size of the newest checkpoint that the site co-signed; None if it co-signed none.
        public_key: the key it registered; None if it registered none. Compare it with what the site tells you.
        datasets: all data sets.
    """

    epsilon: float
    epsilon_rdp: float
    delta: float | None
    dataset: str | None
    budget_epsilon: float | None
    spends: int
    epsilon_all_datasets: float
    witnessed_size: int | None
    public_key: str | None
    datasets: tuple[DatasetReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A plan in the ledger."""

    digest: str
    name: str
    accepted_by: tuple[str, ...]
    rounds_combined: int
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The verdict.

    Attributes:
        valid: whether there is no finding of severity ``error``.
        findings: what was found.
        origin: which ledger it says it is.
        coordinator_key: key of the coordinator that signed it. Compare it with one you have from elsewhere.
        size: number of entries of the checkpoint.
        root: their Merkle root, hex.
        plans: the plans in it.
        sites: site -> what it spent and witnessed.
    """

    valid: bool
    findings: tuple[Finding, ...]
    origin: str
    coordinator_key: str | None
    size: int
    root: str
    plans: tuple[PlanReport, ...]
    sites: dict[str, SiteReport]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; an infinite epsilon becomes null."""
        document: dict[str, Any] = finite(asdict(self))
        return document


def verify_ledger(
    folder: Path,
    *,
    coordinator_key: str | None = None,
    site_keys: Mapping[str, str] | None = None,
    seen: Sequence[Note] = (),
) -> VerifyReport:
    """Verify a ledger folder, offline.

    Args:
        folder: the ledger.
        coordinator_key: the coordinator's public key (base64) as known from elsewhere; without it the ledger's own
            statement is taken, and whether that is the coordinator you mean is for you to check.
        site_keys: site -> its public key (base64) as known from elsewhere, say from the site itself.
        seen: checkpoints that sites kept (``synclave-site checkpoint``); the ledger must extend each.

    Returns:
        The report. It covers what could be read, however damaged the rest is.

    Raises:
        LedgerError: if ``folder`` is not a folder.
    """
    return Verification(folder, Replay).report(coordinator_key, site_keys or {}, seen)


Kept = TypeVar("Kept", bound=Replay)


class Verification(Generic[Kept]):
    """A ledger whose files were read and whose entries were replayed, once; what it must agree with comes after that.

    Args:
        folder: the ledger.
        replay: makes the replay of the entries, which may keep more than the rules need.

    Attributes:
        checkpoint: the state it claims; of size 0 if it has no checkpoint that can be read.
        replay: the rules after all entries that count.
        tree: of the entries.

    Raises:
        LedgerError: if ``folder`` is not a folder.
    """

    def __init__(self, folder: Path, replay: Callable[[], Kept]) -> None:
        if not folder.is_dir():
            raise LedgerError(expected="a ledger folder", found=str(folder), remedy="Check the path.")
        self._files = LedgerFiles(folder)
        self._witnessed: dict[str, int] = {}
        self._note = self._files.note(CHECKPOINT_PATH)
        self.checkpoint = self._note.checkpoint if self._note else Checkpoint(origin="", size=0, root=b"")
        self.tree = self._files.tree(self.checkpoint) if self._note else MerkleTree()
        self.replay = self._replayed(replay) if self._note else replay()

    def coordinator_key(self) -> str | None:
        """The key of the coordinator that the ledger itself names, or None."""
        named = self.replay.actors.coordinator_key()
        if named is None:
            return next((state.plan.coordinator_key for state in self.replay.plans.values()), None)
        return named

    def site_key(self, site: str) -> str | None:
        """The site's key at the end of the ledger: the last one that signed an entry. None if no such site registered.

        A rotation alone does not make a key the site's here, for the new key did not sign it: else whoever writes in a
        site's name could end with a rotation to the key that an auditor knows.
        """
        actor = self.replay.actors.by_name.get(site)
        return actor.proven_keys[-1] if actor and actor.role == "site" and actor.proven_keys else None

    def extends(self, checkpoint: Checkpoint) -> bool:
        """Whether the entries begin with those that a checkpoint covers."""
        return checkpoint.size <= self.tree.size and self.tree.root(checkpoint.size) == checkpoint.root

    def report(self, coordinator_key: str | None, site_keys: Mapping[str, str], seen: Sequence[Note]) -> VerifyReport:
        """The verdict, to be asked for once. The arguments are those of :func:`verify_ledger`."""
        operator = coordinator_key
        if self._note:
            operator = self._operator(coordinator_key)
            self._check_signatures(CHECKPOINT_PATH, self._note, operator)
            self._check_witnesses(operator)
            if self.tree.size == self.checkpoint.size:
                self._files.check_unexpected(self.checkpoint.size)
        self._check_site_keys(site_keys)
        self._check_seen(seen, operator)
        sites = self._sites()
        findings = (*self._files.findings, *self.replay.findings)
        return VerifyReport(
            valid=not any(finding.severity == "error" for finding in findings),
            findings=findings,
            origin=self.checkpoint.origin,
            coordinator_key=operator,
            size=self.checkpoint.size,
            root=self.checkpoint.root.hex(),
            plans=tuple(
                PlanReport(
                    digest=digest,
                    name=state.plan.name,
                    accepted_by=tuple(state.accepted),
                    rounds_combined=len(state.aggregated),
                    closed=state.closed,
                )
                for digest, state in self.replay.plans.items()
            ),
            sites=sites,
        )

    def _replayed(self, empty: Callable[[], Kept]) -> Kept:
        """Replay the entries; a second time without those that nobody signed, if there are any."""
        size = self.checkpoint.size
        unsigned: frozenset[int] = frozenset()
        while True:
            replay, reader, chains, malformed = empty(), EntryReader(), Chains(), []
            for index, data, leaf in self._files.entries(size, self.tree):
                try:
                    entry = reader.read(data)
                except LedgerError as error:
                    malformed.append((index, error.found))
                    continue
                if index in unsigned:
                    continue
                replay.apply(index, entry, leaf)
                if not unsigned:
                    chains.add(index, entry, leaf)
            found = frozenset() if unsigned else chains.unsigned(lambda index: self._files.entry(size, index))
            if not found:
                break
            unsigned = found
        for index, reason in malformed:
            self._files.find("entry-malformed", reason, entry=index)
        for index in sorted(unsigned):
            self._files.find("signature-invalid", "not signed by the key it names", entry=index)
        return replay

    def _operator(self, expected: str | None) -> str | None:
        """The coordinator's key; and whether this is the ledger of its first plan."""
        find, named = self._files.find, self.coordinator_key()
        if expected is not None and named is not None and named != expected:
            find("coordinator-unexpected", f"of the coordinator with key {named}, not of the one you named")
        if expected is None and named is None:
            find("coordinator-unknown", "no coordinator is registered, so nobody's signature can be checked")
        first = next(iter(self.replay.plans), None)
        if first is not None and self.checkpoint.origin != f"synclave/{first[:16]}":
            find("origin-wrong", "not the ledger of its first plan", file=CHECKPOINT_PATH)
        return expected or named

    def _check_signatures(self, path: str, note: Note, operator: str | None) -> None:
        """Every signature line must be the coordinator's or a site's, valid, and there once."""
        find = self._files.find
        names = [signature.name for signature in note.signatures]
        if len(set(names)) != len(names):
            find("checkpoint-malformed", "two signatures of one name", file=path)
        if note.checkpoint.origin not in names:
            find("checkpoint-unsigned", "not signed by the coordinator", file=path)
        for signature in note.signatures:
            if signature.name == note.checkpoint.origin:
                if operator is None or not is_operator_signature(note.checkpoint, signature, operator):
                    find("checkpoint-signature-invalid", "the coordinator's signature does not verify", file=path)
                continue
            actor = self.replay.actors.by_name.get(signature.name)
            # Any key it ever had: a co-signature may be older than the key that counts now.
            keys = actor.keys if actor else ()
            if all(cosignature_time(note.checkpoint, signature, key) is None for key in keys):
                find("cosignature-invalid", f"the co-signature of {signature.name} does not verify", file=path)
                continue
            self._witnessed[signature.name] = max(self._witnessed.get(signature.name, 0), note.checkpoint.size)

    def _check_witnesses(self, operator: str | None) -> None:
        find = self._files.find
        for path in self._files.witness_paths():
            note = self._files.note(path)
            if note is None:
                continue
            shown = note.checkpoint
            if shown.origin != self.checkpoint.origin or not self.extends(shown):
                explanation = f"a checkpoint of {shown.size} entries was co-signed that this ledger does not extend"
                find("fork", explanation, file=path)
            if {line.name for line in note.signatures} <= {shown.origin}:
                find("checkpoint-malformed", "a checkpoint that nobody co-signed", file=path)
            self._check_signatures(path, note, operator)
        for site in dict.fromkeys(site for site, _ in self.replay.spends):
            if site not in self._witnessed:
                find("unwitnessed", f"{site} spent, but co-signed no checkpoint", severity="warning")

    def _check_site_keys(self, expected: Mapping[str, str]) -> None:
        for site, key in expected.items():
            named = self.site_key(site)
            if named != key:
                found = f"here with key {named}, the last one that signed an entry" if named else "not registered"
                self._files.find("site-key-unexpected", f"{site} is {found}; you named {key}")

    def _check_seen(self, seen: Sequence[Note], operator: str | None) -> None:
        find = self._files.find
        for note in seen:
            shown = note.checkpoint
            if shown.origin != self.checkpoint.origin or operator is None or not note.is_signed_by(operator):
                find("seen-foreign", f"a site saw a checkpoint of {shown.origin} that this ledger's key did not sign")
            elif shown.size > self.checkpoint.size:
                find("history-truncated", f"a site saw {shown.size} entries; this ledger has {self.checkpoint.size}")
            elif not self.extends(shown):
                find("history-rewritten", f"a site saw {shown.size} entries that this ledger does not begin with")

    def _sites(self) -> dict[str, SiteReport]:
        names = [name for name, actor in self.replay.actors.by_name.items() if actor.role == "site"]
        names += [site for site, _ in self.replay.spends]
        return {name: self._site(name) for name in dict.fromkeys(names)}

    def _site(self, site: str) -> SiteReport:
        datasets = [self._dataset(site, name) for name in self.replay.datasets(site)]
        worst = max(datasets, key=lambda report: report.epsilon, default=None)
        return SiteReport(
            epsilon=worst.epsilon if worst else 0.0,
            epsilon_rdp=worst.epsilon_rdp if worst else 0.0,
            delta=worst.delta if worst else None,
            dataset=worst.dataset if worst else None,
            budget_epsilon=worst.budget_epsilon if worst else None,
            spends=worst.spends if worst else 0,
            epsilon_all_datasets=self._all_datasets(site, datasets),
            witnessed_size=self._witnessed.get(site),
            public_key=self.replay.actors.key(site),
            datasets=tuple(datasets),
        )

    def _all_datasets(self, site: str, datasets: Sequence[DatasetReport]) -> float:
        if len(datasets) < 2:
            return datasets[0].epsilon if datasets else 0.0
        spends = ((self.replay.spends.get((site, each.dataset), []), each.delta) for each in datasets)
        together = spent_together(([spend.mechanism for spend in done], delta) for done, delta in spends)
        return together[0] if together else 0.0

    def _dataset(self, site: str, dataset: str) -> DatasetReport:
        spends = self.replay.spends.get((site, dataset), [])
        short = tallied([spend.mechanism for spend in spends])
        budgets = self.replay.budgets.get((site, dataset), [])
        budget = budgets[-1][1] if budgets else None
        delta = float(budget.delta) if budget else spends[0].delta
        found = bounds(short, delta)
        different = len(distinct(short))
        if different > MAX_GRID_DISTINCT:
            looser = f"{site}, {dataset}: {different} different mechanisms, so epsilon is the looser Rényi bound"
            self._files.find("accountants-skipped", looser, severity="warning")
        for disagreement in cross_check(short, delta).disagreements:
            self._files.find("accountants-disagree", f"{site}, {dataset}, at delta {delta:g}: {disagreement}")
        self._check_budgets(site, dataset, budgets, spends)
        return DatasetReport(
            dataset=dataset,
            epsilon=found.smaller,
            epsilon_rdp=found.by_divergence,
            delta=delta,
            budget_epsilon=float(budget.epsilon) if budget else None,
            spends=len(spends),
        )

    def _check_budgets(
        self, site: str, dataset: str, budgets: Sequence[tuple[int, Budget]], spends: Sequence[Spend]
    ) -> None:
        """Whether each reservation kept to the budget that held when it was made; names the first that did not."""
        places = [spend.entry for spend in spends]
        counted = [(bisect.bisect_left(places, entry), budget) for entry, budget in budgets]
        excess = first_excess([spend.mechanism for spend in spends], counted)
        if excess:
            total, limit = f"{excess.epsilon:.4g}", excess.budget.epsilon
            found = f"{site} had spent epsilon {total} on {dataset}; its budget was {limit}"
            self._files.find("budget-exceeded", found, entry=places[excess.place])
