"""A site replaces its signing key in the middle of a run: nothing stops, and the ledger says who signed what."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

import pytest

from synclave_client.vault.journal import Journal
from synclave_client.vault.keyring import rotate
from synclave_server.snapshots import write_snapshot
from synclave_shared.audit.explain import explain
from synclave_shared.audit.reading import read_ledger
from synclave_shared.ledger.entry import SignedEntry, UpdateReleased, parse_entry, sign_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.protocol import Envelope, failed, parse_reply, parse_request
from tests.federation.conftest import NewWorld, World
from tests.federation.hospitals import SITE_KEYS, Handler, Site, entries, events, with_header


def rotating(site: Site, handler: Handler, request: Envelope) -> Envelope:
    """The steward's command, beside the running vault, just before it answers."""
    journal = Journal.open(site.settings.journal_file, exclusive=False)
    try:
        rotate(site.settings, journal, key=SITE_KEYS[site.name])
    finally:
        journal.close()
    return handler(request)


def at(number: int) -> Callable[[Site, Handler, Envelope], Envelope]:
    done: list[int] = []

    def maybe(site: Site, handler: Handler, request: Envelope) -> Envelope:
        if getattr(parse_request(request), "round", None) != number or done:
            return handler(request)
        done.append(number)
        return rotating(site, handler, request)

    return maybe


def of_north(world: World) -> list[SignedEntry]:
    return [entry for entry in entries(world.run) if entry.actor == "north"]


def keys_of(site: Site) -> set[str]:
    return {SigningKey.load(path).public_text for path in site.settings.state_folder.glob("site*.key")}


def test_a_key_is_replaced_between_two_rounds(new_world: NewWorld) -> None:
    world = new_world()
    old = SITE_KEYS["north"].public_text
    world.sites["north"].fault = at(2)
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete"
    assert not any(round_["findings"] for round_ in world.run.read_metrics()["rounds"])
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    assert not report.findings
    ours = of_north(world)
    turn = [entry.kind for entry in ours].index("key-rotated")
    new = report.sites["north"].public_key
    assert new != old
    assert [entry.kind for entry in ours][turn + 1 :] == ["spend-reserved", "update-released"] * 2
    assert {entry.key for entry in ours[: turn + 1]} == {old}
    assert {entry.key for entry in ours[turn + 1 :]} == {new}
    index = next(place for place, entry in enumerate(entries(world.run)) if entry.kind == "key-rotated")
    assert new in explain(read_ledger(world.run.ledger), index).what
    assert keys_of(world.sites["north"]) == {new}
    assert stat.S_IMODE((world.sites["north"].settings.state_folder / "site-2.key").stat().st_mode) == 0o600


def test_coordinator_and_vaults_go_on_after_a_crash_in_the_round_of_a_rotation(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator dies with the rotation in its ledger and the round's replies in hand, before it stores them."""
    world = new_world(rounds=2)
    world.sites["north"].fault = at(1)

    def die_in_round_1(*folder: Any, round_number: int, **state: Any) -> Any:
        if round_number == 1:
            raise KeyboardInterrupt
        return write_snapshot(*folder, round_number=round_number, **state)

    with world.up(), monkeypatch.context() as patch:
        patch.setattr("synclave_server.rounds.write_snapshot", die_in_round_1)
        with pytest.raises(KeyboardInterrupt):
            world.train()
    assert "key-rotated" in [entry.kind for entry in of_north(world)]
    assert world.run.complete_rounds() == [0]
    trained = {name: list(site.workload.trained) for name, site in world.sites.items()}
    with world.up():  # the vaults were restarted, too
        world.train()
    assert events(world.run)[-1].stage == "complete"
    for name, site in world.sites.items():
        assert site.workload.trained == [*trained[name], 2], "round 1 was stored before the crash"
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    assert report.sites["north"].public_key != SITE_KEYS["north"].public_text
    assert len(keys_of(world.sites["north"])) == 1, "the replaced key is gone"


def test_a_reply_with_the_rotation_that_was_lost_comes_again(new_world: NewWorld) -> None:
    """The site signs with the new key, and the coordinator has never heard of it."""
    world = new_world()
    turn, lost = at(1), []

    def lose(site: Site, handler: Handler, request: Envelope) -> Envelope:
        answer = turn(site, handler, request)
        if getattr(parse_request(request), "round", None) == 1 and not lost:
            lost.append(answer)
            return failed("internal")
        return answer

    world.sites["north"].fault = lose
    with world.up():
        world.train()
    findings = [each["findings"] for each in world.run.read_metrics()["rounds"]]
    assert [sorted(each) for each in findings] == [[], ["north"], [], []]
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    assert report.sites["north"].public_key != SITE_KEYS["north"].public_text


def test_whoever_has_the_old_key_speaks_for_nobody_after_the_rotation(new_world: NewWorld) -> None:
    world = new_world()
    turn = at(1)

    def forge(site: Site, handler: Handler, request: Envelope) -> Envelope:
        answer = turn(site, handler, request)
        if getattr(parse_request(request), "round", None) != 2:
            return answer
        last = parse_entry(parse_reply(site.replies[-1]).entries[-1].encode())
        update = next(
            body
            for text in parse_reply(answer).entries
            if isinstance(body := parse_entry(text.encode()).body, UpdateReleased)
        )
        old = SITE_KEYS["north"]
        forged = sign_entry("update-released", "north", last.run, update, old, previous=last.leaf)
        return with_header(answer, entries=(forged.to_bytes().decode(),))

    world.sites["north"].fault = forge
    with world.up():
        world.train()
    assert world.run.read_metrics()["rounds"][2]["findings"] == {"north": "entry-invalid (chain)"}
    assert verify_ledger(world.run.ledger).valid
