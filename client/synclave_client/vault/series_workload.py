"""The time series and their model of one site, loaded once and kept warm between rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.shared_patients import with_shares
from synclave_client.vault.workload import check_device, check_size, check_start, report_self_test, require_nothing
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

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = ["SeriesWorkload"]

SHARES_ROUNDING: Final = 1e-3
"""By which the label values' shares may miss 1."""


class SeriesWorkload:
    """Private training on the site's time series; see :class:`synclave_client.vault.session.Workload`.

    Args:
        site_name: the site's name in plans.
        device: torch device.
        schema: the installed schema.
        dataset: its patients.
        performance: how to compute; changes cost only.
        rehearsals: shares the self-test within a simulation; None: it is made for every plan.
        conformance: where it is kept what each round really did; None: nowhere, and nothing is judged.
    """

    def __init__(
        self,
        *,
        site_name: str,
        device: str,
        schema: SeriesSchema,
        dataset: SeriesDataset,
        performance: Performance | None = None,
        rehearsals: Rehearsals | None = None,
        conformance: ConformanceFolder | None = None,
    ) -> None:
        self._site_name, self._device, self._schema, self._dataset = site_name, device, schema, dataset
        self._layout = SeriesLayout.of(schema)
        self._performance = performance or Performance()
        self._rehearsals = rehearsals
        self._conformance = conformance

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
        return cls(
            site_name=settings.name,
            device=settings.device,
            schema=schema,
            dataset=with_shares(load_series(schema, settings.data_folder), settings.shared_patients),
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
            PolicyRefusal: if its clinical model is not installed here.
        """
        self._require_installed(plan)
        check_size(self._size(plan))
        # Also of scores: that no patient changes the numbers of another one is proved there.
        spec = plan.model if isinstance(plan.model, ClassifierSpec) else series_spec(plan)
        _rehearsed(self._rehearsals, self._layout, spec, self._performance, self._device)

    def check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        """Refuse a payload that the round cannot work with, before anything is spent on it.

        Raises:
            ProtocolError: if a marginals round brings a payload, or a model or an anchor has another size or holds
                numbers that it cannot have, or the first of them is another than the plan says.
            PolicyRefusal: if the plan's clinical model is no longer installed here.
            NotConforming: if an earlier round of the plan did not do what the plan says.
        """
        if self._conformance is not None:
            self._conformance.require_conforming(plan)
        self._require_installed(plan)
        if plan.round_kind(round_number) == "marginals":
            require_nothing(payload)
        else:
            model, _, _ = self._public(plan, payload)
            # A clinical model is named with the marginals it stands on: they come of no earlier round of the plan.
            named = payload if isinstance(plan.model, ClassifierSpec) else payload[: VALUE_BYTES * model.size]
            check_start(plan, round_number, named)

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        """Run the round's mechanism with fresh randomness of the operating system.

        Returns:
            Moments, an influence vector, histograms or the model's update [P], as the round is; fixed point, noised.

        Raises:
            NotConforming: if the round did not do what the plan says, by what was seen of it.
        """
        watch = RoundWatch(plan.mechanism(round_number), len(self._dataset))
        released = self._release(plan, round_number, payload, watch)
        if self._conformance is not None:
            self._conformance.conclude(plan, round_number, watch)
        return released

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

    return rehearse() if rehearsals is None else rehearsals.passed((layout, spec, performance, device), rehearse)
