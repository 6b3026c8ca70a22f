"""The workload of time series."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.settings import SiteSettings
from synclave_client.training.clinical import release_influence, train_clinical_round
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.private import SelfTestReport
from synclave_client.training.rehearsal import rehearse_clinical, rehearse_series
from synclave_client.training.scores import release_scores
from synclave_client.training.series import release_series_marginals, series_spec, train_series_round
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
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import PlanError, PolicyRefusal, ProtocolError
from synclave_shared.model_size import check_grid, parameters_of
from synclave_shared.model_spec import ClassifierSpec, SeriesSpec
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import TrainPlan
from synclave_shared.protocol import VALUE_BYTES, decode_model

__all__ = ["SeriesWorkload"]

SHARES_ROUNDING: Final = 1e-3
"""By which the label values' shares may miss 1."""


class SeriesWorkload(SiteWorkload[SeriesSchema, SeriesDataset]):
    """Private training on the patients' time series."""

    @classmethod
    def load(cls, settings: SiteSettings, rehearsals: Rehearsals | None = None) -> SeriesWorkload:
        """Read the schema, prove the clipping on invented patients, and only then read the data.

        Raises:
            ConfigurationError: if the device is not there.
            SchemaError: if the schema cannot be used.
            PlanError: if its grid is too large for the model.
            ClippingError: if this machine does not bound gradients per patient as it must.
            DataError: if the data do not fit it; the error lists every fault. Or if ``shared_patients`` does not.
        """
        check_device(settings.device)
        schema = SeriesSchema.load(settings.schema_file)
        check_grid(schema)
        layout = SeriesLayout.of(schema)
        report = _rehearsed(rehearsals, layout, SeriesSpec(), settings.performance, settings.device)
        report_self_test(settings, report)
        return cls._of(settings, schema, load_series(schema, settings.data_folder), rehearsals)

    @cached_property
    def _layout(self) -> SeriesLayout:
        return SeriesLayout.of(self._schema)

    def check_model(self, plan: TrainPlan) -> None:
        """Refuse a plan whose model cannot be clipped here, before it is accepted. Touches no data.

        Raises:
            ClippingError: naming the layer, or the size of a model whose release could not travel.
            PlanError: if the plan is for another modality.
            PolicyRefusal: if its clinical model is not installed here.
        """
        self._require_installed(plan)
        check_size(self._size(plan))
        # Also of scores: that no patient changes the numbers of another one is proved there.
        spec = plan.model if isinstance(plan.model, ClassifierSpec) else series_spec(plan)
        _rehearsed(self._rehearsals, self._layout, spec, self._performance, self._device)

    def _check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        self._require_installed(plan)
        if plan.round_kind(round_number) == "marginals":
            require_nothing(payload)
        else:
            model, _, _ = self._public(plan, payload)
            # A clinical model is named with the marginals it stands on: they come of no earlier round of the plan.
            named = payload if isinstance(plan.model, ClassifierSpec) else payload[: VALUE_BYTES * model.size]
            check_start(plan, round_number, named)

    def _release(self, plan: TrainPlan, round_number: int, payload: bytes, watch: RoundWatch) -> NDArray[np.int64]:
        randomness = SecretRandomness.from_os()
        kind = plan.round_kind(round_number)
        if kind == "marginals":
            return release_series_marginals(plan, self._layout, self._dataset, randomness, watch)
        model, anchor, shares = self._public(plan, payload)
        if kind == "influence":
            return release_influence(
                plan,
                round_number,
                self._layout,
                self._dataset,
                model,
                anchor,
                shares,
                self._device,
                randomness,
                self._performance,
                watch,
            )
        if kind == "scores":
            return release_scores(
                plan,
                round_number,
                self._layout,
                self._dataset,
                model,
                anchor,
                self._device,
                randomness,
                self._performance,
                watch,
            )
        train = train_clinical_round if isinstance(plan.model, ClassifierSpec) else train_series_round
        return train(
            plan,
            self._site_name,
            self._layout,
            self._dataset,
            model,
            anchor,
            self._device,
            randomness,
            self._performance,
            watch,
        )

    def _size(self, plan: TrainPlan) -> int:
        spec = plan.model if isinstance(plan.model, ClassifierSpec) else series_spec(plan)
        return parameters_of(spec, self._schema)

    def _require_installed(self, plan: TrainPlan) -> None:
        if isinstance(plan.model, ClassifierSpec) and plan.model.installed is not None:
            try:
                build_series_classifier(self._layout, plan.model)
            except PlanError as error:
                raise PolicyRefusal("model-not-installed", found=error.found, remedy=error.remedy) from error

    def _public(self, plan: TrainPlan, payload: bytes) -> tuple[NDArray[np.float32], SeriesAnchor, NDArray[np.float32]]:
        """Model [P], anchor and label shares [L] of a payload."""
        size, anchor = self._size(plan), SeriesAnchor.size(self._layout)
        values = decode_model(payload, size + anchor + self._layout.label_values)
        model, about, shares = np.split(values, [size, size + anchor])
        if shares.min() < 0.0 or abs(float(shares.sum(dtype=np.float64)) - 1.0) > SHARES_ROUNDING:
            raise ProtocolError(
                expected="shares of the label values that add up to 1",
                found="others",
                remedy="The message was dropped.",
            )
        return model, SeriesAnchor.from_vector(about, self._layout), shares


def _rehearsed(
    rehearsals: Rehearsals | None,
    layout: SeriesLayout,
    spec: SeriesSpec | ClassifierSpec,
    performance: Performance,
    device: str,
) -> SelfTestReport:
    def rehearse() -> SelfTestReport:
        if isinstance(spec, ClassifierSpec):
            return rehearse_clinical(layout, spec, performance, device)
        return rehearse_series(layout, spec, performance, device)

    return rehearsed(rehearsals, (layout, spec, performance, device), rehearse)
