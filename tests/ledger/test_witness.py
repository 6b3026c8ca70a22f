"""The site's side of the ledger: whatever a coordinator changes in what it shows, the site does not follow."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from synclave_shared.canonical import canonical_bytes
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Checkpoint, Note, parse_note, sign_checkpoint
from synclave_shared.ledger.entry import COORDINATOR, KeyRegistered, KeyRotated, parse_entry, sign_entry
from synclave_shared.ledger.frontier import EMPTY, Frontier
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.witness import Growth, KnownActor, cosign, follow, present
from synclave_shared.protocol import MAX_HEADER_BYTES, MAX_SHOWN_BYTES, MAX_SHOWN_ENTRIES, CheckpointPresentation
from tests.ledger.story import START, Story, key_of

KEY = key_of(COORDINATOR)


class Site:
    """The site ``berlin`` with a copy in memory."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.known: Frontier = EMPTY
        self.actors: dict[str, KnownActor] = {}
        self.entries: list[bytes] = []
        self.mine = {entry.to_bytes() for entry in story.entries if entry.actor == "berlin"}

    def check(self, presentation: CheckpointPresentation, sent: Collection[bytes] = ()) -> Growth:
        return follow(
            presentation,
            origin=self.story.origin,
            operator_key=KEY.public_text,
            roster={site.name: site.public_key for site in self.story.plan.sites},
            known=self.known,
            actors=self.actors,
            site="berlin",
            wrote=self.mine.__contains__,
            sent=sent,
        )

    def follow(self, presentation: CheckpointPresentation, sent: Collection[bytes] = ()) -> Growth:
        growth = self.check(presentation, sent)
        self.known = growth.frontier
        self.actors.update(growth.actors)
        self.entries += growth.entries
        return growth


@pytest.fixture
def story() -> Story:
    return Story().whole()


@pytest.fixture
def site(story: Story) -> Site:
    return Site(story)


@pytest.fixture
def ledger(story: Story, tmp_path: Path) -> Ledger:
    return make(tmp_path / "ledger", story, [entry.to_bytes() for entry in story.entries[:10]])


def make(folder: Path, story: Story, contents: list[bytes]) -> Ledger:
    ledger = Ledger.create(folder, story.origin, KEY)
    ledger.append(contents)
    return ledger


def resigned(entries: list[str], story: Story, previous_size: int = 0) -> CheckpointPresentation:
    """What an operator with its key in hand can show of any entries at all."""
    frontier = EMPTY.extend(leaf_hash(entry.encode()) for entry in entries)
    checkpoint = Checkpoint(origin=story.origin, size=len(entries), root=frontier.root())
    note = Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, KEY),)).text
    return CheckpointPresentation(note=note, previous_size=previous_size, entries=tuple(entries[previous_size:]))


def test_a_site_follows_a_growing_ledger_and_its_cosignatures_are_taken(
    ledger: Ledger, story: Story, site: Site
) -> None:
    for start in (10, 14, 18):
        ledger.append([entry.to_bytes() for entry in story.entries[start : start + 4]])
        new = [entry.to_bytes() for entry in story.entries[site.known.size : ledger.size]]
        growth = site.follow(present(ledger, site.known.size), [content for content in new if content in site.mine])
        assert (growth.frontier.size, growth.frontier.root().hex()) == (ledger.size, ledger.root)
        assert growth.entries == tuple(new)
        ledger.add_cosignature(ledger.size, "berlin", cosign(growth.note, "berlin", key_of("berlin"), START))
    assert site.entries == [ledger.entry(index) for index in range(ledger.size)]
    assert {name: actor.public_key for name, actor in site.actors.items()} == {
        name: key_of(name).public_text for name in ("berlin", "oslo", COORDINATOR)
    }


def test_only_the_coordinators_signature_on_a_checkpoint_is_kept(ledger: Ledger, site: Site) -> None:
    growth = site.follow(present(ledger, 0))
    ledger.add_cosignature(ledger.size, "berlin", cosign(growth.note, "berlin", key_of("berlin"), START))
    again = site.follow(present(ledger, ledger.size))
    assert (again.note, again.entries) == (growth.note, ())
    assert len(parse_note(ledger.checkpoint()).signatures) == 2


