"""The workload of codes, values and categories."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.settings import SiteSettings
from synclave_client.training.codes import code_model, train_round, trained_codes
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.marginals import release_marginals
from synclave_client.training.moments import release_moments
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.private import SelfTestReport
from synclave_client.training.rehearsal import rehearse
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.site_workload import (
    SiteWorkload,
    check_device,
    check_size,
    check_start,
    rehearsed,
    report_self_test,
    require_nothing,
)
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import load_patients
from synclave_shared.errors import PlanError
from synclave_shared.model_size import parameters_of
from synclave_shared.models.anchor import Anchor, anchor_of_payload, anchor_payload_size
from synclave_shared.models.codes import model_payload_size, split_payload
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import ModelSpec, TrainPlan
from synclave_shared.protocol import VALUE_BYTES, decode_model

__all__ = ["PatientWorkload"]


class PatientWorkload(SiteWorkload[Schema, PatientDataset]):
    """Private training on what patients have of codes, values and categories."""

    @classmethod
    def load(cls, settings: SiteSettings, rehearsals: Rehearsals | None = None) -> PatientWorkload:
        """Read the schema, prove the clipping on invented patients, and only then read the data.

        Args:
            settings: the site's.
            rehearsals: shared by simulated sites of one process.

        Raises:
            ConfigurationError: if the device is not there. Found out here, since a round that fails later is spent.
            SchemaError: if the schema cannot be used.
            ClippingError: if this machine does not bound gradients per patient as it must.
            DataError: if the data do not fit it; the error lists every fault. Or if ``shared_patients`` does not.
        """
        check_device(settings.device)
        schema = Schema.load(settings.schema_file)
        report_self_test(settings, _rehearsed(rehearsals, schema, ModelSpec(), settings.performance, settings.device))
        return cls._of(settings, schema, load_patients(schema, settings.data_folder), rehearsals)

    def check_model(self, plan: TrainPlan) -> None:
        """Refuse a plan whose model cannot be clipped here, before it is accepted. Touches no data.

        Raises:
            ClippingError: naming the layer, or the size of a model whose release could not travel.
        """
        model = code_model(plan)
        check_size(parameters_of(model, self._schema))
        if isinstance(model, ModelSpec):
            _rehearsed(self._rehearsals, self._schema, model, self._performance, self._device)

    def _check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        match plan.round_kind(round_number):
            case "marginals":
                require_nothing(payload)
            case "moments":
                self._anchor(payload)
            case "training":
                spec = trained_codes(plan)
                decode_model(payload, model_payload_size(self._schema, spec))
                check_start(plan, round_number, payload[: VALUE_BYTES * parameters_of(spec, self._schema)])

    def _release(self, plan: TrainPlan, round_number: int, payload: bytes, watch: RoundWatch) -> NDArray[np.int64]:
        randomness = SecretRandomness.from_os()
        match plan.round_kind(round_number):
            case "marginals":
                return release_marginals(plan, self._schema, self._dataset, randomness, watch)
            case "moments":
                about = self._anchor(payload)
                return release_moments(plan, round_number, self._schema, self._dataset, about, randomness, watch)
            case "influence" | "scores" as kind:
                raise PlanError(
                    expected="a round of codes",
                    found=f"one of kind {kind}, which is of time series",
                    remedy="Use a plan of the schema's modality.",
                )
            case "training":
                spec = trained_codes(plan)
                values = decode_model(payload, model_payload_size(self._schema, spec))
                model, anchor = split_payload(values, self._schema, spec)
                return train_round(
                    plan,
                    self._site_name,
                    self._schema,
                    self._dataset,
                    model,
                    anchor if plan.privacy.marginals else None,
                    self._device,
                    randomness,
                    self._performance,
                    watch,
                )

    def _anchor(self, payload: bytes) -> Anchor:
        layout = CodeLayout.of(self._schema)
        return anchor_of_payload(decode_model(payload, anchor_payload_size(layout)), layout)


def _rehearsed(
    rehearsals: Rehearsals | None, schema: Schema, spec: ModelSpec, performance: Performance, device: str
) -> SelfTestReport:
    subject = (CodeLayout.of(schema), spec, performance, device)
    return rehearsed(rehearsals, subject, lambda: rehearse(schema, spec, performance, device))
