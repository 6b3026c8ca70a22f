"""The site's record of what its trainings really did: one report per try of a round, kept for good.

A folder in the site's state::

    conformance/
      noise.sketches          16 bytes per noised release of the site, in order
      <plan digest>/
        000001.json           report of the first round that was tried, and so on

A report is durable before anything of its round leaves the site. It is derived from patients, from their number and
from secret coins: it stays here. The coordinator learns no more than that the site refused, and of a mechanism that
does what it says not even that (but for false alarms, :mod:`synclave_client.training.conformance_checks`).
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, ValidationError

from synclave_client.training.conformance_checks import Check, check_evidence
from synclave_client.training.conformance_evidence import SKETCH_BYTES, Evidence
from synclave_client.vault.database import sync
from synclave_shared.canonical import FrozenModel
from synclave_shared.errors import JournalError, NotConforming

if TYPE_CHECKING:
    from synclave_client.training.conformance import RoundWatch
    from synclave_shared.plan import TrainPlan

__all__ = ["ConformanceFolder", "RoundReport"]

_log = logging.getLogger("synclave.vault")


class RoundReport(FrozenModel):
    """What one round showed.

    Attributes:
        plan: digest of the plan.
        plan_name: its name.
        round: number of the round.
        look: the how manieth report of the plan this is, from 1.
        time: when it was made, UTC.
        evidence: of this round.
        together: of all rounds of the plan so far.
        checks: what was made of them.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    format: Literal["synclave-conformance/1"] = "synclave-conformance/1"
    plan: str
    plan_name: str
    round: int
    look: int
    time: str
    evidence: Evidence
    together: Evidence
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


class ConformanceFolder:
    """The reports of one site; made where there is none.

    Args:
        folder: in the site's state; only the vault's user may read it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plans(self) -> list[str]:
        """Digests of the plans that have reports."""
        return sorted({path.parent.name for path in self._folder.glob("*/*.json")})

    def reports(self, plan_digest: str) -> list[RoundReport]:
        """Every report of a plan, oldest first.

        Raises:
            JournalError: if one cannot be read.
        """
        return [self._report(path) for path in sorted((self._folder / plan_digest).glob("*.json"))]

    def require_conforming(self, plan: TrainPlan) -> None:
        """Refuse a plan of which a round did not do what it says: nothing more is spent on it.

        Raises:
            NotConforming: naming the check that failed.
            JournalError: if the plan's newest report cannot be read.
        """
        newest = self._newest(plan.digest)
        if newest is not None and not newest.passed:
            raise _refusal(newest)

    def conclude(self, plan: TrainPlan, round_number: int, watch: RoundWatch) -> None:
        """Judge a round, and keep the report whatever it says.

        Raises:
            NotConforming: if a check failed; nothing of the round may leave then.
            JournalError: if the record cannot be read or written.
        """
        try:
            evidence = watch.evidence(self._sketches())
            newest = self._newest(plan.digest)
            look = 1 if newest is None else newest.look + 1
            together = evidence if newest is None else newest.together + evidence
            report = RoundReport(
                plan=plan.digest,
                plan_name=plan.name,
                round=round_number,
                look=look,
                time=datetime.now(UTC).replace(microsecond=0).isoformat(),
                evidence=evidence,
                together=together,
                checks=tuple(check_evidence(evidence, together, look)),
            )
            self._add_sketches(watch.sketches)
            self._write(report)
        except OSError as error:
            raise JournalError(
                expected=f"a record of conformance in {self._folder} that can be written",
                found=f"{type(error).__name__}: {error}",
                remedy="Check disk, free space and the folder's owner. Nothing was released.",
            ) from error
        if not report.passed:
            raise _refusal(report)
        _log.info(
            "round %d of plan %s did what the plan says: %d checks passed", round_number, plan.name, len(report.checks)
        )

    @property
    def _sketch_file(self) -> Path:
        return self._folder / "noise.sketches"

    def _sketches(self) -> frozenset[bytes]:
        if not self._sketch_file.exists():
            return frozenset()
        content = self._sketch_file.read_bytes()
        whole = len(content) - len(content) % SKETCH_BYTES
        return frozenset(content[at : at + SKETCH_BYTES] for at in range(0, whole, SKETCH_BYTES))

    def _add_sketches(self, sketches: list[bytes]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._sketch_file, os.O_CREAT | os.O_WRONLY, 0o600)
        with open(descriptor, "wb") as file:
            # What a power cut left of a sketch is written over.
            file.seek(os.fstat(descriptor).st_size // SKETCH_BYTES * SKETCH_BYTES)
            file.write(b"".join(sketches))
            file.flush()
            os.fsync(descriptor)

    def _newest(self, plan_digest: str) -> RoundReport | None:
        paths = sorted((self._folder / plan_digest).glob("*.json"))
        return self._report(paths[-1]) if paths else None

    def _write(self, report: RoundReport) -> None:
        folder = self._folder / report.plan
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / "report.part"
        descriptor = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(report.model_dump_json(indent=1))
        sync(part)
        part.rename(folder / f"{report.look:06d}.json")
        sync(folder)
        sync(self._folder)

    @staticmethod
    def _report(path: Path) -> RoundReport:
        try:
            return RoundReport.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise JournalError(
                expected=f"a report of conformance in {path}",
                found=f"{type(error).__name__}: {error}",
                remedy="It was changed or damaged; without it the plan goes no further. Put a backup back.",
            ) from None


def _refusal(report: RoundReport) -> NotConforming:
    failed = [check for check in report.checks if not check.passed]
    seen = "; ".join(
        f"{check.name} ({check.scope}): expected {check.expected}, found {check.found}" for check in failed
    )
    return NotConforming(
        found=f"round {report.round} of plan {report.plan_name}: {seen}",
        remedy="Nothing of it was released, and the plan goes no further here. `synclave-site conformance` shows the"
        " measurements; keep the state folder and report it with the versions of Synclave, torch and driver.",
    )