def test_entries_that_are_shown_again_are_no_news(ledger: Ledger, story: Story, site: Site) -> None:
    site.follow(present(ledger, 0))
    ledger.append([story.entries[10].to_bytes()])
    for previous in range(ledger.size):
        assert site.check(present(ledger, previous)).entries == (ledger.entry(10),)


def test_a_rewritten_past_is_refused(ledger: Ledger, story: Story, site: Site, tmp_path: Path) -> None:
    site.follow(present(ledger, 0))
    contents = [entry.to_bytes() for entry in story.entries]
    others = {
        "longer": [*contents[:9], contents[11], *contents[12:15]],
        "as-long": [*contents[:9], contents[11]],
        "shorter": contents[:5],
    }
    for name, other in others.items():
        rewritten = make(tmp_path / name, story, other)
        for previous in range(min(site.known.size, rewritten.size) + 1):
            with pytest.raises(LedgerError):
                site.check(present(rewritten, previous))


def test_an_entry_that_is_left_out_is_noticed(ledger: Ledger, story: Story, site: Site) -> None:
    mine = next(entry.to_bytes() for entry in story.entries[10:] if entry.actor == "berlin")
    assert site.check(present(ledger, 0), [ledger.entry(2)])
    with pytest.raises(LedgerError, match="1 of them missing"):
        site.check(present(ledger, 0), [ledger.entry(2), mine])


def test_an_entry_in_the_sites_name_must_be_in_its_journal(ledger: Ledger, story: Story, site: Site) -> None:
    site.mine.remove(next(entry.to_bytes() for entry in story.entries if entry.kind == "spend-reserved"))
    with pytest.raises(LedgerError, match="the journal does not know"):
        site.check(present(ledger, 0))


def test_another_sites_entry_must_be_signed_with_its_key_and_next_in_its_chain(story: Story, site: Site) -> None:
    texts = [entry.to_bytes().decode() for entry in story.entries]
    place = next(place for place, entry in enumerate(story.entries) if entry.kind == "run-closed")
    oslo = [entry for entry in story.entries[:place] if entry.actor == "oslo"]
    newest, body = oslo[-1].leaf, oslo[-1].body
    new_key = key_of("stranger").public_text

    def signed(kind: str, name: str, body: Any, key: str, previous: str) -> bytes:
        run = "" if kind.startswith("key-") else story.plan.digest
        return sign_entry(kind, name, run, body, key_of(key), previous=previous).to_bytes()

    def shown(*contents: bytes) -> CheckpointPresentation:
        return resigned([*texts[:place], *(content.decode() for content in contents)], story)

    good = signed(oslo[-1].kind, "oslo", body, "oslo", newest)
    rotation = signed("key-rotated", "oslo", KeyRotated(name="oslo", public_key=new_key), "oslo", newest)
    after = leaf_hash(rotation).hex()
    by_the_new_key = signed(oslo[-1].kind, "oslo", body, "stranger", after)
    assert site.check(shown(good)).actors["oslo"] == KnownActor(key_of("oslo").public_text, leaf_hash(good).hex())
    assert site.check(shown(rotation, by_the_new_key)).actors["oslo"].public_key == new_key
    spoilt = parse_entry(good).model_copy(update={"time": "2030-01-01T00:00:00Z"}).to_bytes()
    registered_again = KeyRegistered(name="oslo", role="site", public_key=new_key)
    faults = {
        "changed": (spoilt,),
        "by-another": (signed(oslo[-1].kind, "oslo", body, "stranger", newest),),
        "registered-again": (signed("key-registered", "oslo", registered_again, "stranger", newest),),
        "unknown": (signed(oslo[-1].kind, "paris", body, "paris", ""),),
        "not-the-coordinator": (signed("run-closed", COORDINATOR, story.entries[place].body, "berlin", newest),),
        "one-left-out": (signed(oslo[-1].kind, "oslo", body, "oslo", oslo[-2].leaf),),
        "chain-begun-anew": (signed(oslo[-1].kind, "oslo", body, "oslo", ""),),
        "by-a-replaced-key": (rotation, signed(oslo[-1].kind, "oslo", body, "oslo", after)),
        "other-form": (good.replace(b",", b", ", 1),),
        "gibberish": (b"gibberish",),
    }
    for contents in faults.values():
        with pytest.raises(LedgerError):
            site.check(shown(*contents))


