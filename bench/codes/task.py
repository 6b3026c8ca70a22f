"""What a contender is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema

__all__ = ["Fit", "Sampler", "Task"]

Sampler = Callable[[int, int], PatientDataset]
"""(number of patients, seed) -> synthetic patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Patients of several sites, and how privately to learn from them.

    Attributes:
        train: all sites' patients.
        site_of_patient: int64 [N].
        schema: columns and label.
        epsilon, delta: of every site; epsilon None: without noise.
        seed: of everything that is drawn.
    """

    train: PatientDataset
    site_of_patient: NDArray[np.int64]
    schema: Schema
    epsilon: float | None
    delta: float
    seed: int


Fit = Callable[[Task], Sampler]
