"""The ledger as the coordinator shows it: what a site notices, refuses, and helps to mend."""

from __future__ import annotations

from typing import Any

import pytest

from synclave_client.vault.journal import Journal
from synclave_client.vault.session import Vault
from synclave_shared.ledger.entry import parse_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.protocol import Envelope, parse_reply
from tests.vault.coordinator import (
    Coordinator,
    make_plan,
)


def spent(journal: Journal) -> list[Any]:
    return journal.spent("north-patients")


def test_withheld_entries_are_noticed_and_can_be_supplied(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    lost = vault.handle(coordinator.round_request(0))  # the reply never arrives
    reply = parse_reply(vault.handle(coordinator.round_request(1)))
    assert (reply.status, reply.code) == ("refused", "ledger-inconsistent")
    assert len(spent(journal)) == 1
    assert set(parse_reply(lost).entries) <= set(reply.entries)
    coordinator.take(Envelope.of(reply))  # the coordinator appends what it lacked
    assert coordinator.round(1).status == "ok"


def test_a_rewritten_ledger_is_refused(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    honest = coordinator.entries
    for forged in ([b"forged", *honest[1:]], [b"forged", *honest], honest[:-1]):
        coordinator.entries = list(forged)
        coordinator.tree = MerkleTree(leaf_hash(entry) for entry in forged)
        coordinator.unproved = [index for index, entry in enumerate(forged) if entry in honest]
        coordinator.seen_size = min(coordinator.seen_size, len(forged))
        request = coordinator.round_request(1)
        assert parse_reply(vault.handle(request)).code == "ledger-inconsistent"
    assert len(spent(journal)) == 1


@pytest.mark.parametrize(
    ("field", "value"), [("key", SigningKey.from_seed(b"x" * 32)), ("origin", "synclave/0000000000000000")]
)
def test_a_ledger_signed_by_another_or_of_another_run_is_refused(
    vault: Vault, journal: Journal, field: str, value: Any
) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    right = getattr(coordinator, field)
    setattr(coordinator, field, value)
    assert parse_reply(vault.handle(coordinator.round_request(1))).code == "ledger-inconsistent"
    assert spent(journal) == []
    setattr(coordinator, field, right)
    assert coordinator.round(1).status == "ok"


def test_the_same_checkpoint_shown_from_an_older_size_is_known(vault: Vault) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.hello()
    request = coordinator.propose_request()
    first = parse_reply(vault.handle(request))
    again = parse_reply(vault.handle(request))  # the first reply was lost: nothing was appended meanwhile
    assert (again.status, again.seen_size, again.entries) == ("ok", 1, first.entries)
    assert len(first.entries) == 1


def test_a_refusal_tells_what_size_was_seen_so_that_the_coordinator_can_go_on(vault: Vault) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.hello()
    vault.handle(coordinator.propose_request())  # the reply is lost
    coordinator.append(b"an entry of another site")
    reply = coordinator.propose()
    assert (reply.code, reply.seen_size) == ("ledger-inconsistent", 1)
    assert [parse_entry(text.encode()).kind for text in reply.entries] == ["plan-accepted"]
    assert coordinator.propose().status == "ok"
    assert coordinator.round(0).status == "ok"
