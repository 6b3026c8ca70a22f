"""Sites that do not answer, answer too late, or do not take part."""

from __future__ import annotations

from decimal import Decimal

import pytest

from synclave_server import rounds
from synclave_server.snapshots import read_snapshot
from synclave_shared.ledger.entry import PlanRefused, SpendReserved
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.protocol import Envelope, failed
from tests.federation.conftest import NewWorld
from tests.federation.faults import MARKER, raising
from tests.federation.hospitals import Handler, Site, at_round, entries, events


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
