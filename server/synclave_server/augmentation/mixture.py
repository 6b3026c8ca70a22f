"""How many patients of which label are added to a training set, and from which share on each of them belongs to it.

*Alpha* is the number of synthetic patients per real training patient; all real ones are kept (train on synthetic and
real, test on real: TSRTR of Deng et al. 2025, TarDiff).

Legend: K values of alpha, L label values, M added patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.sampling.request import allot
from synclave_shared.errors import ConfigurationError

__all__ = ["ALPHAS", "MOST_ALPHA", "added_counts", "check_alphas", "entering", "rarest", "read_shares"]

ALPHAS: Final = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Those that the literature reports."""
MOST_ALPHA: Final = 100.0
"""More synthetic patients than that per real one are a typing error."""


def check_alphas(alphas: Sequence[float]) -> tuple[float, ...]:
    """The values in rising order, each once.

    Raises:
        ConfigurationError: if one is not above 0, or absurdly large.
    """
    wrong = [alpha for alpha in alphas if not 0 < alpha <= MOST_ALPHA]
    if wrong:
        raise ConfigurationError(
            expected=f"--alpha above 0 and at most {MOST_ALPHA:g}: synthetic patients per real training patient",
            found=f"{wrong[0]:g}",
            remedy="Leave 0 out: real patients alone are always measured.",
        )
    return tuple(sorted(set(alphas)))


def rarest(labels: NDArray[np.int64], values: int) -> int:
    """The label value that the fewest patients have; of several the last.

    Args:
        labels: [N].
        values: L.
    """
    counts = np.bincount(labels, minlength=values)
    return values - 1 - int(np.argmin(counts[::-1]))


def read_shares(options: Sequence[str], label: str, values: Sequence[str]) -> NDArray[np.float64]:
    """Read ``NAME=VALUE[:SHARE]`` options, at least one.

    Args:
        options: as written; a value without a share stands for all added patients that no other option counts.
        label: the schema's label.
        values: its values.

    Returns:
        Shares of the added patients by label value [L]; their sum is 1.

    Raises:
        ConfigurationError: if an option is malformed, names another label or value, or the shares do not add up.
    """
    shares: dict[str, float] = {}
    rest: str | None = None
    for option in options:
        name, _, wanted = option.partition("=")
        # A label value may itself contain a colon: the longest value that fits is meant.
        value, _, text = (wanted, "", "") if wanted in values else wanted.rpartition(":")
        share = _share(text) if text else None
        if name != label or value not in values or value in shares or value == rest or (text and share is None):
            raise ConfigurationError(
                expected=f"--label {label}=VALUE or {label}=VALUE:SHARE, VALUE one of {', '.join(values)}, each once,"
                " SHARE from 0 to 1",
                found=option,
                remedy="Correct the option.",
            )
        if share is not None:
            shares[value] = share
        elif rest is None:
            rest = value
        else:
            raise ConfigurationError(
                expected="a share for all label values but one",
                found=f"none for {rest} and {value}",
                remedy="Write NAME=VALUE:SHARE.",
            )
    total = math.fsum(shares.values())
    if total > 1 + 1e-9 or (rest is None and total < 1 - 1e-9):
        raise ConfigurationError(
            expected="label shares that add up to 1",
            found=", ".join(f"{value}: {share:g}" for value, share in shares.items()),
            remedy="Correct the shares, or name one value without a share: it takes the rest.",
        )
    if rest is not None:
        shares[rest] = max(0.0, 1 - total)
    return np.array([shares.get(value, 0.0) for value in values])


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def added_counts(alphas: Sequence[float], patients: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Added patients of each label at each alpha [K, L]; those of a smaller alpha are among those of a larger one.

    Every row sums to ``round(alpha * patients)``, and comes as close to the shares as whole patients can who are only
    ever added.

    Args:
        alphas: rising.
        patients: number of real training patients.
        shares: of the added patients by label value [L].
    """
    counts = np.zeros((len(alphas), len(shares)), dtype=np.int64)
    have = np.zeros(len(shares), dtype=np.int64)
    for place, alpha in enumerate(alphas):
        size = round(alpha * patients)
        if more := size - int(have.sum()):
            # A label may have one too many already, whom rounding gave it at a smaller alpha.
            have = have + allot(more, np.maximum(shares * size - have, 0))
        counts[place] = have
    return counts


def entering(labels: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each added patient, in the order in which they were drawn, the place of the alpha at which it enters [M].

    Args:
        labels: [M], with as many of each value as the last row of ``counts``.
        counts: of :func:`added_counts` [K, L].
    """
    places = np.zeros(len(labels), dtype=np.int64)
    for value in range(counts.shape[1]):
        of_value = np.flatnonzero(labels == value)
        places[of_value] = np.searchsorted(counts[:, value], np.arange(len(of_value)), side="right")
    return places
