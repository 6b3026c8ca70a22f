"""Patients as the networks of time series see them: without gaps, in normal scores, with their context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.series.filling import filled
from synclave_shared.models.series.anchor import SeriesAnchor, context_columns
from synclave_shared.models.series.layout import SeriesLayout

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = ["StandardRows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardRows:
    """Some patients.

    Attributes:
        values: filled, in normal scores; 0, the median, where a channel was never observed; float32 [n, T, C].
        observed: 0/1, float32 [n, T, C].
        inside: the steps of the stay, bool [n, T].
        context: 0/1, float32 [n, S].
        labels: int64 [n].
    """

    values: NDArray[np.float32]
    observed: NDArray[np.float32]
    inside: NDArray[np.bool_]
    context: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        dataset: SeriesDataset,
        rows: NDArray[np.int64],
        anchor: SeriesAnchor,
        layout: SeriesLayout,
        size: int | None = None,
    ) -> StandardRows:
        """The patients ``rows``, padded to ``size`` with patients of one step and of label 0.

        Args:
            dataset: where they are.
            rows: which.
            anchor: quantiles.
            layout: of the schema.
            size: number of rows; None: as many as patients.
        """
        count, size = len(rows), len(rows) if size is None else size
        shape = (size, layout.steps, layout.channels)
        values, observed = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        lengths, labels = np.ones(size, np.int64), np.zeros(size, np.int64)
        context = np.zeros((size, layout.context.width), np.float32)
        whole = filled(dataset.values[rows], dataset.observed[rows])
        never = np.logical_not(dataset.observed[rows].any(axis=1))[:, None]
        values[:count] = np.where(never, 0.0, anchor.scores(whole))
        observed[:count], lengths[:count] = dataset.observed[rows], dataset.lengths[rows]
        labels[:count] = dataset.labels[rows]
        context[:count] = context_columns(dataset.static[rows], dataset.lengths[rows], layout)
        inside = np.less(np.arange(layout.steps), lengths[:, None])
        return cls(values=values, observed=observed, inside=inside, context=context, labels=labels)
