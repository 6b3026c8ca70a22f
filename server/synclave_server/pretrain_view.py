"""``synclave pretrain``: public or synthetic patients in, a model out, and what a person sees meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from synclave_server.preparation import looked_up
from synclave_shared import __version__
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.modality import AnySchema, load_schema
from synclave_shared.data.new_folder import new_folder
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import ConfigurationError
from synclave_shared.plan import ClassifierSpec, ModelSpec, NotesSpec, explain_validation
from synclave_shared.protocol import encode_model

if TYPE_CHECKING:
    from synclave_server.pretraining import Precision, PretrainedModel

__all__ = ["run_pretrain"]

STEPS: Final = {"codes": 4000, "series": 600, "notes": 2000}
"""Optimiser steps that suit a generator of codes, a clinical model of series, and a language model of notes."""

BATCHES: Final = {"notes": 32}
"""Patients of a step, where they are not 512."""

LINES: Final = 20
"""Where no bar can move, so many lines tell of the training."""


def run_pretrain(
    schema_path: Path,
    data: Path,
    *,
    out: Path,
    network: Mapping[str, Any],
    steps: int | None,
    batch_size: int | None,
    seed: int,
    device: str,
    precision: Precision,
    console: Console,
) -> dict[str, Any]:
    """Train a model on public patients, a clinical one perhaps on synthetic ones, and store it.

    Args:
        schema_path: schema file.
        data: the patients: a folder of tables or one file.
        out: new folder for the model.
        network: settings of the model, by their names in a plan; None: the default.
        steps: of the training; None: what suits the model.
        batch_size: patients of a step; None: what suits the modality.
        seed: of all randomness.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the network.
        console: where to show progress.

    Returns:
        The model's folder, record, digest, last loss and pace.

    Raises:
        ConfigurationError: if ``out`` is there already, or the device or the settings cannot be used.
        DataError: if the data do not fit the schema, or patients are marked as real.
        SchemaError: if the schema cannot be used.
    """
    import numpy as np
    import torch

    from synclave_server.public_model import write_public_model
    from synclave_server.sampling.workers import device_kind
    from synclave_shared.models.stored.public_model import PublicTraining

    schema = load_schema(schema_path)
    spec = _spec(schema, network)
    steps, batch_size = steps or STEPS[schema.modality], batch_size or BATCHES.get(schema.modality, 512)
    kind = device_kind([device])
    with new_folder(out) as unfinished, _pace(console, steps) as pace:
        settings: dict[str, Any] = {
            "steps": steps,
            "batch_size": batch_size,
            "seed": seed,
            "device": device,
            "precision": precision,
            "progress": pace.report,
        }
        patients, model = _trained(schema, data, spec, settings, console)
        files = sorted(path.name for path in data.iterdir() if path.is_file()) if data.is_dir() else [data.name]
        training = PublicTraining(
            patients=patients,
            files=tuple(files),
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            precision=precision,
            device=kind,
            versions={"synclave": __version__, "torch": torch.__version__, "numpy": np.__version__},
        )
        record = write_public_model(unfinished, schema, spec, model, training)
    return {
        "out": str(out.resolve()),
        "parameters": model.parameters.size,
        "parameters_digest": sha256_hex(encode_model(model.parameters)),
        "loss": round(pace.loss, 4),
        "steps_per_second": round(pace.steps_per_second, 2),
        **record.model_dump(mode="json"),
    }


def _spec(schema: AnySchema, network: Mapping[str, Any]) -> ModelSpec | ClassifierSpec | NotesSpec:
    """The model that a schema's modality calls for, with the settings given."""
    given = {name: value for name, value in network.items() if value is not None}
    try:
        if isinstance(schema, SeriesSchema):
            clinical = looked_up(ClassifierSpec.model_validate(given), schema)
            assert isinstance(clinical, ClassifierSpec)  # noqa: S101 - only what is installed was added
            return clinical
        if isinstance(schema, NotesSchema):
            language = looked_up(NotesSpec.model_validate(given), schema)
            assert isinstance(language, NotesSpec)  # noqa: S101 - likewise
            return language
        spec = ModelSpec.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(
            expected=f"settings of a model for the modality {schema.modality}",
            found=explain_validation(error),
            remedy="Correct the options named; docs/commands.md says which belong to which modality.",
        ) from None
    if 0 < spec.coupled_columns < schema.width:
        raise ConfigurationError(
            expected=f"couplings of all {schema.width} columns or of none: of fewer, each plan's own prevalences choose"
            " which",
            found=f"coupled_columns = {spec.coupled_columns}",
            remedy="Use --coupled-columns 0 with --width, or couple all columns.",
        )
    return spec


