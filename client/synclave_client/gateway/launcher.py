"""A site's gateway, whole: Flower's SuperNode as a child, and beside it the executor of this process.

``synclave-site gateway`` runs this at a hospital; the demo starts the very same program, once per site.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synclave_client.vault_channel import VaultClient
from synclave_shared.errors import FederationError, SynclaveError
from synclave_shared.node_keys import node_key
from synclave_shared.processes import ProcessGroup, flower_environment, free_port, stop_on_signals, write_secret

__all__ = ["GatewaySettings", "run_gateway"]

RESTART_DELAYS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before the SuperNode is started again. The coordinator may be away, may not have registered us yet, or may
hold the lease of a SuperNode that was killed, for up to 60 s."""

STEADY_S: Final = 60.0
"""A SuperNode that ran this long counts as healthy; the next restart is quick again."""

VAULT_PATIENCE_S: Final = 1.0
"""Between two looks at the SuperNode while the vault is not up yet."""

_log = logging.getLogger("synclave.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What a gateway needs; nothing of it is about patients.

    Attributes:
        name: the site's name.
        superlink: the coordinator's public address, ``host:port``.
        root_certificate: PEM file with the certificate authority of that address.
        socket: the vault's Unix socket.
        state: the gateway's own folder: node key, Flower's state, logs.
    """

    name: str
    superlink: str
    root_certificate: Path
    socket: Path
    state: Path

    @property
    def node_key(self) -> Path:
        """Where the node key lies; its public half is what the coordinator registers."""
        return self.state / "node.key"


def run_gateway(settings: GatewaySettings) -> None:
    """Serve until interrupted (Ctrl-C, SIGTERM): keeps a SuperNode running and answers its tasks.

    Raises:
        ConfigurationError: if the node key cannot be read.
    """
    # What the app reads; set here, before it is imported, and by nobody else.
    os.environ["SYNCLAVE_VAULT_SOCKET"] = str(settings.socket.resolve())
    node_key(settings.node_key)
    environment = flower_environment(settings.state / "flower")
    os.environ.update(environment)
    from synclave_client.gateway.executor import Executor

    secret = secrets.token_hex(32)
    secret_file = settings.state / "executor.secret"
    write_secret(secret_file, secret)
    port = free_port()
    command = [
        *("flower-supernode", "--superlink", settings.superlink),
        *("--root-certificates", str(settings.root_certificate)),
        *("--auth-supernode-private-key", str(settings.node_key)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(secret_file)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with stop_on_signals(), ProcessGroup(settings.state / "logs") as group:
        executor = Executor(f"127.0.0.1:{port}", secret.encode("ascii"))
        attempt = 0
        # The SuperNode comes up while the vault still loads data and model; requests wait for it in the SuperNode.
        vault, ready = VaultClient(settings.socket), False
        try:
            while True:
                supernode = group.start("supernode", command, environment)
                started = time.monotonic()
                while supernode.running:
                    if ready or _is_up(vault):
                        ready = True
                        executor.step()
                if time.monotonic() - started > STEADY_S:
                    attempt = 0
                delay_s = RESTART_DELAYS_S[min(attempt, len(RESTART_DELAYS_S) - 1)]
                attempt += 1
                _log.warning("the SuperNode ended (status %s)", supernode.process.returncode)
                _log.warning("it starts again in %g s; its log is %s", delay_s, supernode.log)
                time.sleep(delay_s)
        finally:
            vault.close()
            executor.close()


def _is_up(vault: VaultClient) -> bool:
    try:
        vault.wait_ready(VAULT_PATIENCE_S)
    except FederationError:
        return False
    return True


def main() -> None:
    """``python -m synclave_client.gateway.launcher``: what the demo and service managers start."""
    parser = argparse.ArgumentParser(description="Run a site's gateway.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--superlink", required=True, help="the coordinator's address, host:port")
    parser.add_argument("--root-certificate", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write a line per question for work
    settings = GatewaySettings(**vars(parser.parse_args()))
    try:
        run_gateway(settings)
    except KeyboardInterrupt:
        _log.info("the gateway of %s stopped", settings.name)
    except SynclaveError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
