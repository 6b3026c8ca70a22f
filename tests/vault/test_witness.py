"""The ledger as the coordinator shows it: what a site notices, refuses, and helps to mend."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.session import Vault
from synclave_shared.ledger.entry import KeyRegistered, parse_entry, sign_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.plan import SiteEntry, TrainPlan
from synclave_shared.protocol import Envelope, parse_reply
from tests.vault.coordinator import SITE_KEY, Coordinator, FakeWorkload, make_plan, open_vault

NEIGHBOURS = ("east", "south", "west", "north-west")


def spent(journal: Journal) -> list[Any]:
    return journal.spent("north-patients")


def test_withheld_entries_are_noticed_and_can_be_supplied(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, roster_plan())
    coordinator.join()
    lost = vault.handle(coordinator.round_request(0))  # the reply never arrives
    reply = parse_reply(vault.handle(coordinator.round_request(1)))
    assert (reply.status, reply.code) == ("refused", "ledger-inconsistent")
    assert len(spent(journal)) == 1
    assert set(parse_reply(lost).entries) <= set(reply.entries)
    coordinator.take(Envelope.of(reply))  # the coordinator appends what it lacked
    assert coordinator.round(1).status == "ok"


def test_a_rewritten_ledger_is_refused(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, roster_plan())
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    honest = coordinator.entries
    for forged in ([b"forged", *honest[1:]], [b"forged", *honest], honest[:-1]):
        coordinator.entries = list(forged)
        coordinator.tree = MerkleTree(leaf_hash(entry) for entry in forged)
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
    coordinator = Coordinator(vault, roster_plan())
    coordinator.join()
    right = getattr(coordinator, field)
    setattr(coordinator, field, value)
    assert parse_reply(vault.handle(coordinator.round_request(1))).code == "ledger-inconsistent"
    assert spent(journal) == []
    setattr(coordinator, field, right)
    assert coordinator.round(1).status == "ok"


def test_a_stored_release_is_not_sent_again_into_another_ledger(vault: Vault, site: SiteSettings) -> None:
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    lost = vault.handle(coordinator.round_request(1))
    honest, before = list(coordinator.entries), dump(site)
    for forged in ([registration("south"), *honest[1:]], honest[:-1], [*honest, registration("south")]):
        coordinator.entries = forged
        coordinator.tree = MerkleTree(leaf_hash(entry) for entry in forged)
        reply = vault.handle(coordinator.round_request(1))
        assert (parse_reply(reply).code, reply.payload) == ("ledger-inconsistent", b"")
    assert dump(site) == before
    coordinator.entries = honest
    coordinator.tree = MerkleTree(leaf_hash(entry) for entry in honest)
    assert vault.handle(coordinator.round_request(1)) == lost


def test_the_same_checkpoint_shown_from_an_older_size_is_known(vault: Vault) -> None:
    coordinator = Coordinator(vault, roster_plan())
    coordinator.hello()
    request = coordinator.propose_request()
    first = parse_reply(vault.handle(request))
    again = parse_reply(vault.handle(request))  # the first reply was lost: nothing was appended meanwhile
    assert (again.status, again.seen_size, again.entries) == ("ok", 1, first.entries)
    assert len(first.entries) == 1


def test_a_ledger_that_grew_while_a_reply_was_lost_is_followed(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, roster_plan())
    coordinator.hello()
    vault.handle(coordinator.propose_request())  # the reply is lost
    coordinator.append(registration("south"))
    reply = coordinator.propose()  # shows from the beginning what the site has in part
    assert (reply.status, reply.seen_size) == ("ok", 2)
    assert coordinator.round(0).status == "ok"
    assert journal.ledgers.entries(coordinator.plan.digest) == coordinator.entries[:3]


def test_a_refusal_tells_what_size_was_seen_so_that_the_coordinator_can_go_on(vault: Vault) -> None:
    coordinator = Coordinator(vault, roster_plan())
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    behind = Coordinator(vault, roster_plan())  # it has lost the end of its ledger
    behind.append(coordinator.entries[0])
    reply = behind.propose()
    assert (reply.code, reply.seen_size) == ("ledger-inconsistent", 2)
    assert [parse_entry(text.encode()).kind for text in reply.entries] == ["spend-reserved", "update-released"]
    assert coordinator.round(1).status == "ok"


def test_a_long_ledger_is_copied_part_by_part_before_a_plan_is_decided_on(vault: Vault, journal: Journal) -> None:
    coordinator = Coordinator(vault, roster_plan())
    coordinator.hello()
    for name in ("east", "south", "west"):
        coordinator.append(registration(name))
        assert coordinator.witness().status == "ok"
    assert (coordinator.seen_size, journal.ledgers.entries(coordinator.plan.digest)) == (4, coordinator.entries)
    behind = Coordinator(vault, roster_plan())
    behind.append(*coordinator.entries[:2])
    behind.seen_size = 1
    assert (behind.witness().status, behind.seen_size) == ("ok", 4)
    assert coordinator.propose().status == "ok"
    assert coordinator.round(0).status == "ok"
    coordinator.append(registration("north-west"))
    coordinator.entries[1] = registration("another")
    coordinator.tree = MerkleTree(leaf_hash(entry) for entry in coordinator.entries)
    assert coordinator.witness().code == "ledger-inconsistent"


def test_what_a_ledger_must_not_say_is_refused_and_changes_nothing(
    vault: Vault, journal: Journal, site: SiteSettings
) -> None:
    coordinator = Coordinator(vault, roster_plan())
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    coordinator.append(registration("south"))
    assert coordinator.round(1).status == "ok"
    mine = parse_entry(coordinator.entries[-1])
    forged = sign_entry(mine.kind, "north", mine.run, mine.body, SITE_KEY, previous=mine.leaf).to_bytes()
    spoilt = bytearray(registration("east"))
    spoilt[-4] ^= 1
    honest = list(coordinator.entries)
    before = dump(site)
    for wrong in (forged, bytes(spoilt), registration("south", SITE_KEY), b"{}"):
        coordinator.entries = [*honest, wrong]
        coordinator.tree = MerkleTree(leaf_hash(entry) for entry in coordinator.entries)
        for request in (coordinator.round_request(2), coordinator.close_request(), coordinator.propose_request()):
            reply = parse_reply(vault.handle(request))
            assert (reply.status, reply.code) == ("refused", "ledger-inconsistent")
            assert reply.seen_size == len(honest) - 2
    assert dump(site) == before
    coordinator.entries = honest
    coordinator.tree = MerkleTree(leaf_hash(entry) for entry in honest)
    assert coordinator.round(2).status == "ok"
    assert len(spent(journal)) == 3


@pytest.mark.parametrize("wrong", ["stranger", "south"])
def test_a_ledger_with_another_site_than_the_plan_names_is_refused_and_changes_nothing(
    vault: Vault, journal: Journal, site: SiteSettings, wrong: str
) -> None:
    """By a known plan at once; by a plan that comes after the ledger was copied, when it comes."""
    stranger = registration(wrong, SigningKey.from_seed(b"x" * 32))
    coordinator = Coordinator(vault, roster_plan())
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    honest = coordinator.fork(vault)
    before = dump(site)
    coordinator.append(stranger)
    for request in (
        coordinator.round_request(1),
        coordinator.close_request(),
        coordinator.propose_request(),
        coordinator.witness_request(),
    ):
        assert parse_reply(vault.handle(request)).code == "ledger-inconsistent"
    assert dump(site) == before
    assert honest.round(1).status == "ok"

    later = Coordinator(vault, make_plan("later", sites=roster_plan().sites))
    later.append(stranger)
    assert later.witness().status == "ok"
    assert later.propose().code == "ledger-inconsistent"
    assert journal.plan(later.plan.digest) is None


def test_an_older_copy_of_the_journal_is_noticed_before_it_spends_twice(tmp_path: Path, site: SiteSettings) -> None:
    vault, journal = open_vault(site, FakeWorkload())
    coordinator = Coordinator(vault, roster_plan())
    coordinator.join()
    journal.close()
    shutil.copytree(site.state_folder, tmp_path / "backup")
    coordinator.vault, journal = open_vault(site, FakeWorkload())
    assert [coordinator.round(number).status for number in (0, 1, 2)] == ["ok", "ok", "ok"]
    journal.close()
    shutil.rmtree(site.state_folder)
    shutil.copytree(tmp_path / "backup", site.state_folder)
    workload = FakeWorkload()
    coordinator.vault, journal = open_vault(site, workload)
    assert coordinator.round(3).code == "ledger-inconsistent"
    assert (workload.releases, spent(journal)) == ([], [])
    journal.close()


def key_of(name: str) -> SigningKey:
    return SigningKey.from_seed(name.encode().ljust(32))


def roster_plan() -> TrainPlan:
    """A plan of the site and its neighbours, who are not there but sign in the ledger."""
    others = (SiteEntry(name=name, public_key=key_of(name).public_text, nominal_patients=200) for name in NEIGHBOURS)
    return make_plan(sites=(*make_plan().sites, *others))


def registration(name: str, key: SigningKey | None = None) -> bytes:
    """Another site's entry."""
    key = key or key_of(name)
    body = KeyRegistered(name=name, role="site", public_key=key.public_text)
    return sign_entry("key-registered", name, "", body, key, previous="").to_bytes()


def dump(site: SiteSettings) -> dict[str, list[Any]]:
    """Everything in the journal but its list of refusals."""
    with contextlib.closing(sqlite3.connect(site.journal_file)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables if table != "refusals"
        }
