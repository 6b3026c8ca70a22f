"""Patients of a fitted generator, drawn as ``synclave sample`` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.series.fits import Generator, SeriesTask
from synclave_server.sampling.labels import LabelAssignment
from synclave_server.sampling.request import SERIES_CORRUPTION, SampleRequest, resolve_request
from synclave_server.sampling.series import SeriesGenerator
from synclave_server.sampling.series_rows import unpack_series
from synclave_server.sampling.series_target import SeriesTarget
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.table import recorded

__all__ = ["Drawing", "patients_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What is asked for, and who draws it.

    Attributes:
        model: the generator with its target.
        request: number of patients, labels, seed and guidance.
        labels: of all patients, [patients].
    """

    model: SeriesGenerator
    request: SampleRequest
    labels: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        task: SeriesTask,
        generator: Generator,
        patients: int,
        *,
        counts: Sequence[int] | None = None,
        target: SeriesTarget | None = None,
        **guidance: Any,
    ) -> Self:
        """Some patients of a generator, with the seed of the task.

        Args:
            task: schema and seed.
            generator: who draws.
            patients: how many.
            counts: of each label value, [L]; None: by the shares among the real patients.
            target: whom the patients are to be useful to.
            guidance: ``target_...`` of :func:`~synclave_server.sampling.request.resolve_request`.
        """
        values = task.schema.label.values
        request = resolve_request(
            patients=patients,
            label_counts=None if counts is None else dict(zip(values, counts, strict=True)),
            label_values=values,
            label_shares=generator.label_shares,
            corruption=SERIES_CORRUPTION,
            anchored=False,
            sampler=None,
            steps=None,
            seed=task.seed,
            guidance=Decimal(0),
            target=None if target is None else "0" * 64,
            **guidance,
        )
        model = SeriesGenerator(
            generator.spec, task.layout, generator.parameters, generator.anchor, target=target, precision="bfloat16"
        )
        labels = LabelAssignment(list(request.label_counts.values()), task.seed).of(np.arange(patients))
        return cls(model=model, request=request, labels=labels)

    def rows(self, patients: int | None = None) -> NDArray[np.uint8]:
        """The first ``patients``, or all, as rows of :mod:`synclave_server.sampling.series_rows`."""
        labels = self.labels[:patients]
        return self.model.features(self.request, np.arange(len(labels)), labels)


def patients_of(task: SeriesTask, rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> SeriesDataset:
    """Drawn rows as patients, with values as a hospital would have recorded them."""
    names = [f"synthetic-{number}" for number in range(len(rows))]
    return recorded(task.schema, unpack_series(rows, labels, names, task.layout))
