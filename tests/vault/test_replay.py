"""Messages that are lost, doubled, held back and sent again, in any order: a round is charged and released once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synclave_shared.protocol import Envelope, HelloRequest, RoundRequest, parse_reply, parse_request
from tests.vault.coordinator import Coordinator, FakeWorkload, make_plan, make_settings, open_vault

LAST_ROUND = 3

MEMORY = Path("/dev/shm")

ROUNDS = st.integers(0, LAST_ROUND)
REPEATS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["lost", "restart", "hello"]), st.just(0)),
        st.tuples(st.just("again"), st.integers(0, 40)),
    ),
    max_size=16,
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["hello", "propose", "lost-propose", "witness", "close", "restart"]), st.just(0)),
        st.tuples(st.sampled_from(["round", "lost-round", "failing-round"]), ROUNDS),
        st.tuples(st.just("again"), st.integers(0, 40)),
    ),
    max_size=30,
)


class World:
    """A coordinator, a vault, and everything that was ever sent."""

    def __init__(self, folder: Path) -> None:
        self.settings = make_settings(folder)
        self.workload = FakeWorkload()
        self.vault, self.journal = open_vault(self.settings, self.workload)
        self.coordinator = Coordinator(self.vault, make_plan())
        self.coordinator.begin()
        self.sent: list[Envelope] = []
        self.released: dict[int, Envelope] = {}
        self.spent: list[Any] = []

    def send(self, request: Envelope, *, arrives: bool = True) -> None:
        self.sent.append(request)
        envelope = self.vault.handle(request)
        message = parse_request(request)
        if isinstance(message, RoundRequest) and envelope.payload:
            assert self.released.setdefault(message.round, envelope) == envelope, "a round was released twice"
        self._check()
        self.last = self.coordinator.take(envelope) if arrives else parse_reply(envelope)

    def do(self, action: str, number: int) -> None:
        """Take one action; ``number`` is a round, or the message to send again."""
        coordinator = self.coordinator
        match action:
            case "hello":
                self.send(Envelope.of(HelloRequest()))
            case "propose" | "lost-propose":
                self.send(coordinator.propose_request(), arrives=action == "propose")
            case "round" | "lost-round":
                self.send(coordinator.round_request(number), arrives=action == "round")
            case "failing-round":
                self.workload.error = ValueError("a bug")
                self.send(coordinator.round_request(number))
                self.workload.error = None
            case "witness":
                self.send(coordinator.witness_request())
            case "close":
                self.send(coordinator.close_request())
            case "again" if self.sent:
                # An old message: the coordinator does not even look at what comes back.
                self.send(self.sent[number % len(self.sent)], arrives=False)
            case "restart":
                self.journal.close()
                self.vault, self.journal = open_vault(self.settings, self.workload)
                coordinator.vault = self.vault

    def _check(self) -> None:
        plan = self.coordinator.plan
        spent = self.journal.spent(self.settings.dataset)
        assert spent[: len(self.spent)] == self.spent, "a spend was lowered or changed"
        touched = {number for number, _ in self.workload.releases}
        reserved = [number for number in range(LAST_ROUND + 1) if self.journal.is_reserved(plan.digest, number)]
        assert spent == [plan.mechanism(number) for number in reserved], "a round was charged twice"
        assert touched <= set(reserved), "patients' data were touched without a spend"
        self.spent = spent


@given(ACTIONS, st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_messages_charges_a_round_twice_or_releases_it_twice(
    actions: list[tuple[str, int]], opened: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(Path(folder))
        if opened:
            world.coordinator.join()
        for action, number in actions:
            world.do(action, number)
        world.journal.close()


@given(REPEATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_run_of_lost_and_repeated_messages_spends_what_any_other_does(
    repeats: list[tuple[str, int]],
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(Path(folder))
        steps = [("hello", 0), ("propose", 0), *(("round", number) for number in range(LAST_ROUND + 1)), ("witness", 0)]
        trouble = iter(repeats)
        for action, number in [*steps, ("close", 0)]:
            for kind, which in (next(trouble, ("", 0)), next(trouble, ("", 0))):
                lost = f"lost-{action}" if action in ("propose", "round") else ""
                world.do(lost if kind == "lost" else kind, number if kind == "lost" else which)
            world.do(action, number)
            assert world.last.status == "ok"
        assert world.spent == world.coordinator.plan.mechanisms()
        assert len(world.workload.releases) == LAST_ROUND + 1, "a release was drawn anew"
        world.journal.close()
