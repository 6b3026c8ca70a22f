"""The data set of notes: one item is one patient, whatever number of notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from synclave_shared.data.shares import check_shares, shares_of, shares_together

__all__ = ["Note", "NotesDataset", "together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note.

    Attributes:
        text: what it says.
        type: which kind of note it is, one of the schema's; empty if that is not known.
    """

    text: str
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesDataset:
    """Patients with all their notes. The unit of privacy is an item of this data set.

    Attributes:
        notes: for each patient the notes, in order, at least one [N].
        identifiers: what the patient's own record says of name, numbers and the like, as (kind, value), [N]; it never
            leaves the site.
        labels: position of the patient's value in ``schema.label.values``; int64 [N].
        patient_ids: one distinct identifier per patient [N]; likewise.
        shares: what share of the clip norm each patient may contribute; float64 [N] in (0, 1], None: all of it.

    Raises:
        ValueError: if they do not describe the same patients, an identifier occurs twice, or a patient has no note.
    """

    notes: tuple[tuple[Note, ...], ...]
    identifiers: tuple[tuple[tuple[str, str], ...], ...]
    labels: npt.NDArray[np.int64]
    patient_ids: list[str]
    shares: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if len({len(part) for part in (self.notes, self.identifiers, self.labels, self.patient_ids)}) != 1:
            raise ValueError("notes, identifiers, labels and patient_ids must have one entry per patient each")
        if self.labels.dtype != np.int64 or self.labels.ndim != 1:
            raise ValueError("labels must be int64 [patients]")
        if len(set(self.patient_ids)) != len(self.patient_ids):
            raise ValueError("a patient occurs twice; one item must be one patient")
        if not all(self.notes):
            raise ValueError("a patient has no note")
        check_shares(self.shares, len(self))

    def __len__(self) -> int:
        return len(self.patient_ids)

    def select(self, positions: npt.NDArray[np.intp]) -> NotesDataset:
        """The patients at ``positions`` [k], in that order."""
        return NotesDataset(
            notes=tuple(self.notes[position] for position in positions),
            identifiers=tuple(self.identifiers[position] for position in positions),
            labels=self.labels[positions],
            patient_ids=[self.patient_ids[position] for position in positions],
            shares=shares_of(self.shares, positions),
        )

    def masked(self, mask: Callable[[str, tuple[tuple[str, str], ...]], str]) -> NotesDataset:
        """The same patients, every text rewritten by ``mask`` (text, the patient's identifiers), identifiers gone."""
        return replace(
            self,
            notes=tuple(
                tuple(replace(note, text=mask(note.text, own)) for note in notes)
                for notes, own in zip(self.notes, self.identifiers, strict=True)
            ),
            identifiers=((),) * len(self),
        )


def together(datasets: Sequence[NotesDataset]) -> NotesDataset:
    """All patients of several data sets under one schema, in order.

    Raises:
        ValueError: if a patient occurs in two of them.
    """
    return NotesDataset(
        notes=tuple(notes for dataset in datasets for notes in dataset.notes),
        identifiers=tuple(own for dataset in datasets for own in dataset.identifiers),
        labels=np.concatenate([dataset.labels for dataset in datasets]),
        patient_ids=[patient for dataset in datasets for patient in dataset.patient_ids],
        shares=shares_together(datasets),
    )
