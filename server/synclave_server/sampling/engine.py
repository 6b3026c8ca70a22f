"""From a snapshot to a file of synthetic patients: in bounded memory, resumable, on all of a machine.

Drawing is spread over workers (:mod:`synclave_server.sampling.workers`), which store finished row groups
(:mod:`synclave_server.sampling.cohort_writer`); meanwhile they are joined here, in the order of the patients' numbers,
by the writer of the format. Killed at any instant and called again, it ends with the same bytes as if nothing had
happened.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow
import torch
from numpy.typing import NDArray

from synclave_server.sampling.cohort_formats import CohortFormat, Write
from synclave_server.sampling.cohort_writer import ROW_GROUP_PATIENTS, PartStore, RowGroups, UnfinishedCohort, digest_of
from synclave_server.sampling.generator import WITHIN_BIN, PatientGenerator
from synclave_server.sampling.given import label_shares_given, read_given
from synclave_server.sampling.kinds import SampledKind, kind_of
from synclave_server.sampling.labels import LabelAssignment
from synclave_server.sampling.notes import NotesSources
from synclave_server.sampling.philox import PatientRandomness
from synclave_server.sampling.request import NotesRequest, Precision, SampleRequest, TargetBy, resolve_request
from synclave_server.sampling.rows import DrawnPatients
from synclave_server.sampling.workers import device_kind, draw, plan_jobs
from synclave_server.snapshots import Snapshot, read_snapshot
from synclave_shared.canonical import FrozenModel, canonical_bytes
from synclave_shared.data.fields import NumberField
from synclave_shared.data.modality import AnySchema
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import ConfigurationError
from synclave_shared.models.anchor import Anchor
from synclave_shared.models.layout import CodeLayout

__all__ = ["PatientGenerator", "Provenance", "sample"]

ALGORITHM: Final = 4
"""Counts the ways in which rows have been made of a request: parts of another way are not gone on with."""

JOINED_PER_STEP: Final = 2
"""Finished parts joined for each newly drawn one: workers do not wait until all those of an earlier run are joined."""


class Provenance(FrozenModel):
    """Where synthetic patients come from; written into the Parquet file and beside it.

    Attributes:
        snapshot_digest: SHA-256 of the model's tensors, the one that the ledger names.
        plan_digest, schema_digest: what the model was trained under.
        round: the training round of the snapshot.
        ledger_index: index of the ledger's entry for the snapshot.
        request: what was asked for.
        request_digest: SHA-256 of the request's canonical JSON.
        patients: number of synthetic patients.
        device: kind of device that drew them, ``cpu`` or ``cuda``; another kind rounds differently.
        file_digest: SHA-256 of the Parquet file, or over the files of a folder; only beside it.
    """

    snapshot_digest: str
    plan_digest: str
    schema_digest: str
    round: int
    ledger_index: int
    request: SampleRequest
    request_digest: str
    patients: int
    device: str
    file_digest: str = ""


def sample(
    snapshot_dir: Path,
    patients: int,
    *,
    out: Path,
    label_counts: Mapping[str, int] | None = None,
    given: Sequence[str] = (),
    sampler: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    guidance: Decimal = Decimal(0),
    classifier_guidance: Decimal = Decimal(0),
    precision: Precision = "float32",
    calibrated: bool = True,
    target: Path | None = None,
    target_by: TargetBy = "influence",
    target_strength: Decimal = Decimal(0),
    target_curvature: bool = False,
    notes: NotesRequest | None = None,
    sources: NotesSources | None = None,
    cohort_format: str = "parquet",
    batch_size: int = 256,
    devices: Sequence[str] = ("cpu",),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Provenance:
    """Draw synthetic patients and write them to ``out``, with ``OUT.provenance.json`` beside it.

    Interrupted, it leaves its finished parts in ``OUT.unfinished``; the same call goes on from there.

    Args:
        snapshot_dir: a snapshot folder.
        patients: how many.
        out: the Parquet file; it is there complete afterwards, or as it was.
        label_counts: exact counts by label value; None: by the privately measured shares.
        given: columns that every patient has, or with ``=0`` has not; see :func:`read_given`.
        sampler: one of :func:`synclave_server.sampling.request.samplers_of`; None: the recommended one. A copula has no
            choice, and takes no steps, guidance, precision or given columns.
        steps: noise levels visited; None: :data:`synclave_server.sampling.request.DEFAULT_STEPS`.
        seed: fixes all randomness.
        guidance: weight of classifier-free guidance.
        classifier_guidance: strength of guidance by the anchor's noise-aware classifier.
        precision: of the network.
        calibrated: whether prevalences are brought back to the anchor's; False is for codes alone.
        target: for time series, snapshot folder of the clinical model that patients are made useful to.
        target_by: how it guides.
        target_strength: how far.
        target_curvature: whether by the step that synthetic patients lack.
        notes: for notes, how words are drawn; None: the defaults.
        sources: for notes, where a published base and a cohort of codes are; of such a cohort come seed and, where the
            label is the same, label counts, so that patients of one number agree. The last setting that changes rows.
        cohort_format: one of :data:`synclave_server.sampling.cohort_formats.FORMATS`, as the modality has it.
        batch_size: patients whose progress is reported together.
        devices: torch devices of one kind that share the work.
        workers: processes; None: chosen for the machine. One works in this process.
        progress: called with (patients done, patients in all), at first with what an interrupted run had done.

    Returns:
        The provenance, the file's digest included.

    Raises:
        ConfigurationError: if the request cannot be fulfilled, or another one was begun in ``out``.
        SamplingError: if a worker fails.
        SnapshotError: if the snapshot is damaged.
    """
    snapshot = read_snapshot(snapshot_dir)
    kind = kind_of(snapshot)
    schema = kind.schema
    writer_format = _format(cohort_format, kind)
    fixed, shares = _given(kind, given, classifier_guidance, calibrated)
    aim = None if target is None else read_snapshot(target)
    if aim is not None:
        kind.check_target(aim)
    if kind.is_of_notes:
        notes, seed, label_counts = _about(sources, notes or NotesRequest(), kind, patients, seed, label_counts)
    request = resolve_request(
        patients=patients,
        label_counts=label_counts,
        label_values=schema.label.values,
        label_shares=shares,
        given=fixed,
        corruption=kind.corruption,
        anchored=kind.anchored,
        sampler=sampler,
        steps=steps,
        seed=seed,
        guidance=guidance,
        classifier_guidance=classifier_guidance,
        precision=precision,
        calibrated=calibrated,
        target=None if aim is None else aim.record.tensors_digest,
        target_by=target_by,
        target_strength=target_strength,
        target_curvature=target_curvature,
        notes=notes,
    )
    if batch_size < 1:
        raise ConfigurationError(
            expected="a batch of at least one patient", found=str(batch_size), remedy="Correct the request."
        )
    provenance = _provenance(snapshot, request, device_kind(devices))
    groups = RowGroups.of(patients, kind.form.width, ROW_GROUP_PATIENTS)
    identity = _identity(provenance, cohort_format, groups)
    with UnfinishedCohort.open(out, writer_format, identity, form=kind.form, groups=groups) as unfinished:
        jobs = plan_jobs(
            snapshot_dir,
            snapshot.record.tensors_digest,
            request,
            unfinished.parts,
            target_dir=target,
            sources=sources,
            devices=devices,
            workers=workers,
            batch_size=batch_size,
        )
        finished = set(unfinished.parts.finished())
        missing = [group for group in range(len(groups)) if group not in finished]
        done = sum(groups.count(group) for group in finished)
        unfinished.discard_joined()
        with (
            writer_format.writer(unfinished.joined, schema, _notes(schema, provenance)) as write,
            closing(draw(jobs, snapshot, missing)) as steps_ahead,
        ):
            joiner = _Joiner(unfinished.parts, request, write, schema)
            _report(progress, done, patients)
            for step in steps_ahead:
                if step.patients:
                    done += step.patients
                    _report(progress, done, patients)
                if step.group is not None:
                    finished.add(step.group)
                    joiner.join(finished, JOINED_PER_STEP)
            joiner.join(finished, len(groups))
        complete = provenance.model_copy(update={"file_digest": digest_of(unfinished.joined)})
        unfinished.publish(canonical_bytes(complete))
        return complete


class _Joiner:
    """Hands parts to a writer in their order, as soon as they are finished."""

    def __init__(self, parts: PartStore, request: SampleRequest, write: Write, schema: AnySchema) -> None:
        self._parts, self._write = parts, write
        self._labels = LabelAssignment(list(request.label_counts.values()), int(request.seed))
        self._randomness = PatientRandomness(int(request.seed))
        self._number_fields = sum(isinstance(field, NumberField) for field in schema.fields)
        self._next = 0

    def join(self, finished: Container[int], limit: int) -> None:
        """Write at most ``limit`` parts that are next in order and finished."""
        for _ in range(limit):
            if self._next not in finished:
                return
            numbers = self._parts.groups.numbers(self._next)
            # From the patient's own random numbers: it matters neither who draws it nor when.
            within = self._randomness.uniform(torch.from_numpy(numbers), self._number_fields, WITHIN_BIN).numpy()
            rows, labels = self._parts.read(self._next), self._labels.of(numbers)
            self._write(DrawnPatients(rows=rows, labels=labels, numbers=numbers, within=within))
            self._next += 1


def _report(progress: Callable[[int, int], None] | None, done: int, patients: int) -> None:
    if progress is not None:
        progress(done, patients)


def _format(name: str, kind: SampledKind) -> CohortFormat:
    if name not in kind.formats:
        raise ConfigurationError(
            expected=f"a format of {', '.join(kind.formats)} for a cohort of {kind.schema.modality}",
            found=name,
            remedy="Choose one of the formats.",
        )
    return kind.formats[name]


def _given(
    kind: SampledKind, given: Sequence[str], classifier_guidance: Decimal, calibrated: bool
) -> tuple[dict[str, int], NDArray[np.floating] | None]:
    """The columns that are fixed, and the label values' shares among such patients."""
    snapshot, schema = kind.snapshot, kind.schema
    if isinstance(schema, SeriesSchema | NotesSchema):
        asked = {
            "--given": bool(given),
            "--classifier-guidance": bool(classifier_guidance),
            "--uncalibrated": not calibrated,
        }
        found = [option for option, is_asked in asked.items() if is_asked]
        if found:
            raise ConfigurationError(
                expected=f"no option that is for codes alone: the model is one of {schema.modality}",
                found=", ".join(found),
                remedy="Leave it away.",
            )
        return {}, snapshot.label_shares
    fixed = read_given(given, schema)
    if not fixed or snapshot.label_shares is None or snapshot.anchor is None:
        return fixed, snapshot.label_shares
    anchor = Anchor(logits=snapshot.anchor, label_shares=snapshot.label_shares.astype(np.float64))
    return fixed, label_shares_given(anchor, CodeLayout.of(schema), schema.columns, fixed)


