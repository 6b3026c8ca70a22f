"""Verification of a ledger folder by a stranger: files, tree, signatures, rules, witnesses and the cumulative epsilon.

Everything in the folder is taken as written by an adversary. Whatever is wrong becomes a finding that names the entry
or the file; nothing here raises because of what a file contains.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synclave_shared.canonical import finite
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.chains import Chains
from synclave_shared.ledger.checkpoint import Checkpoint, Note, cosignature_time, is_operator_signature
from synclave_shared.ledger.files import LedgerFiles
from synclave_shared.ledger.merkle import MerkleTree
from synclave_shared.ledger.reading import EntryReader
from synclave_shared.ledger.replay import Finding, Replay, Spend
from synclave_shared.ledger.tiles import CHECKPOINT_PATH, witness_path
from synclave_shared.privacy.accountant import MAX_GRID_DISTINCT, bounds, distinct
from synclave_shared.privacy.budget import Budget, first_excess
from synclave_shared.privacy.cross_check import cross_check
from synclave_shared.privacy.tally import spent_together, tallied

__all__ = ["DatasetReport", "Finding", "PlanReport", "SiteReport", "VerifyReport", "verify_ledger"]


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
    if not folder.is_dir():
        raise LedgerError(expected="a ledger folder", found=str(folder), remedy="Check the path.")
    return _Verification(folder).run(coordinator_key, site_keys or {}, seen)


class _Verification:
    def __init__(self, folder: Path) -> None:
        self._files = LedgerFiles(folder)
        self._replay = Replay()
        self._witnessed: dict[str, int] = {}

    def run(self, coordinator_key: str | None, site_keys: Mapping[str, str], seen: Sequence[Note]) -> VerifyReport:
        note = self._files.note(CHECKPOINT_PATH)
        checkpoint = note.checkpoint if note else Checkpoint(origin="", size=0, root=b"")
        operator = coordinator_key
        tree = MerkleTree()
        if note:
            tree = self._files.tree(checkpoint)
            self._replay_entries(checkpoint.size, tree)
            operator = self._operator(checkpoint, coordinator_key)
            self._check_signatures(CHECKPOINT_PATH, note, operator)
            self._check_witnesses(checkpoint, operator, tree)
            if tree.size == checkpoint.size:
                self._files.check_unexpected(checkpoint.size)
        self._check_site_keys(site_keys)
        self._check_seen(seen, checkpoint, operator, tree)
        sites = self._sites()
        findings = (*self._files.findings, *self._replay.findings)
        return VerifyReport(
            valid=not any(finding.severity == "error" for finding in findings),
            findings=findings,
            origin=checkpoint.origin,
            coordinator_key=operator,
            size=checkpoint.size,
            root=checkpoint.root.hex(),
            plans=tuple(
                PlanReport(
                    digest=digest,
                    name=state.plan.name,
                    accepted_by=tuple(state.accepted),
                    rounds_combined=len(state.aggregated),
                    closed=state.closed,
                )
                for digest, state in self._replay.plans.items()
            ),
            sites=sites,
        )

    def _replay_entries(self, size: int, tree: MerkleTree) -> None:
        """Replay the entries; a second time without those that nobody signed, if there are any."""
        unsigned: frozenset[int] = frozenset()
        while True:
            replay, reader, chains, malformed = Replay(), EntryReader(), Chains(), []
            for index, data, leaf in self._files.entries(size, tree):
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
        self._replay = replay
        for index, reason in malformed:
            self._files.find("entry-malformed", reason, entry=index)
        for index in sorted(unsigned):
            self._files.find("signature-invalid", "not signed by the key it names", entry=index)

    def _operator(self, checkpoint: Checkpoint, expected: str | None) -> str | None:
        """The coordinator's key; and whether this is the ledger of its first plan."""
        replay, find = self._replay, self._files.find
        named = replay.actors.coordinator_key()
        if named is None:
            named = next((state.plan.coordinator_key for state in replay.plans.values()), None)
        if expected is not None and named is not None and named != expected:
            find("coordinator-unexpected", f"of the coordinator with key {named}, not of the one you named")
        if expected is None and named is None:
            find("coordinator-unknown", "no coordinator is registered, so nobody's signature can be checked")
        first = next(iter(replay.plans), None)
        if first is not None and checkpoint.origin != f"synclave/{first[:16]}":
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
            actor = self._replay.actors.by_name.get(signature.name)
            # Any key it ever had: a co-signature may be older than the key that counts now.
            keys = actor.keys if actor else ()
            if all(cosignature_time(note.checkpoint, signature, key) is None for key in keys):
                find("cosignature-invalid", f"the co-signature of {signature.name} does not verify", file=path)
                continue
            self._witnessed[signature.name] = max(self._witnessed.get(signature.name, 0), note.checkpoint.size)

    def _check_witnesses(self, checkpoint: Checkpoint, operator: str | None, tree: MerkleTree) -> None:
        find = self._files.find
        for path in self._files.witness_paths():
            note = self._files.note(path)
            if note is None:
                continue
            shown = note.checkpoint
            if shown.origin != checkpoint.origin or shown.size > tree.size or tree.root(shown.size) != shown.root:
                explanation = f"a checkpoint of {shown.size} entries was co-signed that this ledger does not extend"
                find("fork", explanation, file=path)
            if {witness_path(line.name) for line in note.signatures} != {path, witness_path(shown.origin)}:
                find("checkpoint-malformed", "not the co-signature of the site it is named after", file=path)
            self._check_signatures(path, note, operator)
        for site in dict.fromkeys(site for site, _ in self._replay.spends):
            if site not in self._witnessed:
                find("unwitnessed", f"{site} spent, but co-signed no checkpoint", severity="warning")

    def _check_site_keys(self, expected: Mapping[str, str]) -> None:
        for site, key in expected.items():
            actor = self._replay.actors.by_name.get(site)
            named = actor.keys[-1] if actor and actor.role == "site" else None
            if named != key:
                found = f"registered with key {named}" if named else "not registered"
                self._files.find("site-key-unexpected", f"{site} is {found}; you named {key}")

    def _check_seen(self, seen: Sequence[Note], checkpoint: Checkpoint, operator: str | None, tree: MerkleTree) -> None:
        find = self._files.find
        for note in seen:
            shown = note.checkpoint
            if shown.origin != checkpoint.origin or operator is None or not note.is_signed_by(operator):
                find("seen-foreign", f"a site saw a checkpoint of {shown.origin} that this ledger's key did not sign")
            elif shown.size > checkpoint.size:
                find("history-truncated", f"a site saw {shown.size} entries; this ledger has {checkpoint.size}")
            elif shown.size > tree.size or tree.root(shown.size) != shown.root:
                find("history-rewritten", f"a site saw {shown.size} entries that this ledger does not begin with")

    def _sites(self) -> dict[str, SiteReport]:
        names = [name for name, actor in self._replay.actors.by_name.items() if actor.role == "site"]
        names += [site for site, _ in self._replay.spends]
        return {name: self._site(name) for name in dict.fromkeys(names)}

    def _site(self, site: str) -> SiteReport:
        datasets = [self._dataset(site, name) for name in self._replay.datasets(site)]
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
            public_key=self._replay.actors.key(site),
            datasets=tuple(datasets),
        )

    def _all_datasets(self, site: str, datasets: Sequence[DatasetReport]) -> float:
        if len(datasets) < 2:
            return datasets[0].epsilon if datasets else 0.0
        spends = ((self._replay.spends.get((site, each.dataset), []), each.delta) for each in datasets)
        together = spent_together(([spend.mechanism for spend in done], delta) for done, delta in spends)
        return together[0] if together else 0.0

    def _dataset(self, site: str, dataset: str) -> DatasetReport:
        spends = self._replay.spends.get((site, dataset), [])
        short = tallied([spend.mechanism for spend in spends])
        budgets = self._replay.budgets.get((site, dataset), [])
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