def test_nobody_but_the_plans_sites_and_its_coordinator_may_sign(story: Story, site: Site) -> None:
    story.entries = []
    story.register(COORDINATOR, "coordinator")
    story.propose()
    texts = [entry.to_bytes().decode() for entry in story.entries]

    def registered(actor: str, key: str, role: str = "site", name: str = "", named_key: str = "") -> str:
        body = KeyRegistered(name=name or actor, role=role, public_key=key_of(named_key or key).public_text)
        previous = story.entries[-1].leaf if actor == COORDINATOR else ""
        return sign_entry("key-registered", actor, "", body, key_of(key), previous=previous).to_bytes().decode()

    assert "oslo" in site.check(resigned([*texts, registered("oslo", "oslo")], story)).actors
    own_rotated = KeyRotated(name=COORDINATOR, public_key=key_of("stranger").public_text)
    faults = {
        "no-site-of-the-plan": registered("paris", "paris"),
        "another-key": registered("oslo", "stranger"),
        "a-second-coordinator": registered("paris", "paris", "coordinator"),
        "a-site-as-coordinator": registered("oslo", "oslo", "coordinator"),
        "another-coordinators-key": registered(COORDINATOR, "stranger", "coordinator"),
        "a-key-for-later": registered(COORDINATOR, COORDINATOR, "coordinator", named_key="stranger"),
        "a-name-for-another": registered(COORDINATOR, COORDINATOR, name="oslo", named_key="oslo"),
        "a-coordinator-that-rotates": sign_entry(
            "key-rotated", COORDINATOR, "", own_rotated, KEY, previous=story.entries[-1].leaf
        )
        .to_bytes()
        .decode(),
    }
    for entry in faults.values():
        with pytest.raises(LedgerError):
            site.check(resigned([*texts, entry], story))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.model_copy(update={"previous_size": 5}),
        lambda p: p.model_copy(update={"previous_size": p.previous_size + 1}),
        lambda p: p.model_copy(update={"entries": ()}),
        lambda p: p.model_copy(update={"entries": p.entries[:-1]}),
        lambda p: p.model_copy(update={"entries": (*p.entries, p.entries[-1])}),
        lambda p: p.model_copy(update={"entries": p.entries[::-1]}),
        lambda p: p.model_copy(update={"note": "no note"}),
        lambda p: p.model_copy(update={"note": p.note.replace("synclave/", "synclave/f")}),
    ],
)
def test_a_changed_presentation_is_refused(ledger: Ledger, story: Story, site: Site, change: Any) -> None:
    site.follow(present(ledger, 0))
    ledger.append([entry.to_bytes() for entry in story.entries[10:12]])
    good = present(ledger, site.known.size)
    site.check(good)
    with pytest.raises(LedgerError):
        site.check(change(good))


def test_only_the_pinned_coordinator_is_believed(ledger: Ledger, site: Site) -> None:
    presentation = present(ledger, 0)
    checkpoint = parse_note(presentation.note).checkpoint
    stranger = key_of("stranger")
    forged = Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, stranger),)).text
    with pytest.raises(LedgerError, match="signature"):
        site.check(presentation.model_copy(update={"note": forged}))


def test_a_long_ledger_is_shown_in_parts_each_of_which_can_be_checked(
    story: Story, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [entry.to_bytes() for entry in story.entries]
    ledger = make(tmp_path / "long", story, contents)
    monkeypatch.setattr("synclave_shared.ledger.witness.MAX_SHOWN_ENTRIES", 4)
    monkeypatch.setattr("synclave_shared.ledger.witness.MAX_SHOWN_BYTES", max(map(len, contents)))
    parts = 0
    while site.known.size < ledger.size:
        growth = site.follow(present(ledger, site.known.size))
        assert 1 <= len(growth.entries) <= 4
        parts += 1
    assert parts >= ledger.size / 4
    assert site.known.root().hex() == ledger.root


def test_the_largest_presentation_fits_a_header() -> None:
    entry = '"' * 65_535  # quoting doubles it
    shown = CheckpointPresentation(
        note="n" * 262_144, previous_size=0, entries=(entry,) * min(MAX_SHOWN_ENTRIES, MAX_SHOWN_BYTES // len(entry))
    )
    assert len(canonical_bytes(shown)) < MAX_HEADER_BYTES - 2 * 65_535


def test_a_ledger_cannot_present_what_it_does_not_have(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        present(ledger, ledger.size + 1)
