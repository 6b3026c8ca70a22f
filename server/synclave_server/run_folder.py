"""Where a run lives on the coordinator's disk, and what its progress looks like from outside.

::

    plan.json  plan.sig  schema.json     what was agreed; never changes
    start.f32                            with a warm start: the parameters to begin with, whose SHA-256 the plan names
    ledger/                              the tamper-evident record
    rounds/<k>/                          the state after round k, complete or absent; the newest two are kept
    snapshot/                            the newest state again: what `synclave sample` takes
    metrics.json                         per round: sites, epsilon so far, seconds, norm of the aggregate
    progress.jsonl                       one line per event, for whoever watches
    logs/                                output of every process
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, Self

from synclave_shared.errors import FederationError, PlanError, SnapshotError
from synclave_shared.plan import RoundKind, TrainPlan

__all__ = ["ProgressTail", "RoundProgress", "RunFolder", "Stage", "write_atomically"]

Stage = Literal["joining", "proposing", RoundKind, "closing", "complete", "failed"]

START_FILE: Final = "start.f32"

KEPT_ROUNDS: Final = 2
"""Newest round folders that are kept: the last one to resume from, and the one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundProgress:
    """One event of a run, as a progress display needs it. No value here depends on patients.

    Attributes:
        stage: what the run is at.
        text: one sentence for a person.
        round: the round that ended with this event (or is under way), 0 before and in the marginals round.
        rounds: training rounds of the plan.
        sites_ok: sites whose reply counted.
        sites_expected: sites that were asked.
        seconds: how long the round took; 0 while it is under way.
        epsilon: largest epsilon any site has spent on this plan so far, or None if nothing was spent.
        expected, found, remedy: with ``failed``, the three answers of the error.
    """

    stage: Stage
    text: str
    round: int = 0
    rounds: int
    sites_ok: int = 0
    sites_expected: int = 0
    seconds: float = 0.0
    epsilon: float | None = None
    expected: str = ""
    found: str = ""
    remedy: str = ""

    @property
    def last(self) -> bool:
        """Whether nothing follows this event."""
        return self.stage in ("complete", "failed")

    def raise_if_failed(self) -> None:
        """Raise the error that a ``failed`` event reports.

        Raises:
            FederationError: with the same three answers.
        """
        if self.stage == "failed":
            raise FederationError(expected=self.expected, found=self.found, remedy=self.remedy)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that after a crash either the old or the new content is there, never half of one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class RunFolder:
    """Access to one run's folder. Reading never changes anything.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = path / "ledger"
        self.rounds = path / "rounds"
        self.snapshot = path / "snapshot"
        self.metrics = path / "metrics.json"
        self.progress = path / "progress.jsonl"
        self.logs = path / "logs"

    @classmethod
    def prepare(cls, path: Path, plan: bytes, signature: str, schema: bytes, start: bytes | None = None) -> Self:
        """Make the folder of a run, or find the one that is there and belongs to the very same plan.

        Args:
            path: the folder; it may exist.
            plan: canonical JSON of the plan.
            signature: the coordinator's signature over it, base64.
            schema: canonical JSON of the resolved schema.
            start: parameters to begin with, float32 little-endian; None: the untrained network's.

        Raises:
            FederationError: if the folder belongs to another plan; nothing is changed then.
        """
        run = cls(path)
        existing = path / "plan.json"
        if existing.exists() and existing.read_bytes() != plan:
            raise FederationError(
                expected=f"a new folder, or the run of this plan at {path}",
                found="the run of another plan",
                remedy="Choose another --out.",
            )
        path.mkdir(parents=True, exist_ok=True)
        run.rounds.mkdir(exist_ok=True)
        run.logs.mkdir(exist_ok=True)
        write_atomically(path / "schema.json", schema)
        if start is not None:
            write_atomically(path / START_FILE, start)
        write_atomically(path / "plan.sig", signature.encode("ascii") + b"\n")
        write_atomically(existing, plan)
        return run

    def plan(self) -> TrainPlan:
        """The plan of this run.

        Raises:
            PlanError: if there is none or it is damaged.
        """
        try:
            return TrainPlan.from_bytes((self.path / "plan.json").read_bytes())
        except OSError as error:
            raise PlanError(
                expected=f"a run at {self.path}",
                found=error.strerror or "no plan",
                remedy="Name the folder that was given with --out.",
            ) from None

    def signature(self) -> str:
        """The coordinator's signature over the plan, base64."""
        return (self.path / "plan.sig").read_text(encoding="ascii").strip()

    def schema(self) -> bytes:
        """Canonical JSON of the resolved schema."""
        return (self.path / "schema.json").read_bytes()

    def start(self) -> bytes:
        """The parameters that a plan with a warm start begins with.

        Raises:
            SnapshotError: if they are not there.
        """
        try:
            return (self.path / START_FILE).read_bytes()
        except OSError as error:
            raise SnapshotError(
                expected=f"{START_FILE} in {self.path}, with which the training begins",
                found=error.strerror or "nothing",
                remedy="Lay the run down again with `synclave plan --out` and the same plan file.",
            ) from None

    def round_folder(self, number: int) -> Path:
        """Where the state after round ``number`` lies."""
        return self.rounds / str(number)

    def complete_rounds(self) -> list[int]:
        """Numbers of the rounds whose state is there, ascending."""
        return sorted(int(entry.name) for entry in self.rounds.iterdir() if entry.name.isdecimal())

    def forget_old_rounds(self) -> None:
        """Remove all but the newest round folders."""
        for number in self.complete_rounds()[:-KEPT_ROUNDS]:
            shutil.rmtree(self.round_folder(number))

    def report(self, event: RoundProgress) -> None:
        """Append an event for whoever watches."""
        line = json.dumps(asdict(event)) + "\n"
        with self.progress.open("a", encoding="utf-8") as file:
            file.write(line)

    def read_metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds; empty at the start of a run."""
        if not self.metrics.exists():
            return {}
        content = json.loads(self.metrics.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Replace ``metrics.json``."""
        write_atomically(self.metrics, json.dumps(metrics, indent=2).encode() + b"\n")


class ProgressTail:
    """Reads events that are appended to a run's ``progress.jsonl``.

    Args:
        path: the file; it need not exist yet.
        from_start: also those that were there before this object was made.
    """

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() and not from_start else 0

    def new_events(self) -> Iterator[RoundProgress]:
        """The events since the last call; a line that is still being written is left for the next one."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        known = {field.name for field in fields(RoundProgress)}
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self._offset += len(line)
            yield RoundProgress(**{name: value for name, value in json.loads(line).items() if name in known})
