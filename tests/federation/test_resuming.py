"""A run that was broken off and goes on, is finished, or is damaged."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synclave_server.snapshots import read_snapshot
from synclave_shared.ledger.verify import verify_ledger
from tests.federation.conftest import NewWorld
from tests.federation.faults import Killed, kill_at, raising
from tests.federation.hospitals import NAMES, at_round, entries, events

UNBROKEN: dict[str, dict[int, str]] = {}
"""Snapshot digests of a run that nothing happened to, by aggregator; the same for all tests."""


@pytest.mark.parametrize(
    ("where", "aggregator"),
    [
        ("write_snapshot", "fedyogi"),
        ("_record", "fedavg"),
        ("copy_snapshot", "fedyogi"),
        ("_measure", "fedavg"),
        ("_close", "fedavg"),
    ],
)
def test_killed_and_resumed_it_ends_as_if_nothing_had_happened(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch, where: str, aggregator: str
) -> None:
    settings: dict[str, Any] = {"rounds": 2, "aggregator": aggregator, "server_learning_rate": Decimal("0.5")}
    broken = new_world(**settings)
    with broken.up():
        with monkeypatch.context() as patch:
            # The third snapshot is that of round 2; the run is closed once.
            kill_at(patch, where, 1 if where == "_close" else 3)
            with pytest.raises(Killed):
                broken.train()
        broken.train()
    if aggregator not in UNBROKEN:
        whole = new_world(**settings)
        with whole.up():
            whole.train()
        UNBROKEN[aggregator] = whole.digests()
    assert events(broken.run)[-1].stage == "complete"
    assert broken.digests() == UNBROKEN[aggregator]
    assert sorted(broken.digests()) == [0, 1, 2]
    report = verify_ledger(broken.run.ledger)
    assert report.valid, report.findings
    # No patient was trained on twice.
    assert [site.workload.trained for site in broken.sites.values()] == [[0, 1, 2]] * 3
    kinds = [(entry.kind, getattr(entry.body, "round", None)) for entry in entries(broken.run)]
    assert len([kind for kind in kinds if kind[0] == "aggregate"]) == 3


def test_the_average_is_sampled_from_and_rounds_go_on_from_the_last_model_also_after_a_crash(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"rounds": 2, "ema": Decimal("0.8")}
    whole = new_world(**settings)
    with whole.up():
        whole.train()
    first, second = (read_snapshot(whole.run.round_folder(number)) for number in (1, 2))
    assert np.array_equal(first.model, first.raw_model)
    assert np.allclose(second.raw_model - first.raw_model, whole.mean_of_last_updates(NAMES), atol=1e-6)
    assert np.allclose(second.model, (0.8 * first.raw_model + second.raw_model) / 1.8, atol=1e-6)
    assert not np.array_equal(second.model, second.raw_model)
    sampled = read_snapshot(whole.run.snapshot)
    assert sampled.model.tobytes() == second.model.tobytes()
    assert sampled.record.tensors_digest == whole.digests()[2]
    broken = new_world(**settings)
    with broken.up():
        with monkeypatch.context() as patch:
            kill_at(patch, "write_snapshot", 3)
            with pytest.raises(Killed):
                broken.train()
        broken.train()
    assert broken.digests() == whole.digests()


def test_a_finished_run_is_left_as_it_is(new_world: NewWorld) -> None:
    world = new_world(rounds=1)
    with world.up():
        world.train()
        size, before = len(entries(world.run)), (world.run.ledger / "checkpoint").read_bytes().split(b"\n\n")[0]
        world.train()
    assert events(world.run)[-1].stage == "complete"
    assert len(entries(world.run)) == size
    assert (world.run.ledger / "checkpoint").read_bytes().split(b"\n\n")[0] == before


def test_a_damaged_state_is_refused_and_nothing_is_asked_of_the_sites(new_world: NewWorld) -> None:
    world = new_world(rounds=2)
    with world.up():
        world.sites["north"].fault = world.sites["south"].fault = at_round(2, raising)
        world.train()
        tensors: Path = world.run.round_folder(1) / "model.safetensors"
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
        asked = world.grid.sent
        world.train()
    failure = events(world.run)[-1]
    assert failure.stage == "failed"
    assert "model.safetensors with SHA-256" in failure.found
    assert world.grid.sent == asked
