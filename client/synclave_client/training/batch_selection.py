"""Poisson batch selection: each patient takes part in a step by an own coin, as the accounting assumes."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from synclave_client.training.noise import SecretRandomness

__all__ = ["select_patients"]


def select_patients(patients: int, selection_rate: Decimal, randomness: SecretRandomness) -> NDArray[np.int64]:
    """Choose the patients of one step.

    The number chosen is random (binomial), may be 0, and is secret: it depends on how many patients the site has.

    Args:
        patients: number of patients in the data set.
        selection_rate: probability of each patient, independently.
        randomness: the site's secret randomness.

    Returns:
        Ascending indices of the chosen patients.
    """
    return np.flatnonzero(randomness.uniform(patients) < float(selection_rate)).astype(np.int64)
