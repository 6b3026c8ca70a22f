"""The site's signing keys: the one that counts, by the journal, and those it replaced while open plans need them.

A rotation is one transaction of the journal. Before it the new key lies durably in its file; after it everything is
signed with the new one. Whatever instant the machine stops at, the key that counts is in the state folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from synclave_client.settings import SiteSettings
from synclave_client.vault.database import sync
from synclave_client.vault.journal import Journal
from synclave_client.vault.signed_entries import EntrySigner
from synclave_shared.errors import ConfigurationError, JournalError
from synclave_shared.ledger.entry import KeyRegistered, KeyRotated, sign_entry
from synclave_shared.ledger.keys import TIME_FORMAT, SigningKey

__all__ = ["Keyring", "Rotation", "registration_by", "rotate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a rotation did.

    Attributes:
        old, new: public keys, base64.
        not_after: the last moment at which the new key may sign; empty if it has no end.
        plans: digests of the plans whose ledgers are told, each with the site's next reply for it.
    """

    old: str
    new: str
    not_after: str
    plans: tuple[str, ...]


class Keyring:
    """Finds this site's keys by their public halves.

    Args:
        settings: the site's settings.
        journal: its journal, which says which key counts.
        key: the key of a site that has registered none; None: the one that the settings name.
    """

    def __init__(self, settings: SiteSettings, journal: Journal, key: SigningKey | None = None) -> None:
        self._settings = settings
        self._journal = journal
        self._known = {} if key is None else {key.public_text: key}
        self._first = key

    def current(self) -> SigningKey:
        """The key that counts now.

        Raises:
            JournalError: if it is not the one that the settings name, nor in the state folder.
            ConfigurationError: if the site has registered none, and the one that the settings name cannot be used.
        """
        registered = self._journal.signed.registered_key()
        if registered is None:
            return self._first or SigningKey.named(self._settings.key_name)
        key = self.find(registered)
        if key is None:
            raise JournalError(
                expected="the key that counts by this journal",
                found=f"others: {self._settings.key_name} and the key files in {self._settings.state_folder}",
                remedy="Key and journal belong together; put the right key back. An older copy of the journal"
                " forgets spends: see Back up in deploy/README.md before restoring it.",
            )
        return key

    def find(self, public_text: str) -> SigningKey | None:
        """The key with this public half (base64), if this site has it."""
        if public_text not in self._known:
            self._known.update((key.public_text, key) for _, key in self._files())
            with contextlib.suppress(ConfigurationError):
                named = SigningKey.named(self._settings.key_name)
                self._known[named.public_text] = named
        return self._known.get(public_text)

    def retire(self) -> None:
        """Remove replaced keys from the state folder, once the copy of every open plan's ledger has a newer one."""
        signed = self._journal.signed
        replaced = set(signed.registered_keys()[:-1]) - signed.keys_needed(self._settings.name)
        for path, key in self._files():
            if key.public_text in replaced:
                path.unlink(missing_ok=True)
                self._known.pop(key.public_text, None)
        sync(self._settings.state_folder)

    def _files(self) -> Iterator[tuple[Path, SigningKey]]:
        for path in sorted(self._settings.state_folder.glob("site*.key")):
            # One that is being written, or that was when the machine stopped, is no key yet.
            with contextlib.suppress(ConfigurationError):
                yield path, SigningKey.load(path)


def registration_by(name: str, key: Callable[[], SigningKey], clock: Callable[[], datetime]) -> EntrySigner:
    """Signs a site's registration of a key."""

    def sign(previous: str) -> bytes:
        mine = key()
        body = KeyRegistered(name=name, role="site", public_key=mine.public_text, not_after=mine.not_after)
        return sign_entry("key-registered", name, "", body, mine, clock(), previous=previous).to_bytes()

    return sign


def rotate(
    settings: SiteSettings,
    journal: Journal,
    *,
    key: SigningKey | None = None,
    valid_days: int | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Rotation:
    """Replace the site's signing key; may run beside the vault, which signs with the new one from then on.

    Args:
        settings: the site's settings.
        journal: its journal, opened for writing.
        key: as :class:`Keyring` takes it.
        valid_days: for how many days the new key may sign; None: without end.
        clock: the present time.

    Raises:
        ConfigurationError: if a key cannot be read or written, or the old one has ended while plans are open.
        JournalError: if the journal cannot be written, or knows another key. The old key counts on then.
    """
    keyring = Keyring(settings, journal, key)
    with _alone(settings.state_folder):
        old = keyring.current()
        ended = bool(old.not_after) and clock().astimezone(UTC).strftime(TIME_FORMAT) > old.not_after
        if ended and journal.open_plans():
            raise ConfigurationError(
                expected="a key that may still sign, to hand over to the next one in the ledgers of open plans",
                found=f"one that ended {old.not_after}",
                remedy="Leave these plans with `synclave-site withdraw` (`budget` lists them), then rotate again.",
            )
        if journal.signed.registered_key() is None:
            journal.signed.registration("", registration_by(settings.name, lambda: old, clock))
        # A file of this name that the journal does not know was left by a rotation that never took place.
        path = settings.state_folder / f"site-{len(journal.signed.registered_keys()) + 1}.key"
        path.unlink(missing_ok=True)
        new = SigningKey.generate(path, valid_days)
        body = KeyRotated(name=settings.name, public_key=new.public_text, not_after=new.not_after)

        def hand_over(previous: str) -> bytes:
            return sign_entry("key-rotated", settings.name, "", body, old, clock(), previous=previous).to_bytes()

        plans = journal.signed.rotate(None if ended else hand_over, registration_by(settings.name, lambda: new, clock))
        keyring.retire()
    return Rotation(old=old.public_text, new=new.public_text, not_after=new.not_after, plans=plans)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One rotation at a time: a second one would take the first one's new key for a left-over."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
