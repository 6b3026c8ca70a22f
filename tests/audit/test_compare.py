from __future__ import annotations

import dataclasses
import os
from hashlib import sha256
from pathlib import Path
from unittest import mock

import pytest

from synclave_shared.audit.cli import app
from synclave_shared.audit.compare import Copy, compare, load_copy, load_note, of_note
from synclave_shared.audit.console import run
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.keys import SigningKey
from tests.audit.ledgers import written
from tests.ledger.story import Story, key_of, make_plan


def copy_of(tmp_path: Path, name: str, story: Story) -> Copy:
    return load_copy(written(story, tmp_path / name))


def begun() -> Story:
    story = Story().opening()
    story.round(0)
    return story


def other() -> Story:
    """As :func:`begun`, but the second site releases something else."""
    story = begun()
    story.entries = story.entries[:8]
    story.release("oslo", 0, b"another update")
    story.round(1)
    return story


def test_the_same(tmp_path: Path) -> None:
    result = compare(copy_of(tmp_path, "a", begun()), copy_of(tmp_path, "b", begun()))
    assert (result.relation, result.first_difference) == ("same", None)
    assert result.coordinator_keys == (key_of(COORDINATOR).public_text,) * 2
    assert result.signed == (True, True)
    assert result.cosigners == (("berlin", "oslo"), ("berlin", "oslo"))


def test_one_continues_the_other(tmp_path: Path) -> None:
    short, long = copy_of(tmp_path, "a", begun()), copy_of(tmp_path, "b", Story().whole())
    assert compare(long, short).relation == "first-extends"
    result = compare(short, long)
    assert (result.relation, result.first_difference) == ("second-extends", short.size)


def test_a_fork_names_the_first_entry_that_differs(tmp_path: Path) -> None:
    for first, second in (("a", "b"), ("c", "d")):
        result = compare(copy_of(tmp_path, first, Story().whole()), copy_of(tmp_path, second, other()))
        assert (result.relation, result.first_difference) == ("fork", 8)
        assert result.signed == (True, True)


def test_a_checkpoint_alone_tells_a_fork_and_a_truncation(tmp_path: Path) -> None:
    whole, short = copy_of(tmp_path, "a", Story().whole()), copy_of(tmp_path, "b", begun())
    note = of_note(load_note(tmp_path / "b" / "checkpoint"))
    assert compare(whole, note).relation == "first-extends"
    assert compare(note, whole).relation == "second-extends"
    assert compare(short, note).relation == "same"
    longer = of_note(load_note(tmp_path / "a" / "checkpoint"))
    result = compare(short, longer)
    assert (result.relation, result.first_difference) == ("truncated", short.size)
    copy_of(tmp_path, "c", other())
    forked = of_note(load_note(tmp_path / "c" / "checkpoint"))
    result = compare(whole, forked)
    assert (result.relation, result.first_difference) == ("fork", None)
    with pytest.raises(LedgerError, match="two checkpoints"):
        compare(note, longer)


def test_another_ledger_is_foreign(tmp_path: Path) -> None:
    foreign = copy_of(tmp_path, "a", Story(make_plan(name="other")).opening())
    assert compare(copy_of(tmp_path, "b", begun()), foreign).relation == "foreign"


def test_a_copy_that_is_not_what_its_checkpoint_says_is_damaged(tmp_path: Path) -> None:
    sound = copy_of(tmp_path, "a", begun())
    assert sound.entries is not None
    changed = dataclasses.replace(sound, entries=(*sound.entries[:3], b"x", *sound.entries[4:]))
    result = compare(sound, changed)
    assert (result.relation, result.first_difference) == ("damaged", 3)
    assert compare(sound, dataclasses.replace(sound, entries=sound.entries[:-1])).relation == "damaged"


def test_a_folder_without_a_ledger_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no checkpoint"):
        load_copy(tmp_path)


def test_two_coordinators_are_named_and_a_given_key_decides(tmp_path: Path) -> None:
    first = copy_of(tmp_path, "a", begun())
    with mock.patch(
        "tests.ledger.story.key_of", lambda name: SigningKey.from_seed(sha256(b"x" + name.encode()).digest())
    ):
        second = copy_of(tmp_path, "b", begun())
    result = compare(first, dataclasses.replace(second, origin=first.origin))
    assert result.relation == "fork"
    assert result.two_coordinators
    assert result.coordinator_keys[0] == key_of(COORDINATOR).public_text
    assert result.coordinator_keys[1] not in (None, result.coordinator_keys[0])
    given = compare(first, second, result.coordinator_keys[0])
    assert (given.signed, given.two_coordinators) == ((True, False), False)


def test_cosignatures_that_do_not_verify_are_not_listed(tmp_path: Path) -> None:
    copy = copy_of(tmp_path, "a", begun())
    forged = tuple(
        dataclasses.replace(line, signature=bytes(len(line.signature))) if line.name == "oslo" else line
        for line in copy.note.signatures
    )
    changed = dataclasses.replace(copy, note=dataclasses.replace(copy.note, signatures=forged))
    assert compare(copy, changed).cosigners == (("berlin", "oslo"), ("berlin",))
    alone = of_note(changed.note)
    assert compare(copy, alone).cosigners[1] == ("berlin",)


@pytest.mark.parametrize("name", ["checkpoint", "bundle"])
def test_pipes_and_devices_are_refused(tmp_path: Path, name: str) -> None:
    for kind in ("pipe", "zero"):
        folder = written(begun(), tmp_path / kind)
        target = next(folder.glob("tile/entries/*.p/*")) if name == "bundle" else folder / name
        target.unlink()
        if kind == "pipe":
            os.mkfifo(target)
        else:
            target.symlink_to("/dev/zero")
        if name == "checkpoint":
            with pytest.raises(LedgerError, match="not a file"):
                load_copy(folder)
        else:
            assert load_copy(folder).entries == ()
        with pytest.raises(SystemExit, match="1"):
            run(app, ["show", str(folder)])
