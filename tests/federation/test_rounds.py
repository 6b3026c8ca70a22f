"""The real ServerApp and the real ClientApp over an in-process grid, with honest sites."""

from __future__ import annotations

import numpy as np
import pytest

from synclave_client.vault.journal import Journal
from synclave_server.snapshots import read_snapshot
from synclave_shared.canonical import canonical_bytes, sha256_hex
from synclave_shared.ledger.entry import parse_entry
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.models.codes import parameter_count
from synclave_shared.plan import ModelSpec
from synclave_shared.protocol import Envelope, encode_model, parse_request
from tests.federation.conftest import NewWorld
from tests.federation.hospitals import NAMES, SCHEMA, Handler, Site, at_round, entries, events


def test_a_run_leaves_a_valid_ledger_a_snapshot_and_metrics(new_world: NewWorld) -> None:
    world = new_world()
    with world.up():
        world.train()
    last = events(world.run)[-1]
    assert last.stage == "complete"
    assert last.sites_ok == 3
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    assert set(report.sites) == set(NAMES)
    snapshot = read_snapshot(world.run.snapshot)
    assert snapshot.record.round == 3
    assert world.digests()[3] == snapshot.record.tensors_digest
    named = entries(world.run)[snapshot.record.ledger_index].body
    assert getattr(named, "snapshot_digest", None) == snapshot.record.tensors_digest
    assert snapshot.anchor is not None
    assert snapshot.label_shares is not None
    assert snapshot.label_shares.sum() == pytest.approx(1, abs=1e-6)
    metrics = world.run.read_metrics()
    assert [entry["round"] for entry in metrics["rounds"]] == [0, 1, 2, 3]
    spent = [entry["epsilon"]["north"] for entry in metrics["rounds"]]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(report.sites["north"].epsilon, rel=1e-6)
    assert world.run.complete_rounds() == [2, 3]


def test_the_model_is_the_weighted_mean_of_what_the_sites_sent(new_world: NewWorld) -> None:
    world = new_world(rounds=1)
    with world.up():
        world.train()
    before, after = (read_snapshot(world.run.round_folder(number)).model for number in (0, 1))
    assert np.allclose(after - before, world.mean_of_last_updates(NAMES), atol=1e-6)


START = np.linspace(-1, 1, parameter_count(SCHEMA, ModelSpec()), dtype=np.float32)


def test_a_warm_start_begins_with_what_the_plan_names(new_world: NewWorld) -> None:
    world = new_world(encode_model(START), rounds=1)
    with world.up():
        world.train()
    before, after = (read_snapshot(world.run.round_folder(number)) for number in (0, 1))
    assert np.array_equal(before.model, START)
    assert np.allclose(after.model - START, world.mean_of_last_updates(NAMES), atol=1e-6)
    assert after.plan.warm_start == sha256_hex(START.astype("<f4").tobytes())
    assert verify_ledger(world.run.ledger).valid


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_run_begins_with_no_other_parameters_than_the_plan_names(new_world: NewWorld, damage: str) -> None:
    world = new_world(encode_model(START), rounds=1)
    file = world.run.path / "start.f32"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(encode_model(START + 1))
    with world.up():
        world.train()
    failure = events(world.run)[-1]
    assert failure.stage == "failed"
    assert "synclave plan --out" in failure.remedy
    assert world.grid.sent == 0
    assert not world.run.complete_rounds()


def test_the_request_for_a_round_cannot_carry_privacy_settings(new_world: NewWorld) -> None:
    world = new_world(rounds=1)
    seen: list[bytes] = []

    def watch(_site: Site, handler: Handler, request: Envelope) -> Envelope:
        # The ledger is shown beside it: what the sites charged is in there, to be witnessed and not to be done.
        seen.append(canonical_bytes(parse_request(request).model_dump(mode="json", exclude={"checkpoint"})))
        return handler(request)

    world.sites["north"].fault = at_round(1, watch)
    with world.up():
        world.train()
    assert seen
    for word in (b"noise", b"clip", b"selection", b"epsilon"):
        assert word not in seen[0]


def test_sites_copy_a_ledger_that_one_presentation_cannot_hold(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synclave_shared.ledger.witness.MAX_SHOWN_ENTRIES", 3)
    world = new_world(rounds=2)
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete"
    contents = [entry.to_bytes() for entry in entries(world.run)]
    for site in world.sites.values():
        journal = Journal.read(site.folder / "state" / "journal.sqlite")
        copy = journal.ledgers.entries(world.run.plan().digest)
        journal.close()
        # What the sites said when it was closed came after what they were shown.
        assert contents[: len(copy)] == copy
        assert parse_entry(copy[-1]).kind == "run-closed"
