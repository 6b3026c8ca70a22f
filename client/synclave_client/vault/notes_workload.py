"""The notes and their language model of one site, loaded once and kept warm between rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.settings import SiteSettings
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.notes import notes_spec, train_notes_round
from synclave_client.training.private import SelfTestReport
from synclave_client.training.rehearsal import rehearse_notes
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.shared_patients import with_shares
from synclave_client.vault.workload import check_device, check_size, check_start, report_self_test
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

    from synclave_shared.data.notes.dataset import NotesDataset
    from synclave_shared.plan import TrainPlan

__all__ = ["NotesWorkload"]


class NotesWorkload:
    """Private training on the site's notes; see :class:`synclave_client.vault.session.Workload`.

    Args:
        site_name: the site's name in plans.
        device: torch device.
        schema: the installed schema.
        dataset: its patients, with identifiers; they are masked here.
        models_folder: where published language models lie; None: the embedded one alone can be trained.
        rules: the site's own, for its detector of identifiers.
        performance: how to compute; changes cost only.
        rehearsals: shares the self-test within a simulation; None: it is made for every plan.
        conformance: where it is kept what each round really did; None: nowhere, and nothing is judged.
    """

    def __init__(
        self,
        *,
        site_name: str,
        device: str,
        schema: NotesSchema,
        dataset: NotesDataset,
        models_folder: Path | None = None,
        rules: Rules | None = None,
        performance: Performance | None = None,
        rehearsals: Rehearsals | None = None,
        conformance: ConformanceFolder | None = None,
    ) -> None:
        self._site_name, self._device, self._schema = site_name, device, schema
        self._dataset = dataset.masked(masker(site_detector(schema.notes.language, rules)))
        self._folders = () if models_folder is None else (models_folder,)
        self._performance = performance or Performance()
        self._rehearsals = rehearsals
        self._conformance = conformance
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
        return cls(
            site_name=settings.name,
            device=settings.device,
            schema=schema,
            dataset=with_shares(load_notes(schema, settings.data_folder), settings.shared_patients),
            models_folder=settings.models_folder,
            rules=rules,
            performance=settings.performance,
            rehearsals=rehearsals,
            conformance=ConformanceFolder(settings.conformance_folder),
        )

    @property
    def schema_digest(self) -> str:
        """Digest of the installed schema."""
        return self._schema.digest

    @property
    def patient_ids(self) -> list[str]:
        """Identifiers of the patients, as the data have them."""
        return self._dataset.patient_ids

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

    def check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        """Refuse a payload that the round cannot work with, before anything is spent on it.

        Raises:
            ProtocolError: if the model has another size or is not finite, or the first one is another than the plan
                says.
            PolicyRefusal: if the plan's language model is no longer here.
            NotConforming: if an earlier round of the plan did not do what the plan says.
        """
        if self._conformance is not None:
            self._conformance.require_conforming(plan)
        spec = notes_spec(plan)
        self._base(spec)
        decode_model(payload, spec.parameter_count())
        check_start(plan, round_number, payload)

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        """Run the round's mechanism with fresh randomness of the operating system.

        Returns:
            The model's update [P]; fixed point, noised.

        Raises:
            NotConforming: if the round did not do what the plan says, by what was seen of it.
        """
        spec = notes_spec(plan)
        base, chunks = self._prepared(spec)
        watch = RoundWatch(plan.mechanism(round_number), len(chunks))
        released = train_notes_round(
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
        if self._conformance is not None:
            self._conformance.conclude(plan, round_number, watch)
        return released

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
    return rehearse() if rehearsals is None else rehearsals.passed(subject, rehearse)