def _about(
    sources: NotesSources | None,
    notes: NotesRequest,
    kind: SampledKind,
    patients: int,
    seed: int,
    label_counts: Mapping[str, int] | None,
) -> tuple[NotesRequest, int, Mapping[str, int] | None]:
    """The request, seed and label counts of notes about a cohort of codes; without one, as they are."""
    if sources is None or sources.codes is None:
        return notes, seed, label_counts
    cohort = sources.cohort()
    if cohort is None or len(cohort) < patients:
        raise ConfigurationError(
            expected=f"--codes with a cohort of at least {patients} patients, and --codes-schema",
            found="no schema" if cohort is None else f"{len(cohort)} patients",
            remedy="Draw more patients of codes, or ask for fewer notes.",
        )
    counts, label = cohort.request["label_counts"], kind.schema.label
    same = (cohort.schema.label.name, tuple(counts)) == (label.name, label.values)
    if label_counts is not None or len(cohort) > patients or not same:
        # Other labels than the patients of codes have: their order is then of no meaning.
        return notes.model_copy(update={"codes": digest_of(sources.codes)}), seed, label_counts
    return notes.model_copy(update={"codes": digest_of(sources.codes)}), int(cohort.request["seed"]), counts


def _provenance(snapshot: Snapshot, request: SampleRequest, device: str) -> Provenance:
    return Provenance(
        snapshot_digest=snapshot.record.tensors_digest,
        plan_digest=snapshot.record.plan_digest,
        schema_digest=snapshot.record.schema_digest,
        round=snapshot.record.round,
        ledger_index=snapshot.record.ledger_index,
        request=request,
        request_digest=request.digest,
        patients=request.patients,
        device=device,
    )


def _identity(provenance: Provenance, cohort_format: str, groups: RowGroups) -> dict[str, Any]:
    """Everything that the bytes of the output depend on."""
    return {
        **provenance.model_dump(mode="json"),
        "format": cohort_format,
        "row_group_patients": groups.size,
        "algorithm": ALGORITHM,
        "torch": torch.__version__,
        "pyarrow": pyarrow.__version__,
    }


def _notes(schema: AnySchema, provenance: Provenance) -> dict[str, str]:
    return {
        "synclave.schema": schema.name,
        "synclave.schema_digest": schema.digest,
        "synclave.provenance": canonical_bytes(provenance).decode(),
    }
