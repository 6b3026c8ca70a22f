"""Many sites on one machine: the same apps under Flower's simulation engine, and one process for all vaults.

Messages, plans, journals and ledgers are those of a deployment; what is missing is the network and its guards. The
engine (Ray) runs in a process of its own, so that it is stopped with everything it started.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flwr.clientapp import ClientApp
from flwr.simulation import run_simulation

from synclave_server.app import COORDINATOR_KEY_VARIABLE, RUN_VARIABLE, app
from synclave_server.federation.coordinator import follow
from synclave_server.federation.deployment import STATE_FOLDER, InstalledSite, single_threaded, start_vaults
from synclave_server.run_folder import ProgressTail, RoundProgress, RunFolder
from synclave_shared.bundle import CLIENT_APP
from synclave_shared.processes import ProcessGroup, flower_environment, stop_on_signals

__all__ = ["run_simulated"]

SOCKETS_VARIABLE: Final = "SYNCLAVE_VAULT_SOCKETS"
"""Environment variable by which a simulated gateway finds its vault: a folder with ``<partition-id>.sock``."""


def run_simulated(
    run: RunFolder,
    coordinator_key: str,
    site_settings: Sequence[Path],
    progress: Callable[[RoundProgress], None],
    *,
    workers: int = 2,
) -> None:
    """Run a prepared plan in the simulation engine; resume it if it was begun.

    Args:
        run: the prepared folder.
        coordinator_key: names the coordinator's Ed25519 key.
        site_settings: ``site.toml`` of each site.
        progress: called with every event.
        workers: gateways that work at a time; vaults train one after the other in any case.

    Raises:
        ConfigurationError: if a site's settings cannot be used.
        FederationError: if the run failed or a process ended; the error says which and where its log is.
    """
    sites = [InstalledSite.read(path) for path in site_settings]
    sockets = run.path / STATE_FOLDER / "sockets"
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700, parents=True)
    for partition, site in enumerate(sites):
        (sockets / f"{partition}.sock").symlink_to(site.socket.resolve())
    environment = single_threaded(flower_environment(run.path / STATE_FOLDER / "flower"))
    environment |= {
        RUN_VARIABLE: str(run.path.resolve()),
        COORDINATOR_KEY_VARIABLE: coordinator_key,
        SOCKETS_VARIABLE: str(sockets.resolve()),
    }
    command = [sys.executable, "-m", "synclave_server.federation.simulation"]
    tail = ProgressTail(run.progress)
    with stop_on_signals(), ProcessGroup(run.logs) as group:
        start_vaults(group, "vaults", sites, run)
        engine = group.start("simulation", [*command, str(len(sites)), str(workers)], environment)
        follow(engine, tail, progress, check=lambda: group.check(but=engine))
        group.release(engine)


def main() -> None:
    """``python -m synclave_server.federation.simulation SITES WORKERS``: the engine's process."""
    parser = argparse.ArgumentParser(description="Run the simulation engine for one run.")
    parser.add_argument("sites", type=int)
    parser.add_argument("workers", type=int)
    arguments = parser.parse_args()
    # By name, as Flower itself loads it: the coordinator's rooms import nothing of the client's.
    module, _, attribute = CLIENT_APP.partition(":")
    client_app = getattr(importlib.import_module(module), attribute)
    if not isinstance(client_app, ClientApp):
        raise TypeError(f"{CLIENT_APP} is no ClientApp")
    # Ray writes below /tmp unless told; its own socket paths are long, so this stays as it is.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    run_simulation(
        server_app=app,
        client_app=client_app,
        num_supernodes=arguments.sites,
        backend_config={
            "init_args": {"num_cpus": arguments.workers, "num_gpus": 0},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
