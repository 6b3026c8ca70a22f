"""What a run folder proves about the model behind the synthetic patients: plan, ledger, snapshot, epsilon per site.

Nothing is believed that can be recomputed: the ledger is verified, and every epsilon comes from the mechanisms that
the sites signed, not from the numbers that the coordinator wrote beside them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synclave_shared.errors import LedgerError, PlanError, SnapshotError
from synclave_shared.ledger.entry import SignedEntry, SpendReserved, parse_entry
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.tiles import CHECKPOINT_PATH
from synclave_shared.ledger.verify import DatasetReport, verify_ledger
from synclave_shared.models.stored.snapshot import SnapshotRecord
from synclave_shared.plan import TrainPlan
from synclave_shared.privacy.accountant import epsilon_over_time

__all__ = ["RunRecord", "SiteSpend", "read_run", "spends_per_site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSpend:
    """What one site has spent on one data set.

    Attributes:
        site: the site's name.
        dataset: the site's name for its data.
        rounds: rounds of this run in which the site spent, increasing.
        epsilon: cumulative epsilon after each of them, over everything the ledger holds for the data set.
        before: epsilon spent on the data set before this run.
        delta: at which epsilon is stated: that of the site's budget, as the auditor states it.
        budget: the budget that the site stated when it accepted the plan; None if the ledger has none.
    """

    site: str
    dataset: str
    rounds: tuple[int, ...]
    epsilon: tuple[float, ...]
    before: float
    delta: float
    budget: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as its folder shows it.

    Attributes:
        plan: the plan.
        ledger_valid: whether every check of the ledger passed.
        findings: explanations of those that did not, warnings left out.
        ledger_size: number of entries.
        ledger_root: root hash of the ledger.
        snapshot_digest: SHA-256 of the snapshot's tensors; None if the run has no snapshot yet.
        snapshot_round: round after which it was written.
        sites: spends, by site.
    """

    plan: TrainPlan
    ledger_valid: bool
    findings: tuple[str, ...]
    ledger_size: int
    ledger_root: str
    snapshot_digest: str | None
    snapshot_round: int | None
    sites: tuple[SiteSpend, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``metrics.json``."""
        return {
            "plan_name": self.plan.name,
            "plan_digest": self.plan.digest,
            "trust_mode": self.plan.trust_mode,
            "ledger_valid": self.ledger_valid,
            "ledger_findings": list(self.findings),
            "ledger_size": self.ledger_size,
            "ledger_root": self.ledger_root,
            "snapshot_digest": self.snapshot_digest,
            "snapshot_round": self.snapshot_round,
            "sites": {
                spend.site: {
                    "dataset": spend.dataset,
                    "rounds": list(spend.rounds),
                    "delta": spend.delta,
                    "epsilon": [finite(epsilon) for epsilon in spend.epsilon],
                    "epsilon_before": finite(spend.before),
                    "budget_epsilon": spend.budget,
                }
                for spend in self.sites
            },
        }


def finite(epsilon: float) -> float | None:
    """``epsilon``, or None where no finite epsilon holds."""
    return epsilon if math.isfinite(epsilon) else None


def read_run(folder: Path) -> RunRecord:
    """Read and verify a run folder.

    Args:
        folder: the run's folder, with ``plan.json`` and ``ledger/``; ``snapshot/`` may be missing.

    Raises:
        PlanError: if the plan cannot be read.
        LedgerError: if the ledger cannot be read at all. A ledger that is readable but wrong is reported, not raised:
            the report has to say so.
        SnapshotError: if the snapshot's description is damaged or belongs to another plan.
    """
    try:
        plan = TrainPlan.from_bytes((folder / "plan.json").read_bytes())
    except OSError as error:
        raise PlanError(
            expected=f"plan.json in the run folder {folder}",
            found=error.strerror or "an unreadable file",
            remedy="Give the folder that a training wrote.",
        ) from None
    if not (folder / "ledger" / CHECKPOINT_PATH).is_file():
        raise LedgerError(
            expected=f"a ledger in {folder / 'ledger'}",
            found="no checkpoint there",
            remedy="Give the folder that a training wrote, with its ledger.",
        )
    verdict = verify_ledger(folder / "ledger")
    try:
        ledger = Ledger.open(folder / "ledger")
        entries = [parse_entry(ledger.entry(index)) for index in range(ledger.size)]
    except LedgerError:
        if verdict.valid:
            raise
        entries = []
    datasets = {(site, of.dataset): of for site, report in verdict.sites.items() for of in report.datasets}
    snapshot = _snapshot(folder / "snapshot" / "snapshot.json", plan)
    return RunRecord(
        plan=plan,
        ledger_valid=verdict.valid,
        findings=tuple(f.explanation for f in verdict.findings if f.severity == "error"),
        ledger_size=verdict.size,
        ledger_root=verdict.root,
        snapshot_digest=snapshot.tensors_digest if snapshot else None,
        snapshot_round=snapshot.round if snapshot else None,
        sites=spends_per_site(entries, plan, datasets),
    )


def spends_per_site(
    entries: Sequence[SignedEntry], plan: TrainPlan, datasets: Mapping[tuple[str, str], DatasetReport]
) -> tuple[SiteSpend, ...]:
    """Cumulative epsilon of each site that spent in ``plan``, from its reservations in the order of the ledger.

    Args:
        entries: entries of the ledger, in order.
        plan: the run to show; other runs on the same data set count as spent before or in between.
        datasets: (site, data set) -> what the verifier found; where it has none, the plan's delta is taken.
    """
    reserved: dict[tuple[str, str], list[SpendReserved]] = defaultdict(list)
    # A byte-for-byte repeated entry counts once, as it does for the auditor.
    for entry in {entry.to_bytes(): entry for entry in entries}.values():
        if isinstance(entry.body, SpendReserved):
            reserved[(entry.actor, entry.body.dataset)].append(entry.body)
    spends = []
    for (site, dataset), bodies in sorted(reserved.items()):
        mine = [place for place, body in enumerate(bodies) if body.plan_digest == plan.digest]
        if not mine:
            continue
        found = datasets.get((site, dataset))
        delta = found.delta if found else float(plan.privacy.delta)
        over_time = epsilon_over_time([body.mechanism for body in bodies], delta)
        spends.append(
            SiteSpend(
                site=site,
                dataset=dataset,
                rounds=tuple(bodies[place].round for place in mine),
                epsilon=tuple(over_time[place] for place in mine),
                before=over_time[mine[0] - 1] if mine[0] else 0.0,
                delta=delta,
                budget=found.budget_epsilon if found else None,
            )
        )
    return tuple(spends)


def _snapshot(path: Path, plan: TrainPlan) -> SnapshotRecord | None:
    if not path.is_file():
        return None
    try:
        record = SnapshotRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SnapshotError(
            expected=f"the description of a snapshot in {path}", found=str(error), remedy="Use an undamaged run folder."
        ) from None
    if record.plan_digest != plan.digest:
        raise SnapshotError(
            expected=f"a snapshot of plan {plan.digest[:16]}",
            found=f"one of plan {record.plan_digest[:16]}",
            remedy="Use the run folder as the training wrote it.",
        )
    return record
