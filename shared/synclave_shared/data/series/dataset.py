"""The data set of time series that training and evaluation see: one item is one patient, whatever number of stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synclave_shared.data.shares import check_shares, shares_of, shares_together

__all__ = ["SeriesDataset", "together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDataset:
    """Patients as channels on a grid of time. The unit of privacy is an item of this data set.

    N patients, T steps (``schema.horizon``), C channels (``schema.channels``), S columns of fields (``schema.width``).

    Attributes:
        values: each channel between its public bounds as -1 to 1, 0 where nothing was observed; float32 [N, T, C].
        observed: 1 where something was observed; uint8 [N, T, C].
        lengths: number of steps that the stay lasts, 1 to T; beyond it nothing is observed; int64 [N].
        static: 0 or 1, one-hot groups as in ``schema.groups``; uint8 [N, S].
        labels: position of the patient's value in ``schema.label.values``; int64 [N].
        patient_ids: one distinct identifier per patient; it never leaves the site.
        shares: what share of the clip norm each patient may contribute; float64 [N] in (0, 1], None: all of it.

    Raises:
        ValueError: if they do not describe the same patients, an identifier occurs twice, or a value is out of scale,
            where nothing was observed, or after the end of the stay.
    """

    values: npt.NDArray[np.float32]
    observed: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    static: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    patient_ids: list[str]
    shares: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.dtype != np.float32:
            raise ValueError("values must be float32 [patients, steps, channels]")
        if self.observed.shape != self.values.shape or self.observed.dtype != np.uint8:
            raise ValueError("observed must be uint8 with the shape of the values")
        if self.static.ndim != 2 or self.static.dtype != np.uint8:
            raise ValueError("static must be uint8 [patients, columns]")
        if self.lengths.ndim != 1 or self.lengths.dtype != np.int64 or self.labels.dtype != np.int64:
            raise ValueError("lengths and labels must be int64 [patients]")
        if len({len(part) for part in (self.values, self.lengths, self.static, self.labels, self.patient_ids)}) != 1:
            raise ValueError("values, lengths, static, labels and patient_ids must have one entry per patient each")
        if len(set(self.patient_ids)) != len(self.patient_ids):
            raise ValueError("a patient occurs twice; one item must be one patient")
        check_shares(self.shares, len(self))
        if not self.values.size:
            return
        if not 1 <= self.lengths.min() <= self.lengths.max() <= self.steps:
            raise ValueError("lengths must be from 1 to the number of steps")
        if self.observed.max() > 1 or not self.values.min() >= -1 or not self.values.max() <= 1:
            raise ValueError("observed must be 0 or 1, and values from -1 to 1")
        # A value where nothing was observed would be a leak into the model's input.
        if np.any((self.values != 0) & (self.observed == 0)):
            raise ValueError("a value stands where nothing was observed")
        ended = np.arange(self.steps) >= self.lengths[:, None]
        if np.any(self.observed.any(axis=2) & ended):
            raise ValueError("something is observed after the end of the stay")

    def __len__(self) -> int:
        return len(self.patient_ids)

    @property
    def steps(self) -> int:
        """Number of steps T of the grid."""
        return int(self.values.shape[1])

    def select(self, positions: npt.NDArray[np.intp]) -> SeriesDataset:
        """The patients at ``positions`` [k], in that order."""
        return SeriesDataset(
            values=self.values[positions],
            observed=self.observed[positions],
            lengths=self.lengths[positions],
            static=self.static[positions],
            labels=self.labels[positions],
            patient_ids=[self.patient_ids[position] for position in positions],
            shares=shares_of(self.shares, positions),
        )


def together(datasets: Sequence[SeriesDataset]) -> SeriesDataset:
    """All patients of several data sets under one schema, in order.

    Raises:
        ValueError: if a patient occurs in two of them.
    """
    return SeriesDataset(
        values=np.concatenate([dataset.values for dataset in datasets]),
        observed=np.concatenate([dataset.observed for dataset in datasets]),
        lengths=np.concatenate([dataset.lengths for dataset in datasets]),
        static=np.concatenate([dataset.static for dataset in datasets]),
        labels=np.concatenate([dataset.labels for dataset in datasets]),
        patient_ids=[patient for dataset in datasets for patient in dataset.patient_ids],
        shares=shares_together(datasets),
    )
