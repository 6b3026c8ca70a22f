"""Child processes that never outlive us: each in a session of its own, its output in a log, all stopped together.

Both the coordinator and a site's gateway start Flower's programs as children. However the parent ends (normally, with
an error, by Ctrl-C, by SIGTERM, or killed with -9) its children end too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from synclave_shared.errors import FederationError

__all__ = [
    "Child",
    "ProcessGroup",
    "flower_environment",
    "free_port",
    "stop_on_signals",
    "wait_for_port",
    "write_secret",
]

STOP_TIMEOUT_S: Final = 8.0
"""Patience with a child that was asked to end, before it is killed."""

RELEASE_TIMEOUT_S: Final = 0.5
"""Patience with a child whose work is done and on disk."""

_PR_SET_PDEATHSIG: Final = 1
# Runs before the child's own program and is replaced by it. On Linux the kernel then ends the child when we die, even
# by kill -9. A preexec_fn would do the same, but is unsafe once the parent has threads.
_SHIM: Final = f"""
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent ended before its child began")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def flower_environment(home: Path) -> dict[str, str]:
    """The environment in which we run Flower's programs: no telemetry, no update check, no proxy for loopback.

    Args:
        home: Flower's state folder (``FLWR_HOME``), so that nothing is read from or written to ``~/.flwr``.
    """
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        # Flower starts its programs by name; ours must be the ones installed beside us.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def write_secret(path: Path, text: str) -> None:
    """Write a secret to a file that only its owner can read, also where a file with a looser mode was left over."""
    with open(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """One running program and the log it writes."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the program and everything it started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class ProcessGroup:
    """Children that are stopped together; use it as a context manager.

    Args:
        logs: folder for the children's output, one file per name, appended to.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def __enter__(self) -> ProcessGroup:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a program under a ``name``, by which its log and our errors call it."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - the command is ours, no shell is involved
                [sys.executable, "-S", "-E", "-c", _SHIM, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    @property
    def children(self) -> tuple[Child, ...]:
        """All that were started and not released."""
        return tuple(self._children)

    def check(self, *, but: Child | None = None) -> None:
        """Make sure that every child still runs, ``but`` one that may have ended.

        Raises:
            FederationError: naming the first one that ended.
        """
        for child in self._children:
            if child is not but and not child.running:
                raise FederationError(
                    expected=f"{child.name} to keep running",
                    found=f"it ended with status {child.process.returncode}",
                    remedy=f"Read {child.log}.",
                )

    def release(self, child: Child) -> None:
        """Forget a child whose work is done; it may end by itself, but is not waited for longer than a moment."""
        self._children.remove(child)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(RELEASE_TIMEOUT_S)
        child.signal(signal.SIGKILL)
        child.process.wait()

    def terminate(self) -> None:
        """Ask all children to end, and wait for none; :meth:`stop` does."""
        for child in reversed(self._children):
            child.process.terminate()

    def stop(self) -> None:
        """Ask all children to end, wait, and kill what is left of them."""
        self.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            # Also what a child left behind in its session after it ended itself.
            child.signal(signal.SIGKILL)
            child.process.wait()
        self._children.clear()


def wait_for_port(host: str, port: int, group: ProcessGroup, timeout_s: float) -> None:
    """Wait until something listens, as long as the children that should make it so are alive.

    Raises:
        FederationError: if a child ended, or nothing listens within ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        group.check()
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
            return
        time.sleep(0.05)
    raise FederationError(
        expected=f"a server on {host}:{port} within {timeout_s:g} s",
        found="none",
        remedy="Read the logs in the run's folder; a slow or overloaded machine may need a second attempt.",
    )


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into ``KeyboardInterrupt``, so that ``finally`` blocks run as they do on Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; whoever runs us in another thread handles signals there
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
