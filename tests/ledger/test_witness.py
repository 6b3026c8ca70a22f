"""The site's side of the ledger: whatever a coordinator changes in what it shows, the site does not co-sign it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import Checkpoint, Note, parse_note, sign_checkpoint
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.witness import SeenCheckpoint, cosign, present, verify_presentation
from synclave_shared.protocol import CheckpointPresentation
from tests.ledger.story import START, Story, key_of

KEY = key_of(COORDINATOR)


def check(
    presentation: CheckpointPresentation, story: Story, seen: SeenCheckpoint | None, leaves: list[str] | None = None
) -> SeenCheckpoint:
    return verify_presentation(
        presentation,
        origin=story.origin,
        operator_key=KEY.public_text,
        seen_size=seen.size if seen else 0,
        seen_root=seen.root if seen else "",
        expected_leaves=leaves or [],
    )


@pytest.fixture
def story() -> Story:
    return Story().whole()


@pytest.fixture
def ledger(story: Story, tmp_path: Path) -> Ledger:
    ledger = Ledger.create(tmp_path / "ledger", story.origin, KEY)
    ledger.append([entry.to_bytes() for entry in story.entries[:10]])
    return ledger


def test_a_site_follows_a_growing_ledger_and_its_cosignatures_are_taken(ledger: Ledger, story: Story) -> None:
    seen = None
    for start in (10, 14, 18):
        ledger.append([entry.to_bytes() for entry in story.entries[start : start + 4]])
        mine = [i for i, entry in enumerate(story.entries[: ledger.size]) if entry.actor == "berlin"]
        leaves = [story.entries[index].leaf for index in mine]
        seen = check(present(ledger, seen.size if seen else 0, mine), story, seen, leaves)
        assert (seen.size, seen.root, seen.note) == (ledger.size, ledger.root, ledger.checkpoint())
        ledger.add_cosignature(seen.size, "berlin", cosign(seen.note, "berlin", key_of("berlin"), START))


def test_a_rewritten_past_is_refused(ledger: Ledger, story: Story, tmp_path: Path) -> None:
    seen = check(present(ledger, 0, []), story, None)
    other = Ledger.create(tmp_path / "other", story.origin, KEY)
    other.append([entry.to_bytes() for entry in (*story.entries[:9], story.entries[11], *story.entries[12:15])])
    with pytest.raises(LedgerError):
        check(present(other, seen.size, []), story, seen)
    # A ledger of the same size with another past, and one that became shorter.
    same = Ledger.create(tmp_path / "same", story.origin, KEY)
    same.append([entry.to_bytes() for entry in (*story.entries[:9], story.entries[11])])
    with pytest.raises(LedgerError):
        check(present(same, seen.size, []), story, seen)
    short = Ledger.create(tmp_path / "short", story.origin, KEY)
    short.append([entry.to_bytes() for entry in story.entries[:5]])
    with pytest.raises(LedgerError):
        check(present(short, 5, []), story, seen)
    with pytest.raises(LedgerError):
        check(present(short, 5, []).model_copy(update={"previous_size": seen.size}), story, seen)


def test_an_entry_that_is_left_out_is_noticed(ledger: Ledger, story: Story) -> None:
    mine = next(entry for entry in story.entries[10:] if entry.actor == "berlin")
    with pytest.raises(LedgerError, match="1 of them missing"):
        check(present(ledger, 0, [2, 3]), story, None, [story.entries[2].leaf, mine.leaf])


def test_a_proof_of_another_entry_is_no_proof(ledger: Ledger, story: Story) -> None:
    shown = present(ledger, 0, [2, 3])
    swapped = tuple(
        each.model_copy(update={"leaf_hash": other.leaf_hash})
        for each, other in zip(shown.inclusions, reversed(shown.inclusions), strict=True)
    )
    with pytest.raises(LedgerError, match="invalid one"):
        check(shown.model_copy(update={"inclusions": swapped}), story, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.model_copy(update={"previous_size": 5}),
        lambda p: p.model_copy(update={"consistency": ()}),
        lambda p: p.model_copy(update={"consistency": (*p.consistency, "0" * 64)}),
        lambda p: p.model_copy(update={"note": "no note"}),
        lambda p: p.model_copy(update={"note": p.note.replace("synclave/", "synclave/f")}),
    ],
)
def test_a_changed_presentation_is_refused(ledger: Ledger, story: Story, change: Any) -> None:
    seen = check(present(ledger, 0, []), story, None)
    ledger.append([story.entries[10].to_bytes()])
    good = present(ledger, seen.size, [])
    check(good, story, seen)
    with pytest.raises(LedgerError):
        check(change(good), story, seen)


def test_only_the_pinned_coordinator_is_believed(ledger: Ledger, story: Story) -> None:
    presentation = present(ledger, 0, [])
    checkpoint = parse_note(presentation.note).checkpoint
    stranger = key_of("stranger")
    forged = Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, stranger),)).text
    with pytest.raises(LedgerError, match="signature"):
        check(presentation.model_copy(update={"note": forged}), story, None)
    larger = Checkpoint(origin=checkpoint.origin, size=checkpoint.size + 1, root=checkpoint.root)
    lying = Note(checkpoint=larger, signatures=(sign_checkpoint(larger, KEY),)).text
    seen = check(presentation, story, None)
    with pytest.raises(LedgerError):
        check(presentation.model_copy(update={"note": lying, "previous_size": seen.size}), story, seen)


def test_a_ledger_cannot_present_what_it_does_not_have(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        present(ledger, ledger.size + 1, [])
    with pytest.raises(LedgerError):
        present(ledger, 0, [ledger.size])
