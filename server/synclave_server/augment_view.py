"""``synclave augment``: real patients and a snapshot in, a training set and what it is worth out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_server.augmentation.gains import Addition, gain_curves
from synclave_server.augmentation.mixture import added_counts, check_alphas, entering, rarest, read_shares
from synclave_server.augmentation.patients import Patients, PatientsOfKind, of_codes, of_series
from synclave_server.augmentation.report import document, render_page
from synclave_server.augmentation.training_set import write_training_set
from synclave_server.evaluate_view import joined
from synclave_server.evaluation.document import Progress, check_labels, publish
from synclave_server.sampling.engine import Provenance, sample
from synclave_server.sampling.kinds import kind_of
from synclave_server.sampling.rows import synthetic_id
from synclave_server.snapshots import read_snapshot
from synclave_shared.canonical import canonical_bytes
from synclave_shared.data.modality import AnySchema
from synclave_shared.data.new_folder import new_folder
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import ConfigurationError, DataError
from synclave_shared.processes import stop_on_signals

__all__ = ["draw_augmentation", "run_augmentation"]


def run_augmentation(
    snapshot: Path,
    train: Sequence[Path],
    held_out: Sequence[Path],
    *,
    out: Path,
    labels: Sequence[str],
    alphas: Sequence[float],
    draws: int,
    target: Path | None,
    target_strength: Decimal,
    device: str,
    seed: int,
    console: Console,
) -> dict[str, Any]:
    """Draw, measure, write the new folder ``out``; returns paths and measures.

    Args:
        snapshot: of the model that synthetic patients are drawn from; it knows the schema.
        train: real training patients, files or folders.
        held_out: other real patients.
        out: must not exist.
        labels: ``NAME=VALUE[:SHARE]`` of the added patients; none: all of them of the rarest label.
        alphas: synthetic patients per real one.
        draws: how often patients are drawn and classifiers trained; the training set is the first one's.
        target: for time series, snapshot of an influence vector that patients are drawn towards.
        target_strength: how far.
        device: torch device that draws.
        seed: fixes all randomness; a later draw has the next one.
        console: for progress.

    Raises:
        ConfigurationError: if a request cannot be fulfilled, or ``out`` exists.
        DataError: if patients cannot be read, or somebody is in two places.
        SnapshotError: if a snapshot is damaged, or draws no patients.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; nothing is left behind.
    """
    schema = kind_of(read_snapshot(snapshot)).schema
    request = _Request(
        snapshot=snapshot,
        train=train,
        held_out=held_out,
        out=out,
        shares=read_shares(labels, schema.label.name, schema.label.values) if labels else None,
        alphas=check_alphas(alphas),
        draws=draws,
        target=target,
        target_strength=target_strength,
        device=device,
        seed=seed,
    )
    with stop_on_signals(), console.status("reading") as status:

        def told(stage: str) -> None:
            status.update(escape(stage))

        if isinstance(schema, SeriesSchema):
            return _augmented(request, schema, of_series(schema), told)
        if isinstance(schema, NotesSchema):
            raise ConfigurationError(
                expected="a snapshot that draws codes or time series",
                found="one of notes",
                remedy="Draw notes with `synclave sample` and add them yourself.",
            )
        return _augmented(request, schema, of_codes(schema), told)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The arguments of :func:`run_augmentation`, read: label shares of the added patients [L], and rising alphas."""

    snapshot: Path
    train: Sequence[Path]
    held_out: Sequence[Path]
    out: Path
    shares: NDArray[np.float64] | None
    alphas: tuple[float, ...]
    draws: int
    target: Path | None
    target_strength: Decimal
    device: str
    seed: int

    def draw(
        self, kind: PatientsOfKind[Patients], counts: Mapping[str, int], number: int, folder: Path, told: Progress
    ) -> tuple[Patients, Provenance]:
        """The patients of a draw by its number; ``folder`` is where they may lie meanwhile."""
        with TemporaryDirectory(dir=folder) as place:
            path = Path(place) / ("cohort" if kind.folder else "cohort.parquet")
            provenance = sample(
                self.snapshot,
                sum(counts.values()),
                out=path,
                label_counts=counts,
                seed=self.seed + number,
                target=self.target,
                target_strength=self.target_strength,
                devices=[self.device],
                progress=lambda done, size: told(f"draw {number + 1} of {self.draws}: {done:,} of {size:,} patients"),
            )
            return kind.load(path), provenance


