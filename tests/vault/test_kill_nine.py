"""kill -9 from outside at 200 random instants of whole runs: a spend is never lost, and never made twice.

The vault is a process of its own. Half of the kills come at any time; the others within milliseconds of the beginning
of a step drawn by lot, so that short steps are hit as well.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.ledger_copies import LedgerCopies
from synclave_shared.ledger.entry import KeyRegistered, sign_entry
from synclave_shared.ledger.folder import write_ledger
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.plan import SiteEntry, TrainPlan
from synclave_shared.privacy.budget import check_budget
from synclave_shared.protocol import Envelope, Reply
from tests.vault.coordinator import Coordinator, FakeWorkload, make_plan, make_settings, open_vault

KILLS = 200
SEED = 20261127
STEPS = ("before", "propose", "witness", "reserve", "train", "release", "close")
TRAINING_S = 0.002
PATIENCE_S = 20.0
MEMORY = Path("/dev/shm")
LENGTHS = struct.Struct(">II")


class Killed(Exception):  # noqa: N818 - what is meant to happen here
    """The vault is dead; whether it had answered is not known."""


class MarkedWorkload(FakeWorkload):
    """Notes on the disk that patients' data were touched, then takes a moment."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        (self.folder / f"touched-{round_number}").touch()
        time.sleep(TRAINING_S)
        return super().release(plan, round_number, payload)


