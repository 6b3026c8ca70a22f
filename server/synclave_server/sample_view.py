"""``synclave sample``: what a person writes, and what they see while patients are drawn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from synclave_server.notary import Notary
from synclave_server.run_folder import RunFolder
from synclave_server.snapshots import read_snapshot
from synclave_shared.data.modality import schema_from_json
from synclave_shared.errors import ConfigurationError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.plan import explain_validation
from synclave_shared.processes import stop_on_signals

if TYPE_CHECKING:
    from synclave_server.sampling.request import NotesRequest, Precision, TargetBy

__all__ = ["label_counts", "notary_of", "run_sample"]


def label_counts(options: Sequence[str], label: str, values: Sequence[str], patients: int) -> dict[str, int] | None:
    """Read ``NAME=VALUE[:COUNT]`` options.

    Args:
        options: as written; a value without a count stands for all patients that no other option counts.
        label: the schema's label.
        values: its values.
        patients: how many patients are asked for.

    Returns:
        Exact counts, or None if there is no option.

    Raises:
        ConfigurationError: if an option is malformed, names another label or value, or the counts do not add up.
    """
    if not options:
        return None
    counts: dict[str, int] = {}
    rest: str | None = None
    for option in options:
        name, _, wanted = option.partition("=")
        # A label value may itself contain a colon: the longest value that fits is meant.
        value, _, count = (wanted, "", "") if wanted in values else wanted.rpartition(":")
        if (
            name != label
            or value not in values
            or value in counts
            or value == rest
            or (count and not count.isdecimal())
        ):
            raise ConfigurationError(
                expected=f"--label {label}=VALUE or {label}=VALUE:COUNT, VALUE one of {', '.join(values)}, each once",
                found=option,
                remedy="Correct the option.",
            )
        if count:
            counts[value] = int(count)
        elif rest is None:
            rest = value
        else:
            raise ConfigurationError(
                expected="a count for all label values but one",
                found=f"none for {rest} and {value}",
                remedy="Write NAME=VALUE:COUNT.",
            )
    if rest is not None:
        counts[rest] = patients - sum(counts.values())
    if sum(counts.values()) != patients or min(counts.values()) < 0:
        raise ConfigurationError(
            expected=f"label counts that add up to {patients} patients",
            found=", ".join(f"{value}: {count}" for value, count in counts.items()),
            remedy="Correct the counts or the number of patients.",
        )
    return counts


def notary_of(run: Path, key_name: str, snapshot: Path) -> Notary:
    """The ledger of the run that a snapshot is of, to be told of its synthetic patients.

    Args:
        run: the run's folder.
        key_name: names the coordinator's key.
        snapshot: folder of the snapshot.

    Raises:
        SynclaveError: if run, key and snapshot do not belong together, or one cannot be read.
    """
    folder = RunFolder(run)
    plan, drawn_from = folder.plan(), read_snapshot(snapshot)
    if drawn_from.plan != plan:
        raise ConfigurationError(
            expected=f"a snapshot of the run in {run}", found="one of another plan", remedy="Name its own run, or none."
        )
    return Notary(folder.ledger, plan, folder.signature(), SigningKey.named(key_name))


def run_sample(
    snapshot: Path,
    patients: int,
    *,
    out: Path,
    labels: Sequence[str],
    given: Sequence[str],
    sampler: str | None,
    steps: int | None,
    guidance: Decimal,
    classifier_guidance: Decimal,
    target: Path | None,
    target_by: TargetBy,
    target_strength: Decimal,
    target_curvature: bool,
    seed: int,
    precision: Precision,
    calibrated: bool,
    modality: str | None,
    notes: Mapping[str, Any],
    models: Path | None,
    codes: Path | None,
    codes_schema: Path | None,
    cohort_format: str,
    devices: Sequence[str],
    workers: int | None,
    batch_size: int,
    console: Console,
    notary: Notary | None = None,
) -> dict[str, Any]:
    """Draw patients with a progress bar; returns the provenance with the file's path and how fast it went.

    With ``notary``, the ledger of the snapshot's run is told of them.

    Raises:
        ConfigurationError: if the request cannot be fulfilled.
        SamplingError: if a worker fails.
        SnapshotError: if the snapshot is damaged.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a word about what is kept.
    """
    from synclave_server.sampling.cohort_writer import unfinished_folder
    from synclave_server.sampling.engine import sample
    from synclave_server.sampling.notes import NotesSources

    schema = schema_from_json(read_snapshot(snapshot).schema)
    if modality not in (None, schema.modality):
        raise ConfigurationError(
            expected=f"a snapshot of {modality}", found=f"one of {schema.modality}", remedy="Name another snapshot."
        )
    label = schema.label
    with stop_on_signals(), _Pace(console, patients) as pace:
        try:
            provenance = sample(
                snapshot,
                patients,
                out=out,
                label_counts=label_counts(labels, label.name, label.values, patients),
                given=given,
                sampler=sampler,
                steps=steps,
                seed=seed,
                guidance=guidance,
                classifier_guidance=classifier_guidance,
                target=target,
                target_by=target_by,
                target_strength=target_strength,
                target_curvature=target_curvature,
                precision=precision,
                calibrated=calibrated,
                notes=_of_words(notes),
                sources=NotesSources(models=models, codes=codes, codes_schema=codes_schema),
                cohort_format=cohort_format,
                batch_size=batch_size,
                devices=devices,
                workers=workers,
                progress=pace.report,
            )
        except KeyboardInterrupt:
            if unfinished_folder(out).exists():
                console.print(
                    f"Finished parts are kept in {escape(str(unfinished_folder(out)))}: the same command goes on from"
                    " there. Remove the folder to give them up.",
                    soft_wrap=True,
                    highlight=False,
                )
            raise
    entry = None
    if notary is not None:
        entry = notary.record_samples(
            snapshot_digest=provenance.snapshot_digest,
            request_digest=provenance.request_digest,
            cohort_digest=provenance.file_digest,
            patients=provenance.patients,
        )
    return {
        "out": str(out.resolve()),
        "ledger_entry": entry,
        "network_calls": provenance.request.network_calls,
        "resumed_patients": pace.resumed,
        "patients_per_second": round(pace.patients_per_second, 1),
        **provenance.model_dump(mode="json"),
    }


def _of_words(given: Mapping[str, Any]) -> NotesRequest | None:
    """How words are drawn, if anything is said about it."""
    from synclave_server.sampling.request import NotesRequest

    settings = {name: value for name, value in given.items() if value is not None}
    try:
        return NotesRequest.model_validate(settings) if settings else None
    except ValidationError as error:
        raise ConfigurationError(
            expected="a temperature from 0 to 10, top_k from 0, top_p above 0 and at most 1",
            found=explain_validation(error),
            remedy="Correct the options.",
        ) from None


class _Pace:
    """A progress bar with patients per second and the time left, both of this run alone.

    Attributes:
        resumed: patients that an interrupted run had drawn.
    """

    def __init__(self, console: Console, patients: int) -> None:
        self._bar = Progress(
            TextColumn("patients"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("patients", total=patients, pace="")
        self._started: float | None = None
        self._seconds = 0.0
        self._done = 0
        self.resumed = 0

    def __enter__(self) -> _Pace:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._started is not None:
            self._seconds = time.monotonic() - self._started

    @property
    def patients_per_second(self) -> float:
        """Patients of this run per second since its models were asked for; 0 before the first."""
        return (self._done - self.resumed) / self._seconds if self._seconds else 0.0

    def report(self, done: int, patients: int) -> None:
        """Show how many patients are done; the first call says with how many this run begins."""
        if self._started is None:
            self._started, self.resumed = time.monotonic(), done
        self._done, self._seconds = done, time.monotonic() - self._started
        pace = self.patients_per_second
        left = f", {timedelta(seconds=round((patients - done) / pace))} left" if pace else ""
        self._bar.update(self._task, completed=done, pace=f"{pace:,.0f} per second{left}" if pace else "")