def _augmented(request: _Request, schema: AnySchema, kind: PatientsOfKind[Patients], told: Progress) -> dict[str, Any]:
    out, alphas, seed, values = request.out, request.alphas, request.seed, schema.label.values
    real = joined(kind.join, [kind.load(path) for path in request.train])
    others = joined(kind.join, [kind.load(path) for path in request.held_out])
    check_labels(schema, "training", real, 1)
    check_labels(schema, "held-out", others, 1)
    _check_apart(real, others)
    wanted = np.eye(len(values))[rarest(real.labels, len(values))] if request.shares is None else request.shares
    counts = added_counts(alphas, len(real), wanted)
    if not counts[-1].sum():
        raise DataError(
            expected=f"enough training patients for an alpha of {alphas[-1]:g}",
            found=str(len(real)),
            remedy="Give more of them, or a larger --alpha.",
        )
    _check_names(real, int(counts[-1].sum()))
    of_label = dict(zip(values, counts[-1].tolist(), strict=True))
    with new_folder(out) as folder:
        drawn = [request.draw(kind, of_label, number, folder, told) for number in range(request.draws)]
        first, provenance = drawn[0]
        additions = [
            Addition(patients=kind.table(patients), entering=entering(patients.labels, counts)) for patients, _ in drawn
        ]
        curves = gain_curves(
            kind.table(real), kind.table(others), additions, alphas, values, seed, told, kind.models, kind.keys
        )
        told("training set and report")
        written = write_training_set(
            folder,
            schema,
            kind,
            real,
            first,
            np.array(alphas)[additions[0].entering],
            seed=seed,
            notes={
                "synclave.schema": schema.name,
                "synclave.schema_digest": schema.digest,
                "synclave.added": canonical_bytes(provenance).decode(),
            },
        )
        metrics = document(
            schema,
            curves,
            patients=[
                np.bincount(each, minlength=len(values)).tolist() for each in (real.labels, others.labels, first.labels)
            ],
            alphas=alphas,
            draws=request.draws,
            seed=seed,
            sampling=provenance.model_dump(mode="json"),
        )
        publish(folder, metrics, render_page(schema, metrics, curves))
    return {
        "training_set": str((out / written.name).resolve()),
        "report": str((out / "report.html").resolve()),
        "metrics": str((out / "metrics.json").resolve()),
        "label": schema.label.name,
        "patients": metrics["patients"],
        "curves": metrics["curves"],
    }


def _check_apart(real: Patients, held_out: Patients) -> None:
    both = set(real.patient_ids) & set(held_out.patient_ids)
    if both:
        raise DataError(
            expected="held-out patients who are not among the training patients",
            found=f"{len(both)} identifiers that are in both",
            remedy="Split by patient; make identifiers distinct where hospitals number their patients alike.",
        )


def _check_names(real: Patients, added: int) -> None:
    both = set(real.patient_ids) & {synthetic_id(number) for number in range(added)}
    if both:
        raise DataError(
            expected="real training patients alone",
            found=f"{len(both)} with the identifier of a synthetic patient",
            remedy="Give the real patients without the synthetic ones of an earlier training set.",
        )


def draw_augmentation(result: Mapping[str, Any], console: Console) -> None:
    """AUPRC by alpha as a table, and what to open."""
    table = Table(
        title="AUPRC on held-out real patients, mean over draws (gain over the real patients alone)",
        title_justify="left",
    )
    table.add_column("alpha", justify="right")
    columns = []
    for curve in result["curves"]:
        for kind, name in (("synthetic", "synthetic"), ("repeated", "real again")):
            heading = f"{result['label']} = {curve['value']}: {curve['model']}, {name}"
            table.add_column(escape(heading), justify="right")
            columns.append([_cell(point) for point in curve[kind]])
    for row, point in enumerate(result["curves"][0]["synthetic"]):
        table.add_row(f"{point['alpha']:g}", *(column[row] for column in columns))
    console.print(table)
    console.print(f"Training set, with real patients in it: {escape(result['training_set'])}", soft_wrap=True)
    console.print(f"Open {escape(result['report'])}", soft_wrap=True, highlight=False)


def _cell(point: Mapping[str, Any]) -> str:
    if point["reason"]:
        return "not defined"
    area = point["measures"]["auprc"]
    # No negative zero.
    gain = "" if area["gain"] is None else f" ({round(area['gain']['value'], 3) + 0.0:+.3f})"
    return f"{area['mean']:.3f}{gain}"