def _trained(
    schema: AnySchema,
    data: Path,
    spec: ModelSpec | ClassifierSpec | NotesSpec,
    settings: Mapping[str, Any],
    console: Console,
) -> tuple[int, PretrainedModel]:
    """Number of patients, and what was learnt of them; those marked as real are refused, public ones have no mark."""
    if isinstance(schema, SeriesSchema):
        from synclave_server.clinical_pretraining import label_counts, pretrain_classifier
        from synclave_server.evaluation.downstream import MINIMUM_PER_CLASS
        from synclave_shared.data.series.reading import load_series

        assert isinstance(spec, ClassifierSpec)  # noqa: S101 - of the schema's modality
        courses = load_series(schema, data, "synthetic")
        for value, patients in label_counts(schema, courses).items():
            if 0 < patients < MINIMUM_PER_CLASS:
                what = escape(f"{schema.label.name} = {value}")
                console.print(f"Only {patients} patients with {what}: little can be learnt of so few.", soft_wrap=True)
        return len(courses), pretrain_classifier(schema, courses, spec, **settings)
    if isinstance(schema, NotesSchema):
        from synclave_server.notes_pretraining import pretrain_notes
        from synclave_shared.data.notes.reading import load_notes
        from synclave_shared.models.note_base import find_base

        assert isinstance(spec, NotesSpec)  # noqa: S101 - likewise
        notes = load_notes(schema, data, "synthetic")
        return len(notes), pretrain_notes(schema, notes, spec, find_base(spec), **settings)
    from synclave_server.pretraining import pretrain
    from synclave_shared.data.tables import load_patients

    assert isinstance(spec, ModelSpec)  # noqa: S101 - likewise
    dataset = load_patients(schema, data, "synthetic")
    return len(dataset), pretrain(schema, dataset, spec, **settings)


@dataclass
class _Pace:
    """How far a training is, how well it does and how fast it goes.

    Attributes:
        steps: in all.
        show: called with the steps done and a line of text.
        loss: the last that was told, in nats per patient.
    """

    steps: int
    show: Callable[[int, str], None]
    loss: float = float("nan")
    steps_per_second: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def report(self, done: int, loss: float) -> None:
        """See :func:`synclave_server.pretraining.pretrain`."""
        self.loss, self.steps_per_second = loss, done / (time.monotonic() - self._started)
        left = timedelta(seconds=round((self.steps - done) / self.steps_per_second))
        self.show(done, f"loss {loss:.3f} nats, {self.steps_per_second:.1f} steps per second, {left} left")


@contextmanager
def _pace(console: Console, steps: int) -> Iterator[_Pace]:
    """A bar that moves on a terminal, a few lines elsewhere."""
    if not console.is_terminal:
        due = 0

        def line(done: int, text: str) -> None:
            nonlocal due
            if done >= due or done == steps:
                console.print(f"step {done} of {steps}: {text}", soft_wrap=True, highlight=False)
                due = done + steps // LINES

        yield _Pace(steps, line)
        return
    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps)
        yield _Pace(steps, lambda done, text: bar.update(task, completed=done, description=text))
