"""The ClientApp of every site: carries envelopes between Flower and the vault without reading them.

It has no access to data, model or the keys of the journal. Whatever goes wrong here or behind it, the coordinator
receives a closed code and never the text of an exception.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from synclave_client.vault_channel import VaultClient
from synclave_shared.errors import ConfigurationError, SynclaveError
from synclave_shared.protocol import Envelope, failed
from synclave_shared.wire import from_records, to_records

__all__ = ["SOCKETS_VARIABLE", "SOCKET_VARIABLE", "app", "relay"]

SOCKET_VARIABLE: Final = "SYNCLAVE_VAULT_SOCKET"
"""Environment variable with the vault's socket, set by the gateway's launcher. A message cannot change it."""

SOCKETS_VARIABLE: Final = "SYNCLAVE_VAULT_SOCKETS"
"""In a simulation instead: a folder with one socket per simulated site, named ``<partition-id>.sock``."""

VAULT_TIMEOUT_S: Final = 24 * 3600.0
"""No round may last longer (``Federation.round_timeout_s``); a message's own time to live is usually shorter."""

_log = logging.getLogger("synclave.gateway")

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Relay one message to this site's vault."""
    return Message(to_records(relay(message, context)), reply_to=message)


def relay(message: Message, context: Context) -> Envelope:
    """Ask the vault; every failure becomes a closed code, its text stays in the site's log."""
    try:
        with VaultClient(_socket(context)) as vault:
            return vault.exchange(from_records(message.content), min(message.metadata.ttl, VAULT_TIMEOUT_S))
    except SynclaveError as error:
        _log.exception("the gateway could not relay a message")
        return failed(error.code)
    except Exception:  # noqa: BLE001 - its text must not leave the site, whatever it is
        _log.exception("the gateway could not relay a message")
        return failed("internal")


def _socket(context: Context) -> Path:
    """The vault that this gateway belongs to."""
    if one := os.environ.get(SOCKET_VARIABLE):
        return Path(one)
    folder = os.environ.get(SOCKETS_VARIABLE)
    partition = context.node_config.get("partition-id")
    if folder and isinstance(partition, int):
        return Path(folder) / f"{partition}.sock"
    raise ConfigurationError(
        expected=f"{SOCKET_VARIABLE} to name the vault's socket",
        found="nothing",
        remedy="Start the gateway with `synclave-site gateway`.",
    )
