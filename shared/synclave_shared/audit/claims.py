"""What a spend means for a patient who is in several data sets, of one site or of several.

The ledger's epsilon is for one data set of one site. Each answer here is the composition of everything that touches the
patient, and needs nothing beyond the reservations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from synclave_shared.audit.spends import Account
from synclave_shared.ledger.verify import spent

__all__ = ["SHARED_BY", "SeveralSites", "all_datasets", "several_sites"]

SHARED_BY: Final = (2, 3)
"""Numbers of sites for which the loss of a patient known to all of them is stated."""


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


def all_datasets(accounts: Sequence[Account], site: str) -> SeveralSites | None:
    """Everything that one site reserved, all data sets together; None if it reserved nothing."""
    return _together([account for account in accounts if account.site == site], (site,))


def several_sites(accounts: Sequence[Account], count: int) -> SeveralSites | None:
    """The loss of a patient at the ``count`` sites that spent most; None if fewer spent anything.

    Adding or removing the patient changes what each of these sites releases, each with its own noise: the loss is that
    of the composition of all their reservations, at the smallest of their deltas.
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
        epsilon=spent(mechanisms, delta),
        delta=delta,
        entries=tuple(sorted(entry for account in spending for entry in account.entries)),
    )
