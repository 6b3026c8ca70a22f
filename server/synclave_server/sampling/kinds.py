"""What sampling must know of a snapshot, for each kind of model that there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from synclave_server.sampling.cohort_formats import CODE_FORMATS, NOTES_FORMATS, SERIES_FORMATS, CohortFormat
from synclave_server.sampling.copula import CopulaGenerator
from synclave_server.sampling.generator import PatientGenerator
from synclave_server.sampling.note_rows import NOTE_BYTES
from synclave_server.sampling.notes import NotesGenerator, NotesSources
from synclave_server.sampling.request import SERIES_CORRUPTION, WORDS_CORRUPTION, Precision, SampleRequest
from synclave_server.sampling.rows import RowForm
from synclave_server.sampling.series import SeriesGenerator
from synclave_server.sampling.series_rows import row_bytes
from synclave_server.sampling.series_target import SeriesTarget
from synclave_server.snapshots import Snapshot
from synclave_shared.data.modality import AnySchema, schema_from_json
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import ConfigurationError, ProtocolError, SnapshotError
from synclave_shared.models.copula import copula_of_vector
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.note_base import find_base
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import CopulaSpec, ModelSpec, NotesSpec, SeriesSpec

__all__ = ["Generator", "SampledKind", "kind_of"]


class Generator(Protocol):
    """A trained model on one device."""

    @property
    def tile(self) -> int:
        """Patients that are drawn together."""
        ...

    def features(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Rows [n, W] of patients by their numbers and labels [n]; each depends on its own alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledKind:
    """One snapshot, as sampling sees it.

    Attributes:
        snapshot: the snapshot.
        schema: its schema.
        corruption: what the model was trained to undo, ``gaussian``, ``masked``, ``series`` or ``words``; None:
            nothing, as a copula.
        anchored: whether the model has prevalences, by which labels guide, columns are given and rows calibrated.
        form: of its rows.
        formats: in which a cohort can be written, by the name that a user types; the first is the default.
    """

    snapshot: Snapshot
    schema: AnySchema
    corruption: str | None
    anchored: bool
    form: RowForm
    formats: Mapping[str, CohortFormat]

    @property
    def is_of_notes(self) -> bool:
        """Whether it writes notes."""
        return isinstance(self.schema, NotesSchema)

    def check_target(self, target: Snapshot) -> None:
        """Refuse a clinical model that cannot guide this one.

        Raises:
            ConfigurationError: saying why.
        """
        if not isinstance(self.schema, SeriesSchema):
            raise ConfigurationError(
                expected="a model of time series, which a clinical model can guide",
                found=f"one of {self.schema.modality}",
                remedy="Leave --target away.",
            )
        SeriesTarget.of(target, self.schema.digest)

    def generator(
        self,
        device: torch.device | str,
        precision: Precision,
        target: Snapshot | None = None,
        sources: NotesSources | None = None,
    ) -> Generator:
        """The model on a device, what guides it, and what else notes are made of."""
        snapshot, spec = self.snapshot, self.snapshot.plan.model
        if isinstance(self.schema, NotesSchema):
            assert isinstance(spec, NotesSpec)  # noqa: S101 - the plan is of its schema's modality
            sources = sources or NotesSources()
            base = find_base(spec, () if sources.models is None else (sources.models,))
            return NotesGenerator(spec, self.schema, base, snapshot.model, device, precision, sources.cohort())
        if isinstance(self.schema, SeriesSchema):
            assert isinstance(spec, SeriesSpec)  # noqa: S101 - the plan is of its schema's modality
            layout = SeriesLayout.of(self.schema)
            aim = None if target is None else SeriesTarget.of(target, self.schema.digest)
            anchor = _series_anchor(snapshot, layout)
            return SeriesGenerator(spec, layout, snapshot.model, anchor, device, precision, aim)
        codes = CodeLayout.of(self.schema)
        if isinstance(spec, CopulaSpec):
            shares = np.ones(codes.label_values) if snapshot.label_shares is None else snapshot.label_shares
            return CopulaGenerator(copula_of_vector(snapshot.model, shares, codes), device)
        assert isinstance(spec, ModelSpec)  # noqa: S101 - likewise
        return PatientGenerator(spec, codes, snapshot.model, snapshot.anchor, device, precision, self.schema.columns)


def kind_of(snapshot: Snapshot) -> SampledKind:
    """What sampling must know of a snapshot.

    Raises:
        SnapshotError: if its anchor is not that of its schema.
    """
    schema = schema_from_json(snapshot.schema)
    if isinstance(schema, SeriesSchema):
        if not isinstance(snapshot.plan.model, SeriesSpec):
            raise SnapshotError(
                expected="the snapshot of a model that draws patients",
                found=f"one of model.kind = {snapshot.plan.model.kind}",
                remedy="Name the series model's snapshot; a clinical model goes behind --target.",
            )
        layout = SeriesLayout.of(schema)
        _series_anchor(snapshot, layout)
        return SampledKind(
            snapshot=snapshot,
            schema=schema,
            corruption=SERIES_CORRUPTION,
            anchored=False,
            form=RowForm(width=row_bytes(layout), binary=False),
            formats=SERIES_FORMATS,
        )
    if isinstance(schema, NotesSchema):
        return SampledKind(
            snapshot=snapshot,
            schema=schema,
            corruption=WORDS_CORRUPTION,
            anchored=False,
            form=RowForm(width=NOTE_BYTES, binary=False),
            formats=NOTES_FORMATS,
        )
    _check_code_anchor(snapshot, schema)
    spec = snapshot.plan.model
    return SampledKind(
        snapshot=snapshot,
        schema=schema,
        corruption=spec.corruption if isinstance(spec, ModelSpec) else None,
        anchored=snapshot.anchor is not None,
        form=RowForm(width=schema.width, binary=True),
        formats=CODE_FORMATS,
    )


def _check_code_anchor(snapshot: Snapshot, schema: Schema) -> None:
    shape = (len(schema.label.values), schema.width)
    if snapshot.anchor is not None and snapshot.anchor.shape != shape:
        raise SnapshotError(
            expected=f"an anchor of shape {shape}",
            found=str(snapshot.anchor.shape),
            remedy="Use the snapshot with the schema it was trained with.",
        )


def _series_anchor(snapshot: Snapshot, layout: SeriesLayout) -> SeriesAnchor:
    found = np.zeros(0, np.float32) if snapshot.anchor is None else snapshot.anchor
    try:
        return SeriesAnchor.from_vector(found, layout)
    except ProtocolError as error:
        raise SnapshotError(
            expected=error.expected,
            found=error.found,
            remedy="Use the snapshot with the schema it was trained with, after its first round.",
        ) from None
