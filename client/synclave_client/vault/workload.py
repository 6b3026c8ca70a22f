"""The patients and the model of one site, loaded once and kept warm between rounds."""

from __future__ import annotations

import logging

import numpy as np
import torch
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
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.shared_patients import with_shares
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import load_patients
from synclave_shared.errors import ClippingError, ConfigurationError, PlanError, ProtocolError
from synclave_shared.model_size import parameters_of
from synclave_shared.models.anchor import Anchor, anchor_of_payload, anchor_payload_size
from synclave_shared.models.codes import model_payload_size, split_payload
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import MOST_PARAMETERS, ModelSpec, TrainPlan
from synclave_shared.protocol import VALUE_BYTES, decode_model

__all__ = ["PatientWorkload", "check_device", "check_size", "check_start", "report_self_test", "require_nothing"]

_log = logging.getLogger("synclave.vault")


class PatientWorkload:
    """Private training on the site's patients; see :class:`synclave_client.vault.session.Workload`.

    Args:
        site_name: the site's name in plans.
        device: torch device.
        schema: the installed schema.
        dataset: its patients.
        performance: how to compute; changes cost only.
        rehearsals: shared by simulated sites of one process; None: every plan is rehearsed anew.
        conformance: where it is kept what each round really did; None: nowhere, and nothing is judged.
    """

    def __init__(
        self,
        *,
        site_name: str,
        device: str,
        schema: Schema,
        dataset: PatientDataset,
        performance: Performance | None = None,
        rehearsals: Rehearsals | None = None,
        conformance: ConformanceFolder | None = None,
    ) -> None:
        self._site_name = site_name
        self._device = device
        self._schema = schema
        self._dataset = dataset
        self._performance = performance or Performance()
        self._rehearsals = rehearsals
        self._conformance = conformance

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
        return cls(
            site_name=settings.name,
            device=settings.device,
            schema=schema,
            dataset=with_shares(load_patients(schema, settings.data_folder), settings.shared_patients),
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
        """
        model = code_model(plan)
        check_size(parameters_of(model, self._schema))
        if isinstance(model, ModelSpec):
            _rehearsed(self._rehearsals, self._schema, model, self._performance, self._device)

    def check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        """Refuse a payload that the round cannot work with, before anything is spent on it.

        Raises:
            ProtocolError: if a marginals round brings a payload, or a model or an anchor has another size or holds
                numbers that it cannot have, or the training begins with another model than the plan says.
            NotConforming: if an earlier round of the plan did not do what the plan says.
        """
        if self._conformance is not None:
            self._conformance.require_conforming(plan)
        match plan.round_kind(round_number):
            case "marginals":
                require_nothing(payload)
            case "moments":
                self._anchor(payload)
            case "training":
                spec = trained_codes(plan)
                decode_model(payload, model_payload_size(self._schema, spec))
                check_start(plan, round_number, payload[: VALUE_BYTES * parameters_of(spec, self._schema)])

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        """Run the round's mechanism with fresh randomness of the operating system.

        Returns:
            Marginals [L*D + L], second moments [M] or the model's update [P], as the round is; fixed point, noised.

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


def report_self_test(settings: SiteSettings, report: SelfTestReport) -> None:
    """Say in the vault's log what was proved before the data are opened."""
    _log.info(
        "%s: clipping self-test passed in %.1f s: norms within %.0e, sums within %.0e of one backward pass per"
        " patient (%d parameters, %s, %s)",
        *(settings.name, report.seconds, report.norm_deviation, report.sum_deviation, report.parameters),
        *(settings.performance.clipping, settings.device),
    )


def check_size(parameters: int) -> None:
    """Raise ``ClippingError`` unless a release of so many numbers can travel."""
    if not 1 <= parameters <= MOST_PARAMETERS:
        raise ClippingError(
            expected=f"a model of 1 to {MOST_PARAMETERS} parameters",
            found=f"{parameters}",
            remedy="Ask the coordinator for a smaller model.",
        )


def require_nothing(payload: bytes) -> None:
    """Raise ``ProtocolError`` if a marginals round brings a payload."""
    if payload:
        raise ProtocolError(
            expected="no payload with the marginals round",
            found=f"{len(payload)} bytes",
            remedy="The message was dropped.",
        )


def check_start(plan: TrainPlan, round_number: int, start: bytes) -> None:
    """Raise ``ProtocolError`` if a plan's first round with a model begins with another ``start`` than the plan says.

    The steward agreed to that very model (and anchor): of another one, scores and gradients would tell something else.
    """
    if round_number == 1 and plan.warm_start not in (None, sha256_hex(start)):
        raise ProtocolError(
            expected=f"a model with SHA-256 {str(plan.warm_start)[:16]}..., as the signed plan says",
            found=f"{sha256_hex(start)[:16]}...",
            remedy="The message was dropped; ask the coordinator why.",
        )


def _rehearsed(
    rehearsals: Rehearsals | None, schema: Schema, spec: ModelSpec, performance: Performance, device: str
) -> SelfTestReport:
    if rehearsals is None:
        return rehearse(schema, spec, performance, device)
    subject = (CodeLayout.of(schema), spec, performance, device)
    return rehearsals.passed(subject, lambda: rehearse(schema, spec, performance, device))


def check_device(device: str) -> None:
    """Raise ``ConfigurationError`` unless the torch device is there."""
    index = int(device.partition(":")[2] or 0)
    if device != "cpu" and not (torch.cuda.is_available() and index < torch.cuda.device_count()):
        raise ConfigurationError(
            expected=f"the device {device}, as site.toml says",
            found=f"{torch.cuda.device_count()} CUDA devices",
            remedy="Correct `device`, or check the driver and whether this process may use it (deploy/README.md).",
        )
