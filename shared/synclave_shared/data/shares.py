"""What share of a plan's clip norm each patient may contribute.

A patient who is treated at m sites counts for 1/m at each of them: all the sites together then cost that patient no
more than one site costs others (:func:`synclave_shared.privacy.several_sites.weighted`). Shares belong to the data
set, as labels do; None stands for the whole clip norm for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["check_shares", "limits", "places", "share_of", "shares_of", "shares_together"]

Shares = npt.NDArray[np.float64]


class _WithShares(Protocol):
    @property
    def shares(self) -> Shares | None: ...
    def __len__(self) -> int: ...


def check_shares(shares: Shares | None, patients: int) -> None:
    """Raise ``ValueError`` unless shares are None or float64 [patients] in (0, 1]."""
    if shares is None:
        return
    if shares.shape != (patients,) or shares.dtype != np.float64:
        raise ValueError("shares must be float64 [patients]")
    if not np.all((shares > 0.0) & (shares <= 1.0)):
        raise ValueError("shares must be above 0 and at most 1")


def shares_of(shares: Shares | None, positions: npt.NDArray[np.intp]) -> Shares | None:
    """The shares of the patients at ``positions`` [k]."""
    return None if shares is None else shares[positions]


def share_of(shares: Shares | None, patient: int) -> float:
    """The share of one patient."""
    return 1.0 if shares is None else float(shares[patient])


def shares_together(datasets: Sequence[_WithShares]) -> Shares | None:
    """The shares of all patients of several data sets, in order."""
    if all(dataset.shares is None for dataset in datasets):
        return None
    return np.concatenate([limits(dataset.shares, len(dataset), 1.0) for dataset in datasets])


def limits(shares: Shares | None, patients: int, clip_norm: float) -> npt.NDArray[np.float64]:
    """L2 bounds of the patients' contributions to a sum, [patients]; infinite where ``clip_norm`` is."""
    return np.full(patients, clip_norm) if shares is None else clip_norm * shares


def places(shares: Shares | None, rows: npt.NDArray[np.int64], size: int) -> npt.NDArray[Any]:
    """Shares of the places of a batch, [size]: of the patients ``rows``, then 0 for padding.

    Bool where everybody counts in full, else float64.
    """
    if shares is None:
        return np.arange(size) < len(rows)
    found = np.zeros(size)
    found[: len(rows)] = shares[rows]
    return found
