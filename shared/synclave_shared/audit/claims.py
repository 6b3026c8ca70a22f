"""What a spend means under another question: another adjacency, or a patient whom several sites know.

The ledger's epsilon is for *add or remove one patient* at one site. Both answers here are upper bounds that follow from
it by composition or by the triangle inequality; neither needs anything beyond the reservations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from synclave_shared.audit.spends import Account
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["SHARED_BY", "SeveralSites", "all_datasets", "replace_one", "several_sites"]

SHARED_BY: Final = (2, 3)
"""Numbers of sites for which the loss of a patient known to all of them is stated."""

_ROUNDS: Final = 12
"""Halvings in the search for the best split of delta: beyond these the fourth decimal stands still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralSites:
    """The loss of a patient who is in a data set of each of several sites.

    Attributes:
        sites: the sites with the highest epsilon, as many as the patient was at.
        epsilon: of everything that they reserved on all their data sets, composed.
        delta: at which.
        entries: the reservations.
    """

    sites: tuple[str, ...]
    epsilon: float
    delta: float
    entries: tuple[int, ...]


def replace_one(mechanisms: Sequence[PoissonGaussian | GaussianSum], delta: float) -> float:
    """Epsilon at ``delta`` for *replacing* one patient by another: remove one, then add one.

    If epsilon(d) holds at every d for adding or removing, then ``2 epsilon(d)`` holds at ``d (1 + exp(epsilon(d)))`` for
    replacing (group privacy for two, Dwork and Roth 2014, theorem 2.2). The largest d that fits gives the value.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    if not mechanisms:
        return 0.0

    def total(split: float) -> float:
        value = epsilon(mechanisms, split)
        return split * (1 + math.exp(value)) if value < 700 else math.inf

    # A delta below 1e-300 of the given one is below anything that floats can tell apart.
    low, high = math.log(delta) - math.log1p(math.exp(min(700.0, 2 * epsilon(mechanisms, delta) + 5))), math.log(delta)
    if total(math.exp(low)) > delta:
        return math.inf
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if total(math.exp(middle)) <= delta else (low, middle)
    return 2 * epsilon(mechanisms, math.exp(low))


def all_datasets(accounts: Sequence[Account], site: str) -> SeveralSites | None:
    """Everything that one site reserved, all data sets together; None if it reserved nothing."""
    return _together([account for account in accounts if account.site == site], (site,))


def several_sites(accounts: Sequence[Account], count: int) -> SeveralSites | None:
    """The loss of a patient at the ``count`` sites that spent most; None if fewer spent anything.

    Adding or removing the patient changes what each of these sites releases, each with its own noise: the loss is that of
    the composition of all their reservations, at the smallest of their deltas.
    """
    spent = {account.site for account in accounts if account.mechanisms}
    if len(spent) < count:
        return None
    highest = {site: max(account.epsilon for account in accounts if account.site == site) for site in spent}
    chosen = tuple(sorted(spent, key=lambda site: (-highest[site], site))[:count])
    return _together([account for account in accounts if account.site in chosen], chosen)


def _together(accounts: Sequence[Account], sites: tuple[str, ...]) -> SeveralSites | None:
    spending = [account for account in accounts if account.mechanisms]
    if not spending:
        return None
    delta = min(account.delta for account in spending)
    mechanisms = [mechanism for account in spending for mechanism in account.mechanisms]
    return SeveralSites(
        sites=sites,
        epsilon=epsilon(mechanisms, delta),
        delta=delta,
        entries=tuple(sorted(entry for account in spending for entry in account.entries)),
    )
