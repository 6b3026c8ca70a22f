"""Vault and gateway side by side on one machine, each started again when it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synclave_shared.errors import FederationError
from synclave_shared.processes import Child, ProcessGroup, stop_on_signals

__all__ = ["supervise"]

RESTART_DELAYS_S: Final = (1.0, 2.0, 5.0, 15.0)
"""Pauses before the first, second, ... restart of a process that does not stay up; after the last it is given up."""

STEADY_S: Final = 60.0
"""A process that ran this long counts as healthy: its restarts are counted from zero again."""

_POLL_S: Final = 0.2


@dataclass(slots=True)
class _Watched:
    child: Child
    started: float
    restarts: int = 0


def supervise(commands: Mapping[str, Sequence[str]], *, logs: Path, tell: Callable[[str], None]) -> None:
    """Keep programs running until Ctrl-C or SIGTERM; then all of them are stopped.

    Args:
        commands: name -> command line.
        logs: folder for their output, one file per name.
        tell: is told what a person should know: that all run, and each restart.

    Raises:
        FederationError: if one of them ends again and again.
    """
    try:
        with stop_on_signals(), ProcessGroup(logs) as group:
            watched = {
                name: _Watched(group.start(name, command, os.environ), time.monotonic())
                for name, command in commands.items()
            }
            tell(f"{' and '.join(commands)} are running; Ctrl-C stops them. Their logs: {logs}")
            while True:
                time.sleep(_POLL_S)
                for name, one in watched.items():
                    if not one.child.running:
                        _restart(group, name, commands[name], one, tell)
    except KeyboardInterrupt:
        return


def _restart(
    group: ProcessGroup, name: str, command: Sequence[str], one: _Watched, tell: Callable[[str], None]
) -> None:
    if time.monotonic() - one.started > STEADY_S:
        one.restarts = 0
    if one.restarts == len(RESTART_DELAYS_S):
        raise FederationError(
            expected=f"the {name} to stay up",
            found=f"{one.restarts + 1} ends, the last with status {one.child.process.returncode}",
            remedy=f"Read {one.child.log}, correct what it says, and start again.",
        )
    delay_s = RESTART_DELAYS_S[one.restarts]
    tell(f"the {name} ended with status {one.child.process.returncode}; again in {delay_s:g} s. See {one.child.log}")
    time.sleep(delay_s)
    one.child = group.start(name, command, os.environ)
    one.started = time.monotonic()
    one.restarts += 1
