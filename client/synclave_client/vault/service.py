"""The vault as a process: settings in, a Unix socket out.

It opens no other socket. Under systemd and in containers it has no network at all (``PrivateNetwork=yes``); see
deploy/README.md for the users and the folders.
"""

from __future__ import annotations

import argparse
import grp
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.keyring import Keyring
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.session import Vault, Workload
from synclave_client.vault_channel import serve
from synclave_shared.errors import ConfigurationError, SynclaveError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.protocol import NOT_READY

__all__ = ["configure_log", "initialise", "leave", "main", "run", "serve_site"]

STOP_GRACE_S: Final = 2.0
"""How long a stopping vault waits for a reply to be handed over. A training that goes on is cut off: the journal allows
it at any instant, and the coordinator may ask for the round again."""

_log = logging.getLogger("synclave.vault")


def initialise(settings: SiteSettings, key_valid_days: int | None = None) -> str:
    """Make the state of a new site: its folder (mode 0700), signing key and empty journal.

    Args:
        settings: the site's settings.
        key_valid_days: for how many days a key that is made here may sign; None: without end.

    Returns:
        The site's public key, base64: what the coordinator needs for a plan.

    Raises:
        ConfigurationError: if the site has a key already, or it cannot be written.
        JournalError: if the site has a journal already, or it cannot be written.
    """
    settings.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.state_folder.chmod(0o700)
    key = _first_key(settings, key_valid_days)
    Journal.create(settings.journal_file)
    return key.public_text


def _first_key(settings: SiteSettings, valid_days: int | None) -> SigningKey:
    if settings.key is None:
        return SigningKey.generate(settings.key_file, valid_days)
    if valid_days is not None:
        raise ConfigurationError(
            expected="a key that is made here, to give it an end",
            found=f"the key {settings.key}",
            remedy="Write its end behind it, as docs/commands.md says, or leave --key-valid-days away.",
        )
    return SigningKey.named(settings.key)


def serve_site(settings: SiteSettings, training_lock: threading.Lock, rehearsals: Rehearsals | None = None) -> Any:
    """Start one site's vault; returns its started ``grpc.Server``.

    ``training_lock`` and ``rehearsals`` are shared by the sites of a simulation.

    Data that cannot be used do not stop the vault: it answers ``not-ready``, so that the coordinator learns
    that this site is not ready, and the log explains it to the steward.

    Raises:
        SynclaveError: if journal, key or socket cannot be used; then there is nothing to answer with.
    """
    journal = Journal.open(settings.journal_file)
    try:
        journal.data_sets.check(settings.dataset, settings.data_folder)
        keyring = Keyring(settings, journal)
        key = keyring.current()
        keyring.retire()
        if key.not_after:
            _log.info("%s: the key ends %s; replace it before (synclave-site rotate-key)", settings.name, key.not_after)
        _open_socket_folder(settings)
        vault = Vault(settings, journal, key, _load(settings, journal, rehearsals), training_lock=training_lock)
        server = serve(vault.handle, settings.socket_path, for_group=settings.gateway_group is not None)
    except BaseException:
        journal.close()
        raise
    _log.info("%s: ready on %s", settings.name, settings.socket_path)
    return server


def _load(settings: SiteSettings, journal: Journal, rehearsals: Rehearsals | None) -> Workload | None:
    # Imported here: torch takes seconds, and settings that cannot be used should say so at once.
    from synclave_client.vault.loading import load_workload

    try:
        workload = load_workload(settings, rehearsals)
        patients = journal.data_sets.marks(settings.marks_file, workload.patient_ids)
        journal.data_sets.admit(settings.dataset, patients)
        return workload
    except SynclaveError as error:
        _log.error(
            "%s: data or device cannot be used. Expected %s; found %s. %s Then restart it; until then it answers %s.",
            settings.name,
            error.expected,
            error.found,
            error.remedy,
            NOT_READY,
        )
        return None
    except Exception:  # noqa: BLE001 - a reader's bug must not take the vault down, nor leave it in words
        _log.exception("%s: the data cannot be read", settings.name)
        return None


def _open_socket_folder(settings: SiteSettings) -> None:
    """Let the gateway's group, and nobody else, reach the socket: a set-group-id folder of mode 2750.

    The socket inherits the folder's group, so a vault that may not change owners (its systemd unit) can still make it.
    """
    if settings.gateway_group is None:
        return
    folder = settings.socket_path.parent
    group = _group_id(settings.gateway_group)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if (status.st_gid, status.st_mode & 0o7777) != (group, 0o2750):
            os.chown(folder, -1, group)
            folder.chmod(0o2750)
    except OSError as error:
        raise ConfigurationError(
            expected=f"a socket folder {folder} of group {settings.gateway_group}",
            found=f"{type(error).__name__}: {error}",
            remedy="Add the vault's user to that group, or make the folder yourself: owner vault, mode 2750.",
        ) from None


def _group_id(group: str) -> int:
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigurationError(
            expected=f"a group {group} on this machine", found="none", remedy="Create it (deploy/README.md)."
        ) from None


def run(settings: Sequence[SiteSettings]) -> None:
    """Serve sites until SIGTERM or SIGINT. Several in one process are a simulation; they train one at a time.

    Raises:
        SynclaveError: if a site cannot be served; none is then.
    """
    # Whatever is written from here on is for this user alone; the socket's mode is set explicitly.
    os.umask(0o077)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    training_lock = threading.Lock()
    rehearsals = Rehearsals() if len(settings) > 1 else None
    servers: dict[Path, Any] = {}
    try:
        for site in settings:
            servers[site.socket_path] = serve_site(site, training_lock, rehearsals)
        stop.wait()
    finally:
        for stopping in [server.stop(STOP_GRACE_S) for server in servers.values()]:
            stopping.wait()
        for socket_path in servers:
            socket_path.unlink(missing_ok=True)


def configure_log() -> None:
    """Write the log to standard error: the service manager keeps it, at the site."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def leave(status: int) -> None:
    """End the process at once. An ordinary exit would wait for a training that was cut off, for minutes."""
    sys.stdout.flush()
    logging.shutdown()
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m synclave_client.vault --settings site.toml [--settings other.toml ...]``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m synclave_client.vault", description="The vault of one or more sites."
    )
    parser.add_argument(
        "--settings", type=Path, action="append", required=True, help="a site.toml; repeat to simulate many sites"
    )
    options = parser.parse_args(arguments)
    configure_log()
    try:
        run([SiteSettings.load(path) for path in options.settings])
    except SynclaveError as error:
        _log.error("Expected: %s. Found: %s. What to do: %s", error.expected, error.found, error.remedy)
        return 1
    return 0
