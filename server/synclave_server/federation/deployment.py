"""A whole federation on this machine, as real as one over many hospitals: per site a vault and a gateway process.

What runs here for a site is what a hospital runs, started by the same commands. The coordinator's rooms import
nothing of the client's.
"""

from __future__ import annotations

import os
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from synclave_server.federation.coordinator import Coordinator, serve
from synclave_server.run_folder import RoundProgress, RunFolder
from synclave_shared.errors import ConfigurationError
from synclave_shared.node_keys import node_key
from synclave_shared.processes import ProcessGroup, flower_environment, stop_on_signals

__all__ = ["InstalledSite", "run_deployed", "single_threaded"]

STATE_FOLDER: Final = "coordinator"
"""Folder within a run for the coordinator's certificates, secrets and Flower's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledSite:
    """What the coordinator needs to know of a site that is installed on this machine.

    Attributes:
        name: the site's name.
        settings: its ``site.toml``.
        socket: its vault's socket.
    """

    name: str
    settings: Path
    socket: Path

    @classmethod
    def read(cls, settings: Path) -> Self:
        """Find name and socket in a site's settings; everything else in there is the site's own business.

        Raises:
            ConfigurationError: if the file cannot be read or lacks one of the two.
        """
        try:
            content = tomllib.loads(settings.read_text(encoding="utf-8"))
            name, socket = content["name"], content["socket_path"]
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
            raise ConfigurationError(
                expected="a site's settings with name and socket_path",
                found=f"{settings}: {error}",
                remedy="Write them with `synclave-site init`.",
            ) from None
        return cls(name=str(name), settings=settings, socket=settings.resolve().parent / str(socket))

    @property
    def gateway_state(self) -> Path:
        """The gateway's folder beside the settings, where `synclave-site init` puts it too."""
        return self.settings.resolve().parent / "gateway"


def single_threaded(environment: dict[str, str]) -> dict[str, str]:
    """Keep numerical libraries to one thread each: several sites share this machine's cores."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return {**environment, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def run_deployed(
    run: RunFolder, coordinator_key: str, site_settings: Sequence[Path], progress: Callable[[RoundProgress], None]
) -> None:
    """Run a prepared plan with a real SuperLink and, per site, a real gateway and vault; resume it if it was begun.

    Every process that was started here is stopped when this returns or raises, also on Ctrl-C and SIGTERM.

    Args:
        run: the prepared folder.
        coordinator_key: names the coordinator's Ed25519 key.
        site_settings: ``site.toml`` of each site.
        progress: called with every event.

    Raises:
        ConfigurationError: if a site's settings cannot be used.
        FederationError: if the run failed or a process ended; the error says which and where its log is.
    """
    sites = [InstalledSite.read(path) for path in site_settings]
    started = time.monotonic()
    with stop_on_signals(), ProcessGroup(run.logs) as group:
        # Vaults first: they load data and model while the network comes up.
        for site in sites:
            start_vaults(group, f"vault-{site.name}", [site], run)
        with serve(run.path / STATE_FOLDER, run.logs) as coordinator:
            coordinator.register({site.name: node_key(site.gateway_state / "node.key") for site in sites})
            for site in sites:
                _start_gateway(group, site, coordinator, run)
            progress(_joining(run, len(sites), time.monotonic() - started))
            watch = _Watch(group, run.plan().federation.minimum_sites, len(sites))

            def observed(event: RoundProgress) -> None:
                watch.joining = event.stage == "joining"
                progress(event)

            try:
                coordinator.run(run, coordinator_key, observed, check=watch.check)
            finally:
                group.terminate()  # while the SuperLink still runs, so that the SuperNodes can say goodbye


class _Watch:
    """Ends a run early when too few sites are left. One that ends after the start was lost: the others go on.

    Args:
        group: the sites' processes, two per site, named by it.
        minimum: fewest sites with which the run goes on.
        sites: number of sites.
    """

    def __init__(self, group: ProcessGroup, minimum: int, sites: int) -> None:
        self._group = group
        self._minimum = minimum
        self._sites = sites
        self.joining = True

    def check(self) -> None:
        """See the class.

        Raises:
            FederationError: naming a process that ended.
        """
        ended = {child.name.partition("-")[2] for child in self._group.children if not child.running}
        if ended and (self.joining or self._sites - len(ended) < self._minimum):
            self._group.check()


def start_vaults(group: ProcessGroup, name: str, sites: Sequence[InstalledSite], run: RunFolder) -> None:
    """Start one vault process for these sites."""
    settings = [argument for site in sites for argument in ("--settings", str(site.settings))]
    environment = single_threaded(flower_environment(run.path / STATE_FOLDER / "flower"))
    group.start(name, [sys.executable, "-m", "synclave_client.vault", *settings], environment)


def _start_gateway(group: ProcessGroup, site: InstalledSite, coordinator: Coordinator, run: RunFolder) -> None:
    command = [
        *(sys.executable, "-m", "synclave_client.gateway.launcher"),
        *("--name", site.name),
        *("--superlink", coordinator.address),
        *("--root-certificate", str(coordinator.certificates.authority)),
        *("--socket", str(site.socket)),
        *("--state", str(site.gateway_state)),
    ]
    group.start(f"gateway-{site.name}", command, single_threaded(flower_environment(site.gateway_state / "flower")))


def _joining(run: RunFolder, sites: int, seconds: float) -> RoundProgress:
    return RoundProgress(
        stage="joining",
        text=f"the coordinator is up, {sites} sites are starting",
        rounds=run.plan().last_round(),
        sites_expected=sites,
        seconds=seconds,
    )
