"""The notary appends what sites send in the order in which each site signed it, and nothing that does not follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from synclave_server.notary import Notary
from synclave_shared.ledger.entry import COORDINATOR, SignedEntry
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.plan import signed_plan_bytes
from tests.ledger.story import SITES, Story, files_of, key_of

STORY = Story().whole()
SIGNATURE = key_of(COORDINATOR).sign_text(signed_plan_bytes(STORY.plan.to_bytes()))
OF_SITES = [entry for entry in STORY.entries if entry.actor in SITES]


def notary_in(folder: Path) -> Notary:
    return Notary(folder, STORY.plan, SIGNATURE, key_of(COORDINATOR))


def chain_findings(folder: Path) -> set[str]:
    return {finding.code for finding in verify_ledger(folder).findings if finding.code.startswith("previous")}


@pytest.mark.parametrize("order", [lambda e: e, lambda e: e[::-1], lambda e: e[1::2] + e[::2] + e[:4]])
def test_entries_are_appended_in_their_sites_order_however_they_come(tmp_path: Path, order: object) -> None:
    notary = notary_in(tmp_path)
    assert callable(order)
    assert notary.append(order(OF_SITES)) == frozenset()
    assert notary.size == 2 + len(OF_SITES)
    assert chain_findings(tmp_path) == set()
    # Asked again, also after a restart, nothing is appended twice.
    assert notary_in(tmp_path).append(OF_SITES[3:6]) == frozenset()
    assert notary_in(tmp_path).size == 2 + len(OF_SITES)


def test_what_does_not_follow_is_left_out_and_its_site_is_named(tmp_path: Path) -> None:
    notary = notary_in(tmp_path)
    berlin, oslo = ([entry for entry in OF_SITES if entry.actor == site] for site in SITES)
    assert notary.append([*berlin[:2], *berlin[3:], *oslo]) == {"berlin"}
    assert notary.size == 2 + 2 + len(oslo)
    before = files_of(tmp_path)
    assert notary.append(berlin[3:]) == {"berlin"}
    assert files_of(tmp_path) == before
    assert notary.append(berlin[2:]) == frozenset()
    assert notary.size == 2 + len(OF_SITES)
    assert chain_findings(tmp_path) == set()


def test_of_two_entries_that_follow_the_same_one_the_first_counts(tmp_path: Path) -> None:
    notary = notary_in(tmp_path)
    twice = other_story(STORY.entries[2])
    assert notary.append([STORY.entries[2], twice[0], twice[1]]) == {"berlin"}
    assert notary.size == 4
    assert chain_findings(tmp_path) == set()


def other_story(registration: SignedEntry) -> list[SignedEntry]:
    story = Story()
    story.entries = [registration]
    first = story.accept("berlin")
    story.entries.pop()
    story.change_budget("berlin", "2")
    return [first, story.entries[-1]]


def test_the_coordinators_own_entries_are_a_chain_too(tmp_path: Path) -> None:
    notary = notary_in(tmp_path)
    notary.append(OF_SITES)
    for entry in STORY.entries:
        if entry.actor == COORDINATOR and entry.kind in {"aggregate", "snapshot"}:
            notary_in(tmp_path).record((entry.kind, entry.body))
    assert chain_findings(tmp_path) == set()
