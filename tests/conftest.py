"""Settings of the whole test run."""

import os
import socket

import pytest

# Waiting OpenMP threads must sleep, not spin: on a machine that is shared, spinning makes small fits ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many of us as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _loopback() -> bool:
    """Whether 127.0.0.1 can be reached; in a network namespace of its own it is down at first."""
    with socket.socket() as server, socket.socket() as client:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.settimeout(1)
            client.connect(server.getsockname())
        except OSError:
            return False
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what talks over loopback where there is none; everything else needs no network at all."""
    marked = [item for item in items if item.get_closest_marker("loopback")]
    if marked and not _loopback():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="127.0.0.1 is not reachable (ip link set lo up)"))
