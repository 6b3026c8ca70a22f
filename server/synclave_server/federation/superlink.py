"""The coordinator's SuperLink: Flower's application on loopback, the gate in front of it on the public TLS port.

Started by :mod:`synclave_server.federation.coordinator` as a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.main import create_app

from synclave_server.federation.gate import MAX_CONNECTIONS, App, Doorbell, loopback_gate, public_gate

STOP_GRACE_S: Final = 2
"""How long requests that are being answered may take when we are asked to end."""


class _Server(uvicorn.Server):  # type: ignore[misc, unused-ignore]
    """A uvicorn server that leaves signals to us: there are two of them in this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _flower_application(port: int, secret: str) -> object:
    # State stays in memory: a run's truth is its own folder (ledger, snapshots), from which it resumes with a new
    # SuperLink. A database would hold a second copy of every model and refuse to start after a change of version.
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=port,
        insecure=True,
        certificates=None,
        superexec_auth_secret=secret.encode("ascii"),
        authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


def _public_server(app: App, host: str, port: int, certificate: Path | None, private_key: Path | None) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            ssl_certfile=certificate,
            ssl_keyfile=private_key,
            access_log=False,
            log_level="warning",
            ws="none",
            lifespan="off",  # the application's life is the loopback server's
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=STOP_GRACE_S,
        )
    )


async def _serve(arguments: argparse.Namespace) -> None:
    secret = arguments.secret_file.read_text(encoding="ascii").strip()
    to_sites, to_coordinator = Doorbell(), Doorbell()
    application = _flower_application(arguments.loopback_port, secret)
    loopback = _Server(
        uvicorn.Config(
            loopback_gate(application, secret, to_sites=to_sites, to_coordinator=to_coordinator),  # type: ignore[arg-type]
            host="127.0.0.1",
            port=arguments.loopback_port,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=STOP_GRACE_S,
        )
    )
    public = _public_server(
        public_gate(application, to_sites=to_sites, to_coordinator=to_coordinator),  # type: ignore[arg-type]
        arguments.host,
        arguments.port,
        arguments.certificate,
        arguments.private_key,
    )

    def stop() -> None:
        to_sites.close()
        to_coordinator.close()
        loopback.should_exit = public.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await asyncio.gather(loopback.serve(), public.serve())


def main() -> None:
    """``python -m synclave_server.federation.superlink``."""
    parser = argparse.ArgumentParser(description="Run the coordinator's SuperLink.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loopback-port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--private-key", type=Path, required=True)
    parser.add_argument("--secret-file", type=Path, required=True)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
