"""What a spend means for a patient who is in several data sets, of one site or of several.

The ledger's epsilon is for one data set of one site. Each answer here is the composition of everything that touches the
patient, and needs nothing beyond the reservations.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from synclave_shared.audit.reading import Place
from synclave_shared.audit.spends import Account
from synclave_shared.privacy.accountant import distinct
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from synclave_shared.privacy.tally import spent, spent_together, tallied

__all__ = ["SHARED_BY", "SeveralSites", "all_datasets", "several_sites"]

SHARED_BY: Final = (2, 3)
"""Numbers of sites for which the loss of a patient known to all of them is stated."""

MAX_CHOICES: Final = 300
"""Different choices of sites that are composed: all pairs of 24 sites of which no two did the same."""

MAX_COMPOSED: Final = 2_000
"""Mechanisms composed for all these choices; they take seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralSites:
    """The loss of a patient who is in a data set of each of several sites.

    Attributes:
        sites: which sites.
        epsilon: of everything that they reserved on all their data sets, composed.
        delta: at which.
        entries: the reservations.
        every_choice: whether no other choice of as many sites gives more, because each was composed. Otherwise these
            are the sites with the largest epsilons of their own.
    """

    sites: tuple[str, ...]
    epsilon: float
    delta: float
    entries: tuple[Place, ...]
    every_choice: bool = True


def all_datasets(accounts: Sequence[Account], site: str) -> SeveralSites | None:
    """Everything that one site reserved, all data sets together; None if it reserved nothing."""
    own = [account for account in accounts if account.site == site]
    together = spent_together((account.mechanisms, account.delta) for account in own)
    if together is None:
        return None
    entries = tuple(sorted(entry for account in own for entry in account.entries))
    return SeveralSites(sites=(site,), epsilon=together[0], delta=together[1], entries=entries)


def several_sites(accounts: Sequence[Account], count: int) -> SeveralSites | None:
    """The loss of a patient at ``count`` sites, at the worst choice of them; None if fewer spent anything.

    Adding or removing the patient changes what each of these sites releases, each with its own noise: the loss is that
    of the composition of all their reservations. Choices are compared at one delta, the smallest of all sites that
    spent: epsilons at different deltas have no order, and at one delta that of two sites does not follow from their
    own ones. So every choice is composed, up to :data:`MAX_CHOICES` different ones and :data:`MAX_COMPOSED` mechanisms.
    """
    spending = [account for account in accounts if account.mechanisms]
    done: dict[str, list[PoissonGaussian | GaussianSum]] = {}
    for account in sorted(spending, key=lambda account: account.site):
        done.setdefault(account.site, []).extend(account.mechanisms)
    if len(done) < count:
        return None
    delta = min(account.delta for account in spending)
    # Sites that did the same are one kind: which of them a choice holds changes nothing.
    kinds: dict[tuple[tuple[PoissonGaussian | GaussianSum, int], ...], list[str]] = {}
    for site, mechanisms in done.items():
        kinds.setdefault(tuple(distinct(tallied(mechanisms))), []).append(site)
    choices = list(itertools.islice(_choices(list(kinds.values()), count), MAX_CHOICES + 1))
    composed = count * max(len(kind) for kind in kinds) * len(choices)
    every = len(choices) == 1 or (len(choices) <= MAX_CHOICES and composed <= MAX_COMPOSED)
    if not every:
        own = {site: spent(mechanisms, delta) for site, mechanisms in done.items()}
        choices = [tuple(sorted(own, key=lambda site: (-own[site], site))[:count])]
    together = {choice: spent([each for site in choice for each in done[site]], delta) for choice in choices}
    sites = max(choices, key=lambda choice: together[choice])
    return SeveralSites(
        sites=sites,
        epsilon=together[sites],
        delta=delta,
        entries=tuple(sorted(entry for account in spending if account.site in sites for entry in account.entries)),
        every_choice=every,
    )


def _choices(kinds: Sequence[Sequence[str]], count: int) -> Iterator[tuple[str, ...]]:
    """One choice of ``count`` sites for each way to take so many of each kind."""
    for places in itertools.combinations_with_replacement(range(len(kinds)), count):
        wanted = Counter(places)
        if all(times <= len(kinds[place]) for place, times in wanted.items()):
            yield tuple(sorted(site for place, times in wanted.items() for site in kinds[place][:times]))
