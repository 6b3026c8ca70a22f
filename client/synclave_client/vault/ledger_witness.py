"""A site as a witness: a ledger that is shown is held against its copy, which grows by it, and co-signed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.keyring import Keyring
from synclave_client.vault.ledger_copies import SeenLedger
from synclave_client.vault.signed_entries import JournalEntry
from synclave_shared.errors import LedgerError, PolicyRefusal
from synclave_shared.ledger.frontier import EMPTY
from synclave_shared.ledger.witness import check_roster, cosign, follow
from synclave_shared.plan import TrainPlan
from synclave_shared.protocol import CheckpointPresentation

__all__ = ["LedgerWitness"]


class LedgerWitness:
    """Checks and co-signs the ledgers of a site's plans.

    Args:
        settings: the site's settings.
        journal: its journal, which holds the copies.
        keys: its keys.
        clock: the present time in whole seconds.
    """

    def __init__(self, settings: SiteSettings, journal: Journal, keys: Keyring, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._journal = journal
        self._keys = keys
        self._clock = clock

    def see(
        self,
        digest: str,
        presentation: CheckpointPresentation,
        plan: TrainPlan | None,
        *,
        demanded: Callable[[JournalEntry], bool] = lambda entry: entry.sent,
    ) -> SeenLedger:
        """Check the presented ledger against this site's copy, extend the copy, and co-sign it.

        Args:
            digest: digest of the plan.
            presentation: the ledger as it is shown.
            plan: the plan, whose roster says who may sign in the ledger; None if it was not shown yet.
            demanded: whether an entry of this site must be in it, if the copy does not have it.

        Raises:
            PolicyRefusal: ``ledger-inconsistent``; the copy is as it was.
        """
        copies, name = self._journal.ledgers, self._settings.name
        seen, actors = copies.seen(digest), copies.actors(digest)
        roster = None if plan is None else {site.name: site.public_key for site in plan.sites}
        try:
            if roster is not None and self._journal.plan(digest) is None:
                # The parts of a long ledger were copied before its plan was known.
                check_roster(copies.entries(digest), roster, name)
            growth = follow(
                presentation,
                origin=f"synclave/{digest[:16]}",
                operator_key=self._settings.coordinator_key,
                roster=roster,
                known=EMPTY if seen is None else seen.frontier,
                actors=actors,
                site=name,
                wrote=lambda content: self._journal.signed.wrote(digest, content),
                sent=[entry.content for entry in self._journal.signed.open(digest) if demanded(entry)],
            )
        except LedgerError as error:
            raise PolicyRefusal("ledger-inconsistent", found=error.found, remedy=error.remedy) from None
        # The key that counts in the ledger as it is shown: there the next one may not stand yet.
        mine = growth.actors.get(name) or actors.get(name)
        key = self._keys.current() if mine is None else self._keys.find(mine.public_key)
        if key is None:
            raise PolicyRefusal(
                "not-in-roster",
                found="a ledger under a key of this site that was replaced and removed",
                remedy="Sign a new plan, with the site's present key.",
            )
        seen = copies.extend(digest, growth, cosign(growth.note, name, key, self._clock()))
        if mine is not None and name in actors and actors[name].public_key != mine.public_key:
            self._keys.retire()
        return seen
