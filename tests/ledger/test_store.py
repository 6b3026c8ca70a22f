from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.errors import LedgerError
from synclave_shared.ledger import durable
from synclave_shared.ledger.checkpoint import parse_note
from synclave_shared.ledger.entry import COORDINATOR, KeyRegistered, parse_entry, sign_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import EMPTY_ROOT, leaf_hash, verify_consistency, verify_inclusion
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.tiles import encode_bundle, entries_path, split_bundle, tile_path, tile_positions
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.ledger.witness import cosign
from tests.ledger.story import SITES, START, Story, files_of, key_of

KEY = key_of(COORDINATOR)
STORY = Story().whole()
DATA = [entry.to_bytes() for entry in STORY.entries]
ENTRY = DATA[0]


def test_paths_are_those_of_the_published_specification() -> None:
    assert entries_path(1234067, 256) == "tile/entries/x001/x234/067"
    assert tile_path(2, 0, 1) == "tile/2/000.p/1"
    # A tree of size 70,000, as the specification counts its tiles.
    tiles = list(tile_positions(70_000))
    assert [tile for tile in tiles if tile[0] == 0] == [*((0, i, 256) for i in range(273)), (0, 273, 112)]
    assert [tile for tile in tiles if tile[0]] == [(1, 0, 256), (1, 1, 17), (2, 0, 1)]
    assert list(tile_positions(256)) == [(0, 0, 256), (1, 0, 1)]
    assert list(tile_positions(0)) == []


@given(st.integers(0, 140_000), st.integers(0, 140_000))
def test_new_tiles_are_those_that_the_smaller_ledger_lacks(one: int, other: int) -> None:
    old, new = sorted((one, other))
    assert set(tile_positions(new, old)) == set(tile_positions(new)) - set(tile_positions(old))


@given(st.lists(st.binary(max_size=400), max_size=20), st.binary(max_size=3))
def test_bundles_are_split_where_they_were_joined(entries: list[bytes], rest: bytes) -> None:
    assert split_bundle(encode_bundle(entries)) == (entries, b"")
    found, left = split_bundle(encode_bundle(entries) + b"\xff\xff" + rest)
    assert (found, left) == (entries, b"\xff\xff" + rest)


def test_an_empty_ledger_is_signed_and_can_be_opened(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", STORY.origin, KEY)
    assert (ledger.size, ledger.root) == (0, EMPTY_ROOT.hex())
    assert Ledger.open(tmp_path / "ledger", KEY).checkpoint() == ledger.checkpoint()
    before = files_of(tmp_path)
    with pytest.raises(LedgerError):
        Ledger.create(tmp_path / "ledger", STORY.origin, KEY)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("in_steps", [0, 1, 4])
def test_what_is_appended_is_there_when_it_is_opened_again(tmp_path: Path, in_steps: int) -> None:
    written = STORY.write(tmp_path / "ledger", in_steps=in_steps)
    for ledger in (written, Ledger.open(tmp_path / "ledger"), Ledger.open(tmp_path / "ledger", KEY)):
        assert [ledger.entry(index) for index in range(ledger.size)] == DATA
        assert ledger.root == written.root
        assert ledger.checkpoint() == written.checkpoint()
        assert (ledger.origin, ledger.size) == (STORY.origin, len(DATA))


def test_the_number_of_steps_leaves_no_trace_in_the_files(tmp_path: Path) -> None:
    STORY.write(tmp_path / "one")
    STORY.write(tmp_path / "many", in_steps=3)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "many")


def test_several_hundred_entries_make_full_tiles_and_proofs_from_every_size(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, STORY.origin, KEY)
    roots = {0: ledger.root}
    sizes = [255, 256, 257, 511, 512, 600]
    for size in sizes:
        indices = ledger.append([ENTRY] * (size - ledger.size))
        assert indices[-1] == size - 1
        roots[size] = ledger.root
    assert set(files_of(tmp_path)) == {
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    }
    again = Ledger.open(tmp_path, KEY)
    root = bytes.fromhex(again.root)
    for size in (0, *sizes):
        proof = [bytes.fromhex(node) for node in again.consistency_proof(size)]
        assert verify_consistency(size, 600, proof, bytes.fromhex(roots[size]), root)
    for index in (0, 255, 256, 599):
        proof = [bytes.fromhex(node) for node in again.inclusion_proof(index)]
        assert verify_inclusion(leaf_hash(ENTRY), index, 600, proof, root)