class VaultProcess:
    """A vault in a forked process, and the hand that kills it.

    Attributes:
        kills: for each step, how many kills came within milliseconds of its beginning or, at any time, while it was the
            last to have begun.
    """

    def __init__(self, lot: random.Random) -> None:
        self.lot = lot
        self.kills: Counter[str] = Counter()
        self._step = mmap.mmap(-1, 1)
        self._child = 0

    def start(self, settings: SiteSettings, *, to_be_killed: bool, aim: str | None = None) -> None:
        """Fork a vault; ``aim`` is the step at whose beginning it is to be killed, None leaves that to the lot."""
        self._connection, theirs = socket.socketpair()
        self._steps, their_steps = os.pipe()
        self._kill_at, self._aim = float("inf"), ""
        if to_be_killed and aim is None and self.lot.random() < 0.5:
            self._kill_at = time.monotonic() + self.lot.uniform(0, 0.06)
        elif to_be_killed:
            self._aim = aim or self.lot.choice(STEPS[1:])
        self._step[0] = 0
        self._child = os.fork()
        if self._child == 0:
            try:
                # If this end stayed open here, the vault would outlive a test that dies.
                self._connection.close()
                self._serve(settings, theirs, their_steps)
            finally:
                os._exit(1)
        theirs.close()
        os.close(their_steps)

    def _serve(self, settings: SiteSettings, connection: socket.socket, steps: int) -> None:
        """The vault's process: answers until it is killed."""

        def marked(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def call(*arguments: Any, **named: Any) -> Any:
                self._step[0] = STEPS.index(step)
                os.write(steps, bytes([STEPS.index(step)]))
                return function(*arguments, **named)

            return call

        for owner, name, step in (
            (Journal, "accept", "propose"),
            (Journal, "reserve", "reserve"),
            (Journal, "release", "release"),
            (Journal, "close_plan", "close"),
            (LedgerCopies, "extend", "witness"),
            (MarkedWorkload, "release", "train"),
        ):
            setattr(owner, name, marked(step, getattr(owner, name)))
        vault, _ = open_vault(settings, MarkedWorkload(settings.state_folder.parent))
        stream = connection.makefile("rwb")
        while True:
            lengths = stream.read(LENGTHS.size)
            if not lengths:
                return
            self._step[0] = 0
            header, payload = LENGTHS.unpack(lengths)
            reply = vault.handle(Envelope(header=stream.read(header), payload=stream.read(payload)))
            stream.write(LENGTHS.pack(len(reply.header), len(reply.payload)) + reply.header + reply.payload)
            stream.flush()

    def handle(self, request: Envelope) -> Envelope:
        """Ask, as :meth:`Vault.handle`.

        Raises:
            Killed: if the time has come.
        """
        message = LENGTHS.pack(len(request.header), len(request.payload)) + request.header + request.payload
        self._connection.sendall(message)
        received = b""
        while True:
            left_s = self._kill_at - time.monotonic()
            if left_s <= 0:
                self.kills[self._aim or STEPS[self._step[0]]] += 1
                self.stop()
                raise Killed
            ready, _, _ = select.select([self._connection.fileno(), self._steps], [], [], min(left_s, PATIENCE_S))
            assert ready or left_s < PATIENCE_S, "the vault hangs"
            begun = os.read(self._steps, 64) if self._steps in ready else b""
            if self._aim and STEPS.index(self._aim) in begun and self._kill_at == float("inf"):
                self._kill_at = time.monotonic() + self.lot.uniform(0, 0.003)
            if self._connection.fileno() in ready:
                received += self._connection.recv(1 << 16)
                assert received, "the vault ended by itself"
            if len(received) >= LENGTHS.size:
                header, payload = LENGTHS.unpack_from(received)
                if len(received) == LENGTHS.size + header + payload:
                    body = received[LENGTHS.size :]
                    return Envelope(header=body[:header], payload=body[header:])

    def stop(self) -> None:
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._connection.close()
            os.close(self._steps)
            self._child = 0


class Run:
    """One run with one site, which goes on whenever the vault was killed."""

    def __init__(self, folder: Path, process: VaultProcess, *, to_be_killed: bool, aim: str | None = None) -> None:
        self.settings = make_settings(folder)
        open_vault(self.settings, None)[1].close()
        self.process = process
        self.to_be_killed = to_be_killed
        self.aim = aim
        self.coordinator = Coordinator(process, plan_with_others())  # type: ignore[arg-type]
        self.coordinator.begin()
        self.spent: list[Any] = []
        self.released: dict[int, Envelope] = {}

    def run(self) -> None:
        coordinator = self.coordinator
        self.process.start(self.settings, to_be_killed=self.to_be_killed, aim=self.aim)
        self._until_answered(coordinator.hello)
        self._until_answered(coordinator.propose)
        for number in range(coordinator.plan.last_round() + 1):
            self._until_answered(lambda number=number: self._round(number))  # type: ignore[misc]
            coordinator.append(another_sites_entry(number))
            self._until_answered(coordinator.witness)
        self._until_answered(coordinator.close)
        self._until_answered(coordinator.witness)
        self.process.stop()
        self._look()

    def _round(self, number: int) -> Reply:
        envelope = self.process.handle(self.coordinator.round_request(number))
        self.released[number] = envelope
        return self.coordinator.take(envelope)

    def _until_answered(self, ask: Callable[[], Reply]) -> None:
        while True:
            try:
                reply = ask()
            except Killed:
                self._look()
                self.process.start(self.settings, to_be_killed=self.to_be_killed)
            else:
                assert (reply.status, reply.code) == ("ok", "")
                return

    def _look(self) -> None:
        """Look into the journal of a vault that is dead."""
        journal = Journal.read(self.settings.journal_file)
        spent = journal.spent(self.settings.dataset)
        stored = {number: journal.stored_release(self.coordinator.plan.digest, number) for number in self.released}
        seen = journal.ledgers.seen(self.coordinator.plan.digest)
        copy = journal.ledgers.entries(self.coordinator.plan.digest)
        journal.close()
        assert spent[: len(self.spent)] == self.spent, "a spend was lowered or changed"
        assert spent == self.coordinator.plan.mechanisms()[: len(spent)], "charged twice, or not at all"
        touched = {int(file.name.partition("-")[2]) for file in self.settings.state_folder.parent.glob("touched-*")}
        assert touched <= set(range(len(spent))), "patients' data were touched before the spend was durable"
        for number, envelope in self.released.items():
            release = stored[number]
            assert release is not None, "a reply left before it was durable"
            assert release.header == envelope.header
        assert copy == self.coordinator.entries[: 0 if seen is None else seen.size]
        self.spent = spent


def other_site(number: int) -> tuple[str, SigningKey]:
    name = f"south-{number}"
    return name, SigningKey.from_seed(name.ljust(32).encode())


def plan_with_others() -> TrainPlan:
    """A plan with one more site for each round, which registers in its ledger then."""
    plan = make_plan()
    others = (
        SiteEntry(name=name, public_key=key.public_text, nominal_patients=200)
        for name, key in map(other_site, range(plan.last_round() + 1))
    )
    return make_plan(sites=(*plan.sites, *others))


def another_sites_entry(number: int) -> bytes:
    name, key = other_site(number)
    body = KeyRegistered(name=name, role="site", public_key=key.public_text)
    return sign_entry("key-registered", name, "", body, key, previous="").to_bytes()


@pytest.fixture
def process() -> Iterator[VaultProcess]:
    process = VaultProcess(random.Random(SEED))
    yield process
    process.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, if there is such a place: a kill loses nothing that was written, and flushing costs nothing there."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


def test_kill_9_at_200_random_instants_of_a_run(folder: Path, process: VaultProcess) -> None:
    # Epsilons that were composed here are known in every process that is forked from this one.
    plan = plan_with_others()
    for number in range(plan.last_round() + 2):
        check_budget(make_settings(folder).budget, plan.mechanisms()[:number], plan.mechanisms()[number:])
        check_budget(make_settings(folder).budget, plan.mechanisms()[:number], plan.mechanisms()[number : number + 1])
    whole = Run(folder / "uninterrupted", process, to_be_killed=False)
    whole.run()
    assert whole.spent == whole.coordinator.plan.mechanisms()
    runs = 0
    while process.kills.total() < KILLS:
        aim = STEPS[1 + runs % (len(STEPS) - 1)]  # the first kill of a run; the others by lot
        run = Run(folder / str(runs), process, to_be_killed=True, aim=aim)
        run.run()
        runs += 1
        assert run.spent == whole.spent
        assert sorted(run.coordinator.kinds) == sorted(whole.coordinator.kinds)
    assert all(process.kills[step] >= 3 for step in STEPS), f"steps that the test is about: {process.kills}"

    journal = Journal.read(run.settings.journal_file)
    seen = journal.ledgers.seen(run.coordinator.plan.digest)
    assert seen is not None
    write_ledger(folder / "copy", journal.ledgers.entries(run.coordinator.plan.digest), seen.note, seen.witnessed)
    journal.close()
    report = verify_ledger(folder / "copy")
    assert (report.findings, report.sites["north"].spends) == ((), len(whole.spent))
