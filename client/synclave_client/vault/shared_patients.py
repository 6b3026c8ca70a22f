"""The steward's list of patients who are treated at other sites too, and what they may contribute here.

A CSV file with the header ``patient,sites``: the identifier that the data have, and the number m of sites that the
patient is treated at, this one included. Such a patient may contribute 1/m of every clip norm. The file is read when
the vault starts, by the vault alone; nothing of it is in a plan, an entry or a reply.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.notes.dataset import NotesDataset
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.errors import DataError

__all__ = ["MOST_SITES", "read_shares", "with_shares"]

MOST_SITES: Final = 16
"""Of one patient: as far as it is verified that the sites together cost no more than one (tests/privacy)."""

HEADER: Final = ["patient", "sites"]

Dataset = TypeVar("Dataset", PatientDataset, SeriesDataset, NotesDataset)


def with_shares(dataset: Dataset, path: Path | None) -> Dataset:
    """The data set with the shares that the file says; as it is without a file.

    Raises:
        DataError: as :func:`read_shares`.
    """
    return dataset if path is None else replace(dataset, shares=read_shares(path, dataset.patient_ids))


def read_shares(path: Path, patient_ids: list[str]) -> NDArray[np.float64]:
    """Each patient's share of the clip norm, [patients]: 1/m as the file says, 1 for who is not in it.

    Raises:
        DataError: if the file cannot be read, or a line names nobody of the data, somebody twice, or no number of sites
            from 2 to :data:`MOST_SITES`. Lines are named by their numbers, never by identifiers.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _fault("a CSV file in UTF-8", f"{path}: {type(error).__name__}") from None
    if header != HEADER:
        raise _fault(f"a first line that reads {','.join(HEADER)}", f"another one in {path}")
    position = {patient: number for number, patient in enumerate(patient_ids)}
    shares = np.ones(len(patient_ids))
    seen: dict[str, int] = {}
    for line, row in rows:
        where = f"line {line} of {path}"
        if len(row) != len(HEADER):
            raise _fault(
                "two values in each line: a patient's identifier and a number of sites", f"{len(row)} in {where}"
            )
        patient, sites = row
        if patient not in position:
            raise _fault("patients of the data folder", f"an identifier that is not there, in {where}")
        if patient in seen:
            raise _fault("one line for each patient", f"the patient of line {seen[patient]} again in {where}")
        if not (sites.isascii() and sites.isdecimal() and 2 <= int(sites[:6]) <= MOST_SITES):
            raise _fault(f"a number of sites from 2 to {MOST_SITES}, this one included", f"another value in {where}")
        seen[patient] = line
        shares[position[patient]] = 1.0 / int(sites)
    return shares


def _fault(expected: str, found: str) -> DataError:
    return DataError(
        expected=expected,
        found=found,
        remedy="Correct the file that `shared_patients` in site.toml names; until then the vault takes no part.",
    )
