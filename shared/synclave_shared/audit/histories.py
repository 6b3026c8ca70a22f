"""What one site did to one data set, over all ledgers in which it signs.

What *the same data set* is:

- The same site: the same name, with a key in common that signed an entry in both. The keys of a name within one ledger
  are linked by its signed rotations, once the new key has signed too; keys of two ledgers by one that is in both, or by
  an auditor who gives both as keys of that site. The same name with other keys is another site.
- And the same data set's name, as the site signs it in its acceptances and reservations. What all data sets of a site
  cost together bounds what two names for the same patients would hide.

The order of entries is that of each ledger; between ledgers it is that of the site's clock, which the site signs. A
total does not depend on it. A reservation is counted once, in however many copies of a ledger it stands.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from synclave_shared.audit.reading import Place, Reading, Reserved
from synclave_shared.ledger.replay import Spend
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["BudgetStated", "History", "Site", "histories_of", "sites_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One site, in all ledgers in which it signs.

    Attributes:
        name: as it calls itself; with the beginning of its key if another site calls itself the same.
        keys: every key that counted as its own in any of the ledgers, base64.
        members: the ledgers, each with the site's name in it.
    """

    name: str
    keys: frozenset[str]
    members: tuple[tuple[Reading, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStated:
    """A budget as a site stated it: after how many reservations of the data set, and in which entry."""

    before: int
    entry: Place
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What one site did to one data set, over all ledgers.

    Attributes:
        site, dataset: whose, and the site's name for it.
        entries: the reservations, in order.
        mechanisms: what each of them reserved.
        reserved: the plan, round and time of each.
        budgets: as they were stated, in order; the last one holds.
        delta: the smallest of any budget that was stated; of any reservation if there is no budget.
    """

    site: str
    dataset: str
    entries: tuple[Place, ...]
    mechanisms: tuple[PoissonGaussian | GaussianSum, ...]
    reserved: tuple[Reserved, ...]
    budgets: tuple[BudgetStated, ...]
    delta: float

    @property
    def ledgers(self) -> tuple[int, ...]:
        """Numbers of the ledgers that say anything about it."""
        return tuple(sorted({entry.ledger for entry in (*self.entries, *(each.entry for each in self.budgets))}))


def sites_of(readings: Sequence[Reading], known: Mapping[str, Sequence[str]]) -> tuple[Site, ...]:
    """Everyone who signs or spends as a site; the same name is the same site where keys say so."""
    found: dict[str, list[Site]] = {}
    for reading in readings:
        for name in reading.sites():
            actor = reading.replay.actors.by_name.get(name)
            keys = frozenset(actor.proven_keys if actor and actor.role == "site" else ())
            vouched = frozenset(known.get(name, ()))
            if keys & vouched:
                keys |= vouched
            members: tuple[tuple[Reading, str], ...] = ((reading, name),)
            others = []
            for site in found.get(name, []):
                if site.keys & keys:
                    keys, members = keys | site.keys, (*site.members, *members)
                else:
                    others.append(site)
            found[name] = [*others, Site(name=name, keys=keys, members=members)]
    return tuple(
        replace(site, name=f"{name} [{_key_of(site)}]") if len(same) > 1 else site
        for name, same in found.items()
        for site in same
    )


def _key_of(site: Site) -> str:
    """By what a site is told from another of its name."""
    reading, name = site.members[0]
    key = reading.replay.actors.key(name)
    return f"key {key[:8]}" if key else f"no key, ledger {reading.number}"


def histories_of(site: Site) -> Iterator[History]:
    """What a site did to each of its data sets."""
    names = dict.fromkeys(dataset for reading, name in site.members for dataset in reading.replay.datasets(name))
    for dataset in names:
        yield _history(site, dataset)


def _history(site: Site, dataset: str) -> History:
    events: list[tuple[str, Reading, int, Spend | Budget]] = []
    for reading, name in site.members:
        spends: Iterator[tuple[int, Spend | Budget]] = (
            (spend.entry, spend) for spend in reading.replay.spends.get((name, dataset), ())
        )
        budgets_here: Iterator[tuple[int, Spend | Budget]] = iter(reading.replay.budgets.get((name, dataset), ()))
        latest = ""
        for entry, event in heapq.merge(budgets_here, spends, key=itemgetter(0)):
            # A clock that was put back does not change the order of a ledger.
            own = reading.replay.stated.get(entry) or reading.replay.reserved[entry].time
            latest = max(latest, own)
            events.append((latest, reading, entry, event))
    events.sort(key=itemgetter(0))
    budgets: list[BudgetStated] = []
    charged: list[tuple[Place, Spend, Reserved]] = []
    counted: set[bytes] = set()
    for _, reading, entry, event in events:
        if isinstance(event, Budget):
            budgets.append(BudgetStated(before=len(charged), entry=reading.place(entry), budget=event))
        elif event.leaf not in counted:
            counted.add(event.leaf)
            charged.append((reading.place(entry), event, reading.replay.reserved[entry]))
    return History(
        site=site.name,
        dataset=dataset,
        entries=tuple(entry for entry, _, _ in charged),
        mechanisms=tuple(spend.mechanism for _, spend, _ in charged),
        reserved=tuple(reserved for _, _, reserved in charged),
        budgets=tuple(budgets),
        delta=min([float(each.budget.delta) for each in budgets] or [spend.delta for _, spend, _ in charged]),
    )
