"""What the workloads of all modalities have in common: patients kept warm between rounds, and every round watched."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.settings import SiteSettings
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.private import SelfTestReport
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.shared_patients import with_shares
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.notes.dataset import NotesDataset
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import ClippingError, ConfigurationError, ProtocolError
from synclave_shared.plan import MOST_PARAMETERS, TrainPlan

__all__ = [
    "SiteWorkload",
    "check_device",
    "check_size",
    "check_start",
    "rehearsed",
    "report_self_test",
    "require_nothing",
]

_log = logging.getLogger("synclave.vault")

SchemaT = TypeVar("SchemaT", Schema, SeriesSchema, NotesSchema)
DatasetT = TypeVar("DatasetT", PatientDataset, SeriesDataset, NotesDataset)


class SiteWorkload(ABC, Generic[SchemaT, DatasetT]):
    """Private training on a site's patients; see :class:`synclave_client.vault.session.Workload`.

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
        schema: SchemaT,
        dataset: DatasetT,
        performance: Performance | None = None,
        rehearsals: Rehearsals | None = None,
        conformance: ConformanceFolder | None = None,
    ) -> None:
        self._site_name = site_name
        self._device = device
        self._schema: SchemaT = schema
        self._dataset: DatasetT = dataset
        self._performance = performance or Performance()
        self._rehearsals = rehearsals
        self._conformance = conformance

    @classmethod
    def _of(
        cls,
        settings: SiteSettings,
        schema: SchemaT,
        dataset: DatasetT,
        rehearsals: Rehearsals | None,
        **more: Any,
    ) -> Self:
        """As the settings say.

        Raises:
            DataError: if ``shared_patients`` does not fit the data.
        """
        return cls(
            site_name=settings.name,
            device=settings.device,
            schema=schema,
            dataset=with_shares(dataset, settings.shared_patients),
            performance=settings.performance,
            rehearsals=rehearsals,
            conformance=ConformanceFolder(settings.conformance_folder),
            **more,
        )

    @property
    def schema_digest(self) -> str:
        """Digest of the installed schema."""
        return self._schema.digest

    @property
    def patient_ids(self) -> list[str]:
        """Identifiers of the patients, as the data have them."""
        return self._dataset.patient_ids

    @abstractmethod
    def check_model(self, plan: TrainPlan) -> None:
        """Refuse a plan whose model cannot be clipped here, before it is accepted. Touches no data.

        Raises:
            ClippingError: naming the layer, or the size of a model whose release could not travel.
            PlanError: if the plan is for another modality.
            PolicyRefusal: if its model is not installed here.
        """

    def check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        """Refuse a payload that the round cannot work with, before anything is spent on it.

        Raises:
            ProtocolError: if a marginals round brings a payload, or a model or an anchor has another size or holds
                numbers that it cannot have, or the training begins with another model than the plan says.
            PolicyRefusal: if the plan's model is no longer installed here.
            NotConforming: if an earlier round of the plan did not do what the plan says.
        """
        if self._conformance is not None:
            self._conformance.require_conforming(plan)
        self._check_payload(plan, round_number, payload)

    @abstractmethod
    def _check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None: ...

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        """Run the round's mechanism with fresh randomness of the operating system.

        Returns:
            What the round is of, fixed point, noised: a model's update [P], or sums over patients.

        Raises:
            NotConforming: if the round did not do what the plan says, by what was seen of it.
        """
        watch = RoundWatch(plan.mechanism(round_number), len(self._dataset))
        released = self._release(plan, round_number, payload, watch)
        if self._conformance is not None:
            self._conformance.conclude(plan, round_number, watch)
        return released

    @abstractmethod
    def _release(self, plan: TrainPlan, round_number: int, payload: bytes, watch: RoundWatch) -> NDArray[np.int64]: ...


def rehearsed(
    rehearsals: Rehearsals | None, subject: Hashable, rehearse: Callable[[], SelfTestReport]
) -> SelfTestReport:
    """The self-test of ``subject``; within a simulation it is made once."""
    return rehearse() if rehearsals is None else rehearsals.passed(subject, rehearse)


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


def check_device(device: str) -> None:
    """Raise ``ConfigurationError`` unless the torch device is there."""
    index = int(device.partition(":")[2] or 0)
    if device != "cpu" and not (torch.cuda.is_available() and index < torch.cuda.device_count()):
        raise ConfigurationError(
            expected=f"the device {device}, as site.toml says",
            found=f"{torch.cuda.device_count()} CUDA devices",
            remedy="Correct `device`, or check the driver and whether this process may use it (deploy/README.md).",
        )
