"""The workload of notes: masked once, and cut into chunks with the first plan that names a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.settings import SiteSettings
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.notes import notes_spec, train_notes_round
from synclave_client.training.private import SelfTestReport
from synclave_client.training.rehearsal import rehearse_notes
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.site_workload import (
    SiteWorkload,
    check_device,
    check_size,
    check_start,
    rehearsed,
    report_self_test,
)
from synclave_shared.data.notes.dataset import NotesDataset
from synclave_shared.data.notes.reading import load_notes
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.errors import PlanError, PolicyRefusal
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import LoadedBase, find_base
from synclave_shared.protocol import decode_model
from synclave_shared.text.chunks import NoteChunks, encode_notes
from synclave_shared.text.masking import masker, site_detector
from synclave_shared.text.phi import Rules, read_rules

if TYPE_CHECKING:
    from pathlib import Path

    from synclave_shared.plan import TrainPlan

__all__ = ["NotesWorkload"]


class NotesWorkload(SiteWorkload[NotesSchema, NotesDataset]):
    """Private training on the patients' notes.

    Args:
        schema: the installed schema.
        dataset: its patients, with identifiers; they are masked here.
        models_folder: where published language models lie; None: the embedded one alone can be trained.
        rules: the site's own, for its detector of identifiers.
        more: as :class:`SiteWorkload` takes it.
    """

    def __init__(
        self,
        *,
        schema: NotesSchema,
        dataset: NotesDataset,
        models_folder: Path | None = None,
        rules: Rules | None = None,
        **more: Any,
    ) -> None:
        masked = dataset.masked(masker(site_detector(schema.notes.language, rules)))
        super().__init__(schema=schema, dataset=masked, **more)
        self._folders = () if models_folder is None else (models_folder,)
        self._kept: tuple[NotesSpec, LoadedBase, NoteChunks] | None = None

    @classmethod
    def load(cls, settings: SiteSettings, rehearsals: Rehearsals | None = None) -> NotesWorkload:
        """Read the schema, prove the clipping on invented patients, and only then read the data.

        Raises:
            ConfigurationError: if the device is not there, or the rules cannot be used.
            SchemaError: if the schema cannot be used.
            ClippingError: if this machine does not bound gradients per patient as it must.
            DataError: if the data do not fit it; the error lists every fault. Or if ``shared_patients`` does not.
        """
        check_device(settings.device)
        schema = NotesSchema.load(settings.schema_file)
        rules = None if settings.rules_file is None else read_rules(settings.rules_file)
        spec = NotesSpec()
        report = _rehearsed(rehearsals, schema, spec, find_base(spec), settings.performance, settings.device)
        report_self_test(settings, report)
        return cls._of(
            settings,
            schema,
            load_notes(schema, settings.data_folder),
            rehearsals,
            models_folder=settings.models_folder,
            rules=rules,
        )

    def check_model(self, plan: TrainPlan) -> None:
        """Refuse a plan whose model cannot be clipped here, before it is accepted. Touches no data.

        Raises:
            ClippingError: naming the layer, or the size of a model whose release could not travel.
            PlanError: if the plan is for another modality.
            PolicyRefusal: if its language model is not here, or another one.
        """
        spec = notes_spec(plan)
        check_size(spec.parameter_count())
        _rehearsed(self._rehearsals, self._schema, spec, self._base(spec), self._performance, self._device)

    def _check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        spec = notes_spec(plan)
        self._base(spec)
        decode_model(payload, spec.parameter_count())
        check_start(plan, round_number, payload)

    def _release(self, plan: TrainPlan, round_number: int, payload: bytes, watch: RoundWatch) -> NDArray[np.int64]:
        spec = notes_spec(plan)
        base, chunks = self._prepared(spec)
        return train_notes_round(
            plan,
            self._site_name,
            chunks,
            base,
            decode_model(payload, spec.parameter_count()),
            self._device,
            SecretRandomness.from_os(),
            self._performance,
            watch,
        )

    def _prepared(self, spec: NotesSpec) -> tuple[LoadedBase, NoteChunks]:
        """Base and chunks of a plan, kept from round to round."""
        if self._kept is None or self._kept[0] != spec:
            base = self._base(spec)
            self._kept = spec, base, encode_notes(self._dataset, self._schema, base.tokenizer)
        return self._kept[1], self._kept[2]

    def _base(self, spec: NotesSpec) -> LoadedBase:
        if self._kept is not None and self._kept[0] == spec:
            return self._kept[1]
        try:
            return find_base(spec, self._folders)
        except PlanError as error:
            raise PolicyRefusal("model-not-installed", found=error.found, remedy=error.remedy) from error


def _rehearsed(
    rehearsals: Rehearsals | None,
    schema: NotesSchema,
    spec: NotesSpec,
    base: LoadedBase,
    performance: Performance,
    device: str,
) -> SelfTestReport:
    def rehearse() -> SelfTestReport:
        return rehearse_notes(schema.notes.tokens, spec, base, performance, device)

    subject = (schema.notes.tokens, spec, base.digest, performance, device)
    return rehearsed(rehearsals, subject, rehearse)
