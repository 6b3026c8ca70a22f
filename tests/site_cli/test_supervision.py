"""``synclave-site run``: what ends comes back, what cannot stay up is given up, and nothing outlives the parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from synclave_client import supervision
from synclave_client.supervision import supervise
from synclave_shared.errors import FederationError

STAYS = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
ENDS = [sys.executable, "-c", "import os; print(os.getpid(), flush=True); raise SystemExit(3)"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "RESTART_DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(supervision, "_POLL_S", 0.02)


def started(logs: Path, name: str) -> list[int]:
    """Process ids that a program wrote into its log, one per start."""
    log = logs / f"{name}.log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_program_comes_back_and_a_signal_ends_all(tmp_path: Path) -> None:
    def act() -> None:
        while not (started(tmp_path, "one") and started(tmp_path, "two")):
            time.sleep(0.02)
        os.kill(started(tmp_path, "one")[0], signal.SIGKILL)
        while len(started(tmp_path, "one")) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=act, daemon=True).start()
    said: list[str] = []
    supervise({"one": STAYS, "two": STAYS}, logs=tmp_path, tell=said.append)
    assert len(said) == 2
    assert (len(started(tmp_path, "one")), len(started(tmp_path, "two"))) == (2, 1)
    assert not any(alive(process) for name in ("one", "two") for process in started(tmp_path, name))


def test_a_program_that_does_not_stay_up_is_given_up_and_takes_the_other_along(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(FederationError, match="status 3") as given_up:
        supervise({"vault": ENDS, "gateway": STAYS}, logs=tmp_path, tell=said.append)
    assert "vault.log" in given_up.value.remedy
    assert "are running" in said[0]
    assert [("status 3" in text and "vault.log" in text) for text in said[1:]] == [True, True]
    assert len(started(tmp_path, "vault")) == 3
    assert not any(alive(process) for process in started(tmp_path, "gateway"))