def test_nothing_is_appended_if_one_entry_is_bad(tmp_path: Path) -> None:
    ledger = STORY.write(tmp_path)
    before, size = files_of(tmp_path), ledger.size
    forged = parse_entry(ENTRY).model_copy(update={"time": "2026-11-22T08:00:00Z"}).to_bytes()
    for bad in (b"{}", forged, ENTRY + b" "):
        with pytest.raises(LedgerError):
            ledger.append([ENTRY, bad])
    assert ledger.append([]) == []
    assert (files_of(tmp_path), ledger.size) == (before, size)


def test_reading_needs_no_key_and_writing_the_right_one(tmp_path: Path) -> None:
    STORY.write(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(LedgerError, match="key"):
        Ledger.open(tmp_path).append([ENTRY])
    with pytest.raises(LedgerError, match="signature"):
        Ledger.open(tmp_path, SigningKey.from_seed(bytes(32)))
    for call in (
        lambda ledger: ledger.entry(len(DATA)),
        lambda ledger: ledger.entry(-1),
        lambda ledger: ledger.inclusion_proof(len(DATA)),
        lambda ledger: ledger.consistency_proof(len(DATA) + 1),
    ):
        with pytest.raises(LedgerError):
            call(Ledger.open(tmp_path))
    assert files_of(tmp_path) == before


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first = STORY.write(tmp_path)
    second = Ledger.open(tmp_path, KEY)
    first.append([ENTRY])
    before = files_of(tmp_path)
    with pytest.raises(LedgerError, match="Another process"):
        second.append([DATA[1]])
    assert files_of(tmp_path) == before
    assert second.size == len(DATA)
    assert first.append([DATA[2]]) == [len(DATA) + 1]
    assert Ledger.open(tmp_path, KEY).root == first.root


class Crash(BaseException):
    """Stands for the power going off."""


def append_and_crash(folder: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> bool:
    """Append two entries, and stop before write or rename number ``writes``; whether it got that far."""
    write, move, count = durable._write, durable._move, 0

    def counted() -> bool:
        nonlocal count
        count += 1
        return count > writes

    def writing(path: Path, data: bytes) -> None:
        if counted():
            # The worst moment: half of the file is on disk.
            path.write_bytes(data[: len(data) // 2])
            raise Crash
        write(path, data)

    def moving(temporary: Path, path: Path) -> None:
        if counted():
            raise Crash
        move(temporary, path)

    ledger = Ledger.open(folder, KEY)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write", writing)
        patch.setattr(durable, "_move", moving)
        try:
            ledger.append(DATA[1:3])
        except Crash:
            return True
    return False


@pytest.mark.parametrize("size", [1, 2, 254, 255, 256, 257])
def test_a_crash_at_any_write_leaves_the_old_ledger_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    original = tmp_path / "original"
    ledger = Ledger.create(original, STORY.origin, KEY)
    introduced = Story().introduce(size)
    ledger.append([entry.to_bytes() for entry in introduced.entries])
    old_root = ledger.root
    crashes = 0
    while True:
        folder = tmp_path / f"crash-{crashes}"
        shutil.copytree(original, folder)
        if not append_and_crash(folder, monkeypatch, crashes):
            break
        crashes += 1
        # What a reader sees before the operator comes back is the old ledger, with left-overs at most.
        assert Ledger.open(folder).root == old_root
        findings = verify_ledger(folder).findings
        assert {finding.code for finding in findings if finding.severity == "error"} == set()
        again = Ledger.open(folder, KEY)
        assert again.root == old_root
        assert files_of(folder) == files_of(original)
        again.append(DATA[3:5])
        again.append(DATA[5:6])
        assert Ledger.open(folder, KEY).root == again.root
        assert [finding for finding in verify_ledger(folder).findings if finding.file] == []
    assert crashes >= 4
    assert Ledger.open(folder, KEY).size == size + 2


class Disk:
    """What is left of a ledger folder when the power goes off, after any number of the steps of an append.

    Nothing lasts but contents of files that were flushed, under names in folders that were flushed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.lasting = dict(self.files)
        self.folders = {folder, *(path for path in folder.rglob("*") if path.is_dir())}
        self.waiting: set[Path] = set()
        self.states: list[dict[Path, bytes]] = []

    def _content(self, path: Path) -> bytes:
        return self.files[path][: len(self.files[path]) // 2] if path in self.waiting else self.files[path]

    def _note(self) -> None:
        """The two extremes: all that was not flushed is lost, and all but halves of contents happens to be there."""
        self.states.append({path: data for path, data in self.lasting.items() if path.parent in self.folders})
        self.states.append({path: self._content(path) for path in self.files})

    def write(self, path: Path, data: bytes) -> None:
        self.files[path] = data
        self.waiting.add(path)
        self._note()

    def move(self, temporary: Path, path: Path) -> None:
        self.files[path] = self.files.pop(temporary)
        if temporary in self.waiting:
            self.waiting.add(path)
        self._note()

    def flush(self, paths: Iterable[Path]) -> None:
        flushed = set(paths)
        self.waiting -= flushed
        for folder in flushed - self.files.keys():
            self.folders |= {path.parent for path in self.files if path.parent.parent == folder}
            for path in {path for path in self.lasting if path.parent == folder} - self.files.keys():
                del self.lasting[path]
            self.lasting.update({path: self._content(path) for path in self.files if path.parent == folder})
        self._note()


def one_after_another(*calls: Callable[..., object]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        for each in calls:
            each(*arguments)

    return call


@pytest.mark.parametrize("size", [2, 254, 255, 256])
def test_a_power_cut_at_any_step_leaves_the_old_ledger_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    ledger = Ledger.create(tmp_path / "ledger", STORY.origin, KEY)
    story = Story().introduce(size - 1)
    story.register("berlin", "site")
    ledger.append([entry.to_bytes() for entry in story.entries])
    line = cosign(ledger.checkpoint(), "berlin", key_of("berlin"), START)
    old_root, disk = ledger.root, Disk(tmp_path / "ledger")
    with monkeypatch.context() as patch:
        for name in ("_write", "_move", "_flush"):
            patch.setattr(durable, name, one_after_another(getattr(disk, name[1:]), getattr(durable, name)))
        assert ledger.update(DATA[1:3], [(size, "berlin", line)]) == {}
    assert len(disk.states) >= 12
    for number, state in enumerate([*disk.states, disk.lasting]):
        folder = tmp_path / str(number)
        for path, data in state.items():
            target = folder / path.relative_to(disk.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        left = Ledger.open(folder, KEY)
        assert left.root in (old_root, ledger.root)
        assert not [finding for finding in verify_ledger(folder).findings if finding.file]
    # What was there when the step had ended lasts.
    assert left.root == ledger.root
    assert set(files_of(folder / "witness")) == {str(size)}


def test_a_failed_write_leaves_the_open_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = STORY.write(tmp_path)
    root = ledger.root

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write", full)
        with pytest.raises(LedgerError, match="No space"):
            ledger.append([ENTRY])
    assert (ledger.root, ledger.size) == (root, len(DATA))
    assert ledger.append([ENTRY]) == [len(DATA)]
    assert Ledger.open(tmp_path, KEY).root == ledger.root


def test_what_cannot_be_removed_after_an_append_stays_and_nothing_is_signed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.create(tmp_path, STORY.origin, KEY)
    ledger.append(DATA[:6])

    def lines(size: int) -> list[tuple[int, str, str]]:
        return [(size, site, cosign(ledger.checkpoint(size), site, key_of(site), START)) for site in SITES]

    ledger.update(DATA[6:8], lines(6))

    def stuck(path: Path, missing_ok: bool = False) -> None:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stuck)
        ledger.update(DATA[8:10], lines(8))
    assert ledger.size == 10
    assert set(files_of(tmp_path / "witness")) == {"6", "8"}
    ledger.update(DATA[10:], lines(10))
    assert set(files_of(tmp_path / "witness")) == {"10"}
    assert verify_ledger(tmp_path).valid
    assert Ledger.open(tmp_path, KEY).root == ledger.root
    assert verify_ledger(tmp_path).findings == (), "opening removes what was left"


@pytest.mark.parametrize("path", ["checkpoint", "tile/entries/000.p/25"])
@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:9] + b"\x00" + d[10:], None])
def test_a_damaged_ledger_is_not_opened(tmp_path: Path, path: str, damage: Any) -> None:
    STORY.write(tmp_path)
    target = tmp_path / path
    if damage:
        target.write_bytes(damage(target.read_bytes()))
    else:
        target.unlink()
    before = files_of(tmp_path)
    for key in (None, KEY):
        with pytest.raises(LedgerError):
            Ledger.open(tmp_path, key)
    assert files_of(tmp_path) == before


def test_cosignatures_stand_in_the_checkpoint_and_stay_when_the_ledger_grows(tmp_path: Path) -> None:
    ledger = STORY.write(tmp_path)
    assert [line.name for line in parse_note(ledger.checkpoint()).signatures] == [STORY.origin, *SITES]
    ledger.append([ENTRY])
    assert [line.name for line in parse_note(ledger.checkpoint()).signatures] == [STORY.origin]
    kept = parse_note((tmp_path / "witness" / str(len(DATA))).read_text(encoding="utf-8"))
    assert [line.name for line in kept.signatures] == [STORY.origin, *SITES]
    assert Ledger.open(tmp_path, KEY).checkpoint() == ledger.checkpoint()


def test_cosignatures_and_entries_are_kept_in_one_step_and_only_the_newest_of_each_site(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, STORY.origin, KEY)
    ledger.append(DATA[:10])

    def lines(size: int, *sites: str) -> list[tuple[int, str, str]]:
        return [(size, site, cosign(ledger.checkpoint(size), site, key_of(site), START)) for site in sites]

    assert ledger.update(DATA[10:15], lines(10, "berlin", "oslo")) == {}
    assert set(files_of(tmp_path / "witness")) == {"10"}
    refused = ledger.update(DATA[15:20], [*lines(15, "berlin"), (15, "oslo", "no line")])
    assert list(refused) == ["oslo"]
    assert set(files_of(tmp_path / "witness")) == {"10", "15"}, "a line of oslo stands in the older one alone"
    # Opened again, it knows whose lines are where.
    ledger = Ledger.open(tmp_path, KEY)
    ledger.update(DATA[20:], lines(15, "oslo"))
    assert set(files_of(tmp_path / "witness")) == {"15"}
    report = verify_ledger(tmp_path)
    assert report.findings == ()
    assert {report.sites[site].witnessed_size for site in SITES} == {15}


def test_a_step_waits_twice_for_the_disk_and_flushes_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = STORY.write(tmp_path)
    size, waits = ledger.size, []
    real = durable._flush

    def flush(paths: Iterable[Path]) -> None:
        waits.append(sorted(str(path.relative_to(tmp_path)) for path in paths))
        real(paths)

    monkeypatch.setattr(durable, "_flush", flush)
    line = cosign(ledger.checkpoint(), "berlin", key_of("berlin"), START + timedelta(seconds=1))
    ledger.update(DATA[:1], [(size, "berlin", line)])
    partial = ["tile/0/000.p", f"tile/0/000.p/{size + 1}", "tile/entries/000.p", f"tile/entries/000.p/{size + 1}"]
    assert waits == [sorted(["checkpoint.new", *partial, f"witness/{size}.new"]), [".", "witness"]]


def test_a_ledger_beside_a_cosigned_fork_is_not_opened(tmp_path: Path) -> None:
    STORY.write(tmp_path / "ledger")
    other = STORY.write(tmp_path / "other", witnessed=False)
    other.append([ENTRY])
    other.add_cosignature(other.size, "berlin", cosign(other.checkpoint(), "berlin", key_of("berlin"), START))
    shutil.copy(tmp_path / "other/witness" / str(other.size), tmp_path / "ledger/witness")
    before = files_of(tmp_path / "ledger")
    with pytest.raises(LedgerError, match="co-signed"):
        Ledger.open(tmp_path / "ledger", KEY)
    assert files_of(tmp_path / "ledger") == before


def test_a_late_cosignature_of_an_older_size_is_kept_only_if_there_is_no_newer(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, STORY.origin, KEY)
    notes = {}
    for start in range(0, len(DATA), 5):
        ledger.append(DATA[start : start + 5])
        notes[ledger.size] = ledger.checkpoint()
    for size, kept in ((10, 10), (20, 20), (15, 20), (25, 25)):
        ledger.add_cosignature(size, "berlin", cosign(notes[size], "berlin", key_of("berlin"), START) + "\n")
        assert set(files_of(tmp_path / "witness")) == {str(kept)}
    assert verify_ledger(tmp_path).sites["berlin"].witnessed_size == 25


def test_cosignatures_that_do_not_verify_are_refused_and_leave_no_trace(tmp_path: Path) -> None:
    ledger = STORY.write(tmp_path, witnessed=False)
    note = ledger.checkpoint()
    before = files_of(tmp_path)
    good = cosign(note, "berlin", key_of("berlin"), START)
    stranger = cosign(note, "paris", key_of("paris"), START)
    for size, name, line in (
        (ledger.size, "oslo", good),
        (ledger.size - 1, "berlin", good),
        (ledger.size + 1, "berlin", good),
        (ledger.size, "paris", stranger),
        (ledger.size, "../berlin", good),
        (ledger.size, "berlin", cosign(note, "berlin", key_of("oslo"), START)),
        (ledger.size, "berlin", "no line"),
        (ledger.size, "berlin", good + "\n— x QUJDREVG"),
    ):
        with pytest.raises(LedgerError):
            ledger.add_cosignature(size, name, line)
    assert files_of(tmp_path) == before
    assert ledger.checkpoint() == note


def test_a_site_that_registered_nothing_cannot_write_outside_the_folder(tmp_path: Path) -> None:
    body = KeyRegistered(name="berlin", role="site", public_key=key_of("berlin").public_text)
    with pytest.raises(LedgerError):
        sign_entry("key-registered", "../up", "", body, key_of("berlin"), previous="")
