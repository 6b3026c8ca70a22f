"""The real ServerApp and the real ClientApp over an in-process grid, with honest and with faulty sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_client.vault.journal import Journal
from synclave_server import rounds
from synclave_server.replies import Finding, read_update
from synclave_server.snapshots import read_snapshot
from synclave_shared.canonical import canonical_bytes, sha256_hex
from synclave_shared.fixed_point import from_fixed, to_fixed
from synclave_shared.ledger.entry import PlanRefused, SpendReserved, parse_entry
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.models.anchor import marginals_size
from synclave_shared.models.codes import parameter_count
from synclave_shared.plan import ModelSpec
from synclave_shared.protocol import Envelope, decode_update, encode_model, encode_update, failed, parse_request
from tests.federation.conftest import World
from tests.federation.hospitals import (
    COORDINATOR_KEY,
    NAMES,
    SCHEMA,
    Fault,
    Handler,
    Site,
    at_round,
    entries,
    events,
    make_plan,
    releasing,
    with_header,
)

NewWorld = Callable[..., World]


def digests(world: World) -> dict[int, str]:
    """Snapshot digests by round, from the ledger."""
    return {
        entry.body.round: entry.body.snapshot_digest  # type: ignore[attr-defined]
        for entry in entries(world.run)
        if entry.kind == "snapshot"
    }


def mean_of_last_updates(world: World, names: Sequence[str]) -> NDArray[np.float64]:
    """Slow truth: what the sites sent in the last round (the reply before that to the close), weighted by hand."""
    plan = world.run.plan()
    patients = {name: plan.site(name).nominal_patients for name in names}
    size = parameter_count(SCHEMA, ModelSpec())
    return np.sum(
        [
            patients[name]
            / sum(patients.values())
            * from_fixed(decode_update(world.sites[name].replies[-2].payload, size))
            for name in names
        ],
        axis=0,
    )


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
    assert digests(world)[3] == snapshot.record.tensors_digest
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
    assert np.allclose(after - before, mean_of_last_updates(world, NAMES), atol=1e-6)


MARKER = "SECRET patient number 4711-0815-4711-0815"
"""Long enough that no random bytes, hex or base64 ever contain it."""


def raising(_site: Site, _handler: Handler, _request: Envelope) -> Envelope:
    raise RuntimeError(f"{MARKER} has HIV")


def other_key(_site: Site, handler: Handler, request: Envelope) -> Envelope:
    return with_header(handler(request), public_key=COORDINATOR_KEY.public_text)


def other_name(_site: Site, handler: Handler, request: Envelope) -> Envelope:
    return with_header(handler(request), site="south")


def unsigned_bytes(_site: Site, handler: Handler, request: Envelope) -> Envelope:
    answer = handler(request)
    payload = bytes(len(answer.payload))
    return with_header(Envelope(answer.header, payload), payload_digest=sha256_hex(payload))


def no_reply_at_all(_site: Site, _handler: Handler, _request: Envelope) -> Envelope:
    return Envelope(b"\xff{not json", b"")


def replay_of_round_one(site: Site, handler: Handler, request: Envelope) -> Envelope:
    handler(request)
    return next(reply for reply in site.replies if len(reply.payload) == len(site.replies[-1].payload))


def not_a_number(update: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.full_like(update, np.float64("nan").view(np.int64))


FAULTS: dict[str, tuple[Fault, str]] = {
    "exception": (raising, "failed (internal)"),
    "malformed": (no_reply_at_all, "malformed"),
    "other-key": (other_key, "wrong-key"),
    "other-name": (other_name, "wrong-site"),
    "not-released": (unsigned_bytes, "release-missing"),
    "replayed": (replay_of_round_one, "release-missing"),
    "too-short": (releasing(lambda update: update[:-1]), "wrong-size"),
    "too-long": (releasing(lambda update: np.append(update, 0)), "wrong-size"),
    "nan": (releasing(not_a_number), "magnitude-exceeded"),
    "smallest-integer": (releasing(lambda update: np.full_like(update, -(2**63))), "magnitude-exceeded"),
    "boosted": (releasing(lambda update: update * 1000), "norm-exceeded"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_reply_is_named_and_leaves_no_trace_in_the_model(new_world: NewWorld, name: str) -> None:
    fault, finding = FAULTS[name]
    world = new_world(rounds=2)
    world.sites["north"].fault = at_round(2, fault)
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete"
    last = world.run.read_metrics()["rounds"][-1]
    assert last["sites"] == ["south", "west"]
    assert last["findings"]["north"].startswith(finding)
    before, after = (read_snapshot(world.run.round_folder(number)).model for number in (1, 2))
    assert np.allclose(after - before, mean_of_last_updates(world, ("south", "west")), atol=1e-6)
    assert not any(MARKER.encode() in data for data in world.grid.received)


def test_marginals_beyond_what_a_hospital_can_have_are_dropped(new_world: NewWorld) -> None:
    """One coordinate of 1e9, which fixed point could carry, would be the anchor of all sites."""

    def huge(update: NDArray[np.int64]) -> NDArray[np.int64]:
        update[0] = int(1e9) << 20
        return update

    world = new_world(rounds=1)
    world.sites["north"].fault = at_round(0, releasing(huge))
    with world.up():
        world.train()
    first = world.run.read_metrics()["rounds"][0]
    assert first["sites"] == ["south", "west"]
    assert first["findings"]["north"] == "norm-exceeded"
    assert first["update_norm"] < 1e4


@pytest.mark.parametrize(("patients", "accepted"), [(0, True), (100, True), (150, True), (250, False)])
def test_marginals_of_a_hospital_somewhat_above_its_nominal_size_count(patients: int, accepted: bool) -> None:
    """The longest sum of a nominal 100 patients: all alike, each as long as the clip norm, and noise along it."""
    plan = make_plan()
    marginals = plan.privacy.marginals
    assert marginals is not None
    clip_norm, size = float(marginals.clip_norm), marginals_size(SCHEMA)
    noise = np.random.default_rng(7).standard_normal(size) * float(marginals.noise_multiplier) * clip_norm
    longest = noise * (1 + clip_norm * patients / np.linalg.norm(noise))
    payload = encode_update(to_fixed(longest))
    if accepted:
        assert np.allclose(read_update(payload, plan, "north", 0, size), longest, atol=1e-6)
        return
    with pytest.raises(Finding, match="norm-exceeded"):
        read_update(payload, plan, "north", 0, size)


def test_a_site_that_goes_away_is_not_waited_for(new_world: NewWorld) -> None:
    world = new_world(rounds=2, round_timeout_s=2)

    def leave(_site: Site, handler: Handler, request: Envelope) -> Envelope:
        world.node("west").online = False
        return handler(request)

    world.sites["west"].fault = at_round(0, leave)
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete"
    assert [entry["sites"] for entry in world.run.read_metrics()["rounds"][1:]] == [["north", "south"]] * 2
    assert verify_ledger(world.run.ledger).valid


@pytest.mark.parametrize("how", ["silent", "stuck"])
def test_a_site_that_never_answers_costs_the_timeout_and_no_more(new_world: NewWorld, how: str) -> None:
    world = new_world(rounds=1, round_timeout_s=1)

    def fall_silent(_site: Site, handler: Handler, request: Envelope) -> Envelope:
        setattr(world.node("west"), how, True)
        return handler(request)

    world.sites["west"].fault = at_round(0, fall_silent)
    with world.up():
        world.train()
    last = world.run.read_metrics()["rounds"][-1]
    assert last["findings"] == {"west": "no-reply"}
    assert 1 <= last["seconds"] < 5


def test_too_few_valid_replies_stop_the_run_and_store_nothing(new_world: NewWorld) -> None:
    world = new_world()
    for name in ("north", "south"):
        world.sites[name].fault = at_round(2, raising)
    with world.up():
        world.train()
        failure = events(world.run)[-1]
        assert failure.stage == "failed"
        assert "at least 2 of 3 sites to give a valid reply in round 2 of 3" in failure.expected
        assert "north: something went wrong at the site" in failure.found
        assert MARKER not in failure.found
        assert world.run.complete_rounds() == [0, 1]
        assert read_snapshot(world.run.snapshot).record.round == 1
        assert verify_ledger(world.run.ledger).valid
        # The same command again, with the sites repaired, goes on from there.
        for name in ("north", "south"):
            world.sites[name].fault = None
        world.train()
    assert events(world.run)[-1].stage == "complete"
    assert [site.workload.trained for site in world.sites.values()] == [[0, 1, 2, 3]] * 3
    assert verify_ledger(world.run.ledger).valid


def test_a_run_does_not_start_below_the_minimum(new_world: NewWorld) -> None:
    world = new_world(minimum_sites=3)
    world.node("west").online = False
    with world.up():
        world.train()
    failure = events(world.run)[-1]
    assert failure.stage == "failed"
    assert "at least 3 of 3 sites to join" in failure.expected
    assert not world.run.complete_rounds()
    assert not any(isinstance(entry.body, SpendReserved) for entry in entries(world.run))


def test_a_site_that_says_why_it_cannot_take_part_is_not_waited_for(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(rounds=1)
    monkeypatch.setattr(rounds, "JOIN_TIMEOUT_S", 600.0)
    world.node("north").name = "north"
    world.sites["north"].fault = lambda *_: failed("data")
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete"
    assert world.run.read_metrics()["rounds"][-1]["sites"] == ["south", "west"]
    assert world.run.read_metrics()["absent"] == {"north": "failed (data)"}
    said = [event for event in events(world.run) if event.text.startswith("north does not take part: ")]
    assert len(said) == 1
    assert events(world.run)[-2].stage == "closing"
    assert {event.sites_expected for event in events(world.run) if event.stage == "training"} == {3}


def test_a_site_whose_budget_is_too_small_refuses_in_the_ledger(new_world: NewWorld) -> None:
    world = new_world()
    world.sites["west"].budget = Decimal("0.01")
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete"
    refusals = [entry for entry in entries(world.run) if isinstance(entry.body, PlanRefused)]
    assert [(entry.actor, entry.body.refusal) for entry in refusals] == [("west", "budget-exceeded")]  # type: ignore[attr-defined]
    assert world.run.read_metrics()["absent"] == {"west": "refused (budget-exceeded)"}
    assert not world.sites["west"].workload.trained


def test_a_peer_registered_under_another_name_is_no_site(new_world: NewWorld) -> None:
    world = new_world()
    world.node("north").name = "south"
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete"
    assert world.run.read_metrics()["rounds"][-1]["sites"] == ["south", "west"]
    assert not world.sites["north"].workload.trained


def test_a_lost_reply_is_made_up_for(new_world: NewWorld) -> None:
    """The site released round 1 and the coordinator never heard: in round 2 it repeats what the ledger lacks."""
    world = new_world(rounds=2)

    def lose(_site: Site, handler: Handler, request: Envelope) -> Envelope:
        handler(request)
        return Envelope(b"lost")

    world.sites["west"].fault = at_round(1, lose)
    with world.up():
        world.train()
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    assert world.run.read_metrics()["rounds"][-1]["sites"] == ["north", "south", "west"]
    spends = [
        entry.body.round
        for entry in entries(world.run)
        if entry.actor == "west" and isinstance(entry.body, SpendReserved)
    ]
    assert spends == [0, 1, 2]


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, where: str, number: int) -> None:
    """End the coordinator at one point of one round."""
    original = getattr(rounds, where) if hasattr(rounds, where) else getattr(rounds._Training, where)
    calls = {"left": number}

    def dying(*arguments: Any, **options: Any) -> Any:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(rounds if hasattr(rounds, where) else rounds._Training, where, dying)


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
        UNBROKEN[aggregator] = digests(whole)
    assert events(broken.run)[-1].stage == "complete"
    assert digests(broken) == UNBROKEN[aggregator]
    assert sorted(digests(broken)) == [0, 1, 2]
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
    assert np.allclose(second.raw_model - first.raw_model, mean_of_last_updates(whole, NAMES), atol=1e-6)
    assert np.allclose(second.model, (0.8 * first.raw_model + second.raw_model) / 1.8, atol=1e-6)
    assert not np.array_equal(second.model, second.raw_model)
    sampled = read_snapshot(whole.run.snapshot)
    assert sampled.model.tobytes() == second.model.tobytes()
    assert sampled.record.tensors_digest == digests(whole)[2]
    broken = new_world(**settings)
    with broken.up():
        with monkeypatch.context() as patch:
            kill_at(patch, "write_snapshot", 3)
            with pytest.raises(Killed):
                broken.train()
        broken.train()
    assert digests(broken) == digests(whole)


START = np.linspace(-1, 1, parameter_count(SCHEMA, ModelSpec()), dtype=np.float32)


def test_a_warm_start_begins_with_what_the_plan_names(new_world: NewWorld) -> None:
    world = new_world(encode_model(START), rounds=1)
    with world.up():
        world.train()
    before, after = (read_snapshot(world.run.round_folder(number)) for number in (0, 1))
    assert np.array_equal(before.model, START)
    assert np.allclose(after.model - START, mean_of_last_updates(world, NAMES), atol=1e-6)
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
