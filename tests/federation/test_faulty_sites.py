"""Sites that send what they should not: each reply is named, dropped and without a trace in the model."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_server.replies import Finding, read_update
from synclave_server.snapshots import read_snapshot
from synclave_shared.canonical import sha256_hex
from synclave_shared.fixed_point import to_fixed
from synclave_shared.models.anchor import marginals_size
from synclave_shared.protocol import Envelope, encode_update
from tests.federation.conftest import NewWorld
from tests.federation.faults import MARKER, raising
from tests.federation.hospitals import (
    COORDINATOR_KEY,
    SCHEMA,
    Fault,
    Handler,
    Site,
    at_round,
    events,
    make_plan,
    releasing,
    with_header,
)


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
    assert np.allclose(after - before, world.mean_of_last_updates(("south", "west")), atol=1e-6)
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
