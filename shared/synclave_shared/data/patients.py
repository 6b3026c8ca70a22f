"""The data set that training and evaluation see: one item is one patient, whatever number of rows there were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synclave_shared.data.shares import check_shares, shares_of, shares_together
from synclave_shared.data.sparse_rows import SparseRows

__all__ = ["PatientDataset", "together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientDataset:
    """Patients as rows of a 0/1 matrix. The unit of privacy is an item of this data set.

    Attributes:
        features: 0 or 1, [patients, schema.width]; ``features[positions]`` makes some patients' rows dense.
        labels: position of the patient's value in ``schema.label.values``, int64 [patients].
        patient_ids: one distinct identifier per patient; it never leaves the site.
        shares: what share of the clip norm each patient may contribute; float64 [patients] in (0, 1], None: all of it.

    Raises:
        ValueError: if the three do not describe the same patients, or an identifier occurs twice.
    """

    features: SparseRows
    labels: npt.NDArray[np.int64]
    patient_ids: list[str]
    shares: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != np.int64:
            raise ValueError("labels must be int64 [patients]")
        if not len(self.features) == len(self.labels) == len(self.patient_ids):
            raise ValueError("features, labels and patient_ids must have one entry per patient each")
        if len(set(self.patient_ids)) != len(self.patient_ids):
            raise ValueError("a patient occurs twice; one item must be one patient")
        check_shares(self.shares, len(self))

    def __len__(self) -> int:
        return len(self.patient_ids)

    def select(self, positions: npt.NDArray[np.intp]) -> PatientDataset:
        """The patients at ``positions`` [k], in that order."""
        return PatientDataset(
            features=self.features.take(positions),
            labels=self.labels[positions],
            patient_ids=[self.patient_ids[position] for position in positions],
            shares=shares_of(self.shares, positions),
        )


def together(datasets: Sequence[PatientDataset]) -> PatientDataset:
    """All patients of several data sets under one schema, in order.

    Raises:
        ValueError: if a patient occurs in two of them.
    """
    return PatientDataset(
        features=SparseRows.stacked([dataset.features for dataset in datasets]),
        labels=np.concatenate([dataset.labels for dataset in datasets]),
        patient_ids=[patient for dataset in datasets for patient in dataset.patient_ids],
        shares=shares_together(datasets),
    )
