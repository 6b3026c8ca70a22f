"""Which rows of a batch belong to which patient, and how rows become one value per patient.

Shapes: ``B`` patients of a piece, padding included; ``R`` rows (stays, note chunks, noise levels); ``n`` rows of one
patient; ``T`` places within a row (tokens, hours).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, Self

import torch
from torch import Tensor

__all__ = ["PatientBatch", "PatientRows", "PatientWeights", "RowBucket"]

SMALLEST_WEIGHT: Final = 2.0**-100
"""A smaller weight is 0: near the end of float32 it, or its product with a number, could round up."""


class PatientBatch(Protocol):
    """Inputs of some patients, as a loss reads them."""

    def __len__(self) -> int:
        """Number of patients B, padding included."""
        ...

    @property
    def present(self) -> Tensor:
        """[B], false or 0 for padding, which contributes nothing; a number s in (0, 1]: at most s clip norms."""
        ...

    @property
    def patient_of_row(self) -> Tensor | None:
        """[R], the patient's number of each row, ascending; None if the network's first axis is the patient."""
        ...

    def select(self, patients: Tensor) -> Self:
        """The batch of the patients with these numbers [b], in that order, numbered anew; one may come twice."""
        ...


class RowBucket(NamedTuple):
    """Patients with equally many rows.

    Attributes:
        patients: [b], their numbers; None: all of them, in order.
        rows: [b, n], the numbers of their rows; None: all of them, in order.
        rows_each: n.
    """

    patients: Tensor | None
    rows: Tensor | None
    rows_each: int

    def gather(self, values: Tensor) -> Tensor:
        """Take values [R, T, ...] to [b, n * T, ...]: a patient's rows stand one after another.

        A copy only where patients differ in their number of rows.
        """
        if self.rows is None:
            return values.reshape(-1, self.rows_each * values.shape[1], *values.shape[2:])
        return values[self.rows].flatten(1, 2)

    def scatter(self, values: Tensor, total: Tensor) -> None:
        """Put values [b] to their patients' places in ``total`` [B]."""
        if self.patients is None:
            total.copy_(values)
        else:
            total[self.patients] = values.to(total.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientRows:
    """The rows of a batch.

    Attributes:
        patients: B.
        patient_of_row: [R], ascending; None: row i is patient i.
    """

    patients: int
    patient_of_row: Tensor | None

    @classmethod
    def of(cls, batch: PatientBatch) -> PatientRows:
        """The rows of a batch.

        Raises:
            ValueError: if the rows' patients are not ascending numbers from 0 to B - 1.
        """
        owners = batch.patient_of_row
        if owners is not None and owners.numel():
            ascending = bool((owners[1:] >= owners[:-1]).all())
            if owners.dim() != 1 or not ascending or int(owners[0]) < 0 or int(owners[-1]) >= len(batch):
                raise ValueError("patient_of_row must hold ascending patient numbers below the number of patients")
        return cls(patients=len(batch), patient_of_row=owners)

    @property
    def count(self) -> int:
        """Number of rows R."""
        return self.patients if self.patient_of_row is None else len(self.patient_of_row)

    @property
    def most(self) -> int:
        """Most rows that one patient has."""
        if self.patient_of_row is None:
            return 1
        return int(torch.bincount(self.patient_of_row, minlength=1).max())

    def buckets(self) -> Iterator[RowBucket]:
        """Patients by their number of rows; those without rows are left out."""
        owners = self.patient_of_row
        if owners is None:
            yield RowBucket(None, None, 1)
            return
        counts = torch.bincount(owners, minlength=self.patients)
        starts = counts.cumsum(0) - counts
        for each in torch.unique(counts).tolist():
            if each == 0:
                continue
            chosen = (counts == each).nonzero()[:, 0]
            if len(chosen) == self.patients:
                yield RowBucket(None, None, each)
                return
            yield RowBucket(chosen, starts[chosen, None] + torch.arange(each, device=owners.device), each)

    def sum(self, values: Tensor) -> Tensor:
        """Add up each patient's rows: [R, ...] to [B, ...]."""
        if self.patient_of_row is None:
            return values
        total = values.new_zeros(self.patients, *values.shape[1:])
        return total.index_add_(0, self.patient_of_row, values)

    def spread(self, values: Tensor) -> Tensor:
        """Give each row its patient's value: [B, ...] to [R, ...]."""
        return values if self.patient_of_row is None else values[self.patient_of_row]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientWeights:
    """By how much each patient's gradient counts; 0: not at all, whatever is in its rows.

    Attributes:
        patients: [B].
        rows: [R], each row's patient's weight.
        bad_patients, bad_rows: numbers of those of weight 0.
    """

    patients: Tensor
    rows: Tensor
    bad_patients: Tensor
    bad_rows: Tensor

    @classmethod
    def of(cls, weights: Tensor, rows: PatientRows, dtype: torch.dtype) -> PatientWeights:
        """Weights [B] for the rows of a batch, in the type of the sums."""
        patients = torch.where(weights < SMALLEST_WEIGHT, 0.0, weights).to(dtype)
        bad = (patients == 0).nonzero()[:, 0]
        if rows.patient_of_row is None:
            return cls(patients=patients, rows=patients, bad_patients=bad, bad_rows=bad)
        spread = rows.spread(patients)
        return cls(patients=patients, rows=spread, bad_patients=bad, bad_rows=(spread == 0).nonzero()[:, 0])
