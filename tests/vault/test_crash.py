"""kill -9 at every instant that matters: the spend is never below what could have left, and never charged twice."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synclave_client.settings import SiteSettings
from synclave_client.vault import database, journal
from synclave_client.vault.journal import Journal
from synclave_shared.canonical import sha256_hex
from synclave_shared.plan import TrainPlan
from synclave_shared.protocol import Envelope, parse_reply
from tests.vault.coordinator import Coordinator, FakeWorkload, make_plan, make_settings, open_vault

NEVER = 10_000


class KillAt:
    """Ends the process with SIGKILL at its n-th durable or visible act: SQL statement, fsync, rename, training."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class MarkedWorkload(FakeWorkload):
    """Notes on the disk, before anything else, that patients' data were touched."""

    def __init__(self, folder: Path, kill: Callable[[], None]) -> None:
        super().__init__()
        self.folder = folder
        self.kill = kill

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        (self.folder / f"touched-{round_number}").touch()
        self.kill()
        released = super().release(plan, round_number, payload)
        self.kill()
        return released


def in_child(work: Callable[[], None]) -> bool:
    """Run ``work`` in a forked process; whether it ended by itself (and not by a SIGKILL)."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a fork of the test runner must end here, whatever happens
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed instead of being killed"
    return os.WIFEXITED(status)


def answer(settings: SiteSettings, request: Envelope, reply_file: Path, kill_at: int) -> None:
    """A vault process: open everything, answer one request, hand the reply over, and be killed on the way."""
    kill = KillAt(kill_at)
    real_sync, real_replace = database.sync, Path.replace

    def sync(path: Path) -> None:
        kill()
        real_sync(path)
        kill()

    def replace(self: Path, target: Path) -> Path:
        kill()
        moved = real_replace(self, target)
        kill()
        return moved

    journal.sync, Path.replace = sync, replace  # type: ignore[method-assign, assignment]
    vault, opened = open_vault(settings, MarkedWorkload(settings.state_folder.parent, kill))
    opened._database._connection.set_trace_callback(kill)
    envelope = vault.handle(request)
    assert parse_reply(envelope).status == "ok"
    kill()
    reply_file.write_bytes(envelope.header + b"\n" + envelope.payload)
    kill()
    opened.close()


def test_kill_9_at_every_step_of_a_round(tmp_path: Path) -> None:
    plan = make_plan()
    number = 1
    vault, opened = open_vault(make_settings(tmp_path / "before", data_folder=tmp_path / "data"), FakeWorkload())
    before = Coordinator(vault, plan)
    before.join()
    opened.close()
    request = before.round_request(number)
    kills = 0
    for kill_at in range(1, NEVER):
        folder = tmp_path / str(kill_at)
        shutil.copytree(tmp_path / "before", folder)
        settings = make_settings(folder, data_folder=tmp_path / "data")
        reply_file = folder / "reply"

        ended = in_child(lambda: answer(settings, request, reply_file, kill_at))  # noqa: B023 - runs at once

        reader = Journal.read(settings.journal_file)
        spent = reader.spent(settings.dataset)
        stored = reader.stored_release(plan.digest, number)
        reader.close()
        assert spent in ([], [plan.mechanism(number)])
        if (folder / f"touched-{number}").exists():
            assert spent == [plan.mechanism(number)], "patients' data were touched before the spend was durable"
        if reply_file.exists() and reply_file.stat().st_size:
            assert stored is not None, "a reply left before it was durable"
            assert stored.payload is not None
            assert reply_file.read_bytes() == stored.header + b"\n" + stored.payload

        workload = FakeWorkload()
        vault, opened = open_vault(settings, workload)
        first = vault.handle(request)
        assert parse_reply(first).status == "ok"
        assert vault.handle(request) == first
        if stored is not None:
            assert (first.header, first.payload) == (stored.header, stored.payload)
        assert workload.releases == [] if stored is not None else len(workload.releases) == 1
        assert opened.spent(settings.dataset) == [plan.mechanism(number)], "charged twice, or not at all"
        coordinator = before.fork(vault)
        coordinator.take(first)
        assert coordinator.kinds == ["key-registered", "plan-accepted", "spend-reserved", "update-released"]
        assert coordinator.round(number + 1).status == "ok"
        opened.close()
        if ended:
            break
        kills += 1
    assert kills >= 15, "the test no longer reaches the steps it is about"


def test_kill_9_at_every_step_of_accepting_a_plan(tmp_path: Path) -> None:
    plan = make_plan()
    vault, opened = open_vault(make_settings(tmp_path / "before"), FakeWorkload())
    before = Coordinator(vault, plan)
    before.hello()
    opened.close()
    request = before.propose_request()
    kills = 0
    for kill_at in range(1, NEVER):
        folder = tmp_path / str(kill_at)
        shutil.copytree(tmp_path / "before", folder)
        settings = make_settings(folder)
        ended = in_child(lambda: answer(settings, request, folder / "reply", kill_at))  # noqa: B023 - runs at once
        vault, opened = open_vault(settings, FakeWorkload())
        coordinator = before.fork(vault)
        assert coordinator.propose().status == "ok"
        assert coordinator.kinds == ["key-registered", "plan-accepted"]
        assert opened.committed(settings.dataset) == plan.mechanisms()
        assert coordinator.round(0).status == "ok"
        opened.close()
        if ended:
            break
        kills += 1
    assert kills >= 8


def test_kill_9_in_the_middle_of_a_training_by_somebody_else(tmp_path: Path) -> None:
    """A whole process, killed from outside while it trains, again and again; then the round succeeds for one spend."""
    settings = make_settings(tmp_path)
    plan = make_plan()
    vault, opened = open_vault(settings, FakeWorkload())
    coordinator = Coordinator(vault, plan)
    coordinator.join()
    opened.close()
    request = coordinator.round_request(1)

    class Endless(FakeWorkload):
        def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
            (tmp_path / "training").touch()
            signal.pause()
            raise AssertionError

    for _ in range(3):
        (tmp_path / "training").unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            open_vault(settings, Endless())[0].handle(request)
            os._exit(1)
        while not (tmp_path / "training").exists():
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    vault, opened = open_vault(settings, FakeWorkload())
    assert opened.spent(settings.dataset) == [plan.mechanism(1)]
    reply = vault.handle(request)
    assert sha256_hex(reply.payload) == parse_reply(reply).payload_digest
    assert opened.spent(settings.dataset) == [plan.mechanism(1)]
    opened.close()
