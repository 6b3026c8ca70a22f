"""Whatever is changed in a ledger folder, verification says so and names the place; it never breaks on it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import LedgerError
from synclave_shared.ledger import verify
from synclave_shared.ledger.checkpoint import Checkpoint, Note, sign_checkpoint
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.ledger.tiles import encode_bundle, tile_content
from synclave_shared.ledger.verify import VerifyReport, verify_ledger
from synclave_shared.privacy.accountant import Bounds
from synclave_shared.privacy.budget import Excess
from synclave_shared.privacy.cross_check import CrossCheck
from tests.ledger.story import Story, files_of, key_of

STORY = Story().whole()
BUNDLE = f"tile/entries/000.p/{len(STORY.entries)}"
TILE = f"tile/0/000.p/{len(STORY.entries)}"
WITNESSED = f"witness/{len(STORY.entries)}"


@pytest.fixture(autouse=True)
def _cheap_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of verifications of the same spends: the numbers themselves are tested elsewhere."""
    half = Bounds(by_distribution=0.5, by_divergence=0.6)
    monkeypatch.setattr(verify, "bounds", lambda mechanisms, delta: half)
    monkeypatch.setattr(verify, "first_excess", lambda history, budgets: None)
    agreed = CrossCheck(pld=0.5, rdp=0.6, prv=None, tolerance=0.01, rounding=0.0, disagreements=(), not_checked=())
    monkeypatch.setattr(verify, "cross_check", lambda mechanisms, delta: agreed)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "ledger"
    STORY.write(folder, in_steps=6)
    return folder


@pytest.fixture
def ledger(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "ledger")
    return tmp_path / "ledger"


def errors(report: VerifyReport) -> set[tuple[str, int | str | None]]:
    return {
        (finding.code, finding.file if finding.entry is None else finding.entry)
        for finding in report.findings
        if finding.severity == "error"
    }


def named_places(report: VerifyReport) -> set[int | str | None]:
    return {place for _, place in errors(report)}


def test_an_untouched_ledger_is_valid_without_a_finding(ledger: Path) -> None:
    report = verify_ledger(ledger)
    assert report.valid
    assert report.findings == ()
    assert report.size == len(STORY.entries)
    assert {site.witnessed_size for site in report.sites.values()} == {len(STORY.entries)}


def changed_bytes(data: bytes, positions: Iterator[int] | range | list[int], seed: int) -> Iterator[tuple[int, bytes]]:
    source = random.Random(seed)
    for position in positions:
        changed = bytearray(data)
        changed[position] ^= source.randrange(1, 256)
        yield position, bytes(changed)


def entry_at(position: int) -> int:
    """Index of the entry that the byte at ``position`` of the bundle belongs to, its length included."""
    stop = 0
    for index, entry in enumerate(STORY.entries):
        stop += 2 + len(entry.to_bytes())
        if position < stop:
            return index
    raise AssertionError


@pytest.mark.parametrize("path", ["checkpoint", BUNDLE, TILE, WITNESSED])
def test_any_changed_byte_of_any_file_is_found_and_named(ledger: Path, path: str) -> None:
    assert path in files_of(ledger)
    target = ledger / path
    data = target.read_bytes()
    count = min(len(data), 120)
    positions = sorted(random.Random(1).sample(range(len(data)), count))
    for position, content in changed_bytes(data, positions, seed=2):
        target.write_bytes(content)
        report = verify_ledger(ledger)
        assert not report.valid, (path, position)
        expected = {path, entry_at(position)} if path == BUNDLE else {path}
        assert named_places(report) & expected, (path, position, errors(report))


def test_the_files_above_are_all_there_are(ledger: Path) -> None:
    assert set(files_of(ledger)) == {"checkpoint", BUNDLE, TILE, WITNESSED}


def test_every_byte_of_a_small_entry_names_that_entry(ledger: Path) -> None:
    sizes = [len(entry.to_bytes()) for entry in STORY.entries]
    index = sizes.index(min(sizes))
    start = sum(2 + size for size in sizes[:index])
    target = ledger / BUNDLE
    data = target.read_bytes()
    for position, content in changed_bytes(data, range(start, start + 2 + sizes[index]), seed=3):
        target.write_bytes(content)
        report = verify_ledger(ledger)
        assert not report.valid
        places = named_places(report)
        # A changed length is named as damage of the bundle; a changed content as that entry, and no other.
        if position < start + 2:
            assert places & {index, BUNDLE}
        else:
            assert places - {None} >= {index}
            assert ("entry-altered", index) in errors(report)


def test_higher_tiles_are_checked_too(tmp_path: Path) -> None:
    story = Story().whole().introduce(300)
    story.write(tmp_path)
    report = verify_ledger(tmp_path)
    assert report.valid
    for path in files_of(tmp_path):
        target = tmp_path / path
        data = target.read_bytes()
        for _, content in changed_bytes(data, [0, len(data) // 2, len(data) - 1], seed=4):
            target.write_bytes(content)
            report = verify_ledger(tmp_path)
            assert not report.valid
            assert any(finding.file == path or finding.entry is not None for finding in report.findings)
        target.write_bytes(data)
    assert verify_ledger(tmp_path).valid


@pytest.mark.parametrize("path", ["checkpoint", BUNDLE, TILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long", "folder", "pipe", "noise", "loop"])
def test_damaged_files_are_findings(ledger: Path, path: str, damage: str) -> None:
    target = ledger / path
    data = target.read_bytes()
    target.unlink()
    make: dict[str, Callable[[], object]] = {
        "missing": lambda: None,
        "empty": lambda: target.write_bytes(b""),
        "short": lambda: target.write_bytes(data[:-1]),
        "long": lambda: target.write_bytes(data + b"\x00"),
        "folder": lambda: target.mkdir(),
        "pipe": lambda: os.mkfifo(target),
        "noise": lambda: target.write_bytes(random.Random(5).randbytes(3000)),
        "loop": lambda: target.symlink_to(target),
    }
    make[damage]()
    report = verify_ledger(ledger)
    assert not report.valid
    assert path in named_places(report)


def test_files_that_grew_beyond_measure_are_not_read(ledger: Path) -> None:
    for path in ("checkpoint", BUNDLE, TILE):
        with (ledger / path).open("r+b") as file:
            file.truncate(2**40)
    report = verify_ledger(ledger)
    assert ("file-too-large", "checkpoint") in errors(report)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["checkpoint", BUNDLE, TILE, WITNESSED]), st.binary(max_size=300), st.booleans())
def test_no_content_breaks_the_verification(
    original: Path, tmp_path: Path, path: str, noise: bytes, joined: bool
) -> None:
    folder = tmp_path / "ledger"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    data = (folder / path).read_bytes()
    (folder / path).write_bytes(data[: len(data) // 2] + noise if joined else noise)
    assert not verify_ledger(folder).valid


def resign(folder: Path, entries: list[bytes], origin: str = STORY.origin, signer: str = COORDINATOR) -> None:
    """Write a ledger as a dishonest operator can: any entries, with tiles and a checkpoint that fit them."""
    shutil.rmtree(folder, ignore_errors=True)
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    count = len(entries)
    for path, data in (
        (f"tile/entries/000.p/{count}", encode_bundle(entries)),
        (f"tile/0/000.p/{count}", tile_content(tree, 0, 0, count)),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    checkpoint = Checkpoint(origin=origin, size=count, root=tree.root())
    note = Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, key_of(signer)),))
    (folder / "checkpoint").write_bytes(note.text.encode())


def test_an_operator_who_recomputes_the_tree_still_cannot_change_what_a_site_signed(tmp_path: Path) -> None:
    index = next(i for i, entry in enumerate(STORY.entries) if entry.kind == "spend-reserved")
    entries = [entry.to_bytes() for entry in STORY.entries]
    entries[index] = entries[index].replace(b'"noise_multiplier":"10"', b'"noise_multiplier":"99"')
    assert entries[index] != STORY.entries[index].to_bytes()
    resign(tmp_path / "ledger", entries)
    assert ("signature-invalid", index) in errors(verify_ledger(tmp_path / "ledger"))


def test_an_operator_who_rewrites_history_is_met_by_the_sites_cosignatures(ledger: Path, tmp_path: Path) -> None:
    kept = files_of(ledger / "witness")
    resign(ledger, [entry.to_bytes() for entry in STORY.entries[:-3]])
    (ledger / "witness").mkdir()
    for name, data in kept.items():
        (ledger / "witness" / name).write_bytes(data)
    assert ("fork", WITNESSED) in errors(verify_ledger(ledger))


def test_a_ledger_of_another_coordinator_or_plan_is_noticed(tmp_path: Path) -> None:
    entries = [entry.to_bytes() for entry in STORY.entries]
    resign(tmp_path / "signer", entries, signer="stranger")
    assert ("checkpoint-signature-invalid", "checkpoint") in errors(verify_ledger(tmp_path / "signer"))
    resign(tmp_path / "origin", entries, origin="synclave/0000000000000000")
    assert ("origin-wrong", "checkpoint") in errors(verify_ledger(tmp_path / "origin"))
    resign(tmp_path / "good", entries)
    assert verify_ledger(tmp_path / "good", coordinator_key=key_of(COORDINATOR).public_text).valid
    other = verify_ledger(tmp_path / "good", coordinator_key=key_of("stranger").public_text)
    assert ("coordinator-unexpected", None) in errors(other)
    for nonsense in ("", "abc", "=" * 44, "A" * 42 + "B="):
        assert not verify_ledger(tmp_path / "good", coordinator_key=nonsense).valid


def test_entries_that_are_none_are_named(tmp_path: Path) -> None:
    entries = [entry.to_bytes() for entry in STORY.entries[:4]]
    resign(tmp_path / "ledger", [*entries, b"", b"{}", b"[" * 20_000, b"\xff"])
    assert {("entry-malformed", index) for index in range(4, 8)} <= errors(verify_ledger(tmp_path / "ledger"))


def test_a_false_size_does_not_keep_the_verification_busy(ledger: Path) -> None:
    checkpoint = Checkpoint(origin=STORY.origin, size=10**17, root=bytes(32))
    note = Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, key_of(COORDINATOR)),))
    (ledger / "checkpoint").write_bytes(note.text.encode())
    report = verify_ledger(ledger)
    assert ("root-mismatch", "checkpoint") in errors(report)
    assert report.size == 10**17


def test_foreign_files_are_mentioned_and_harmless(ledger: Path) -> None:
    for name in ("note.txt", "tile/0/x001/000", "a\x1b[31mb", os.fsdecode(b"\xff")):
        (ledger / name).parent.mkdir(parents=True, exist_ok=True)
        (ledger / name).write_text("hello")
    for number in range(100):
        (ledger / f"more-{number}").write_text("")
    report = verify_ledger(ledger)
    assert report.valid
    assert 4 <= len(report.findings) <= 60
    assert {finding.code for finding in report.findings} == {"file-unexpected"}


def test_a_witness_file_must_hold_a_cosignature(ledger: Path) -> None:
    note = (ledger / WITNESSED).read_text(encoding="utf-8").splitlines(keepends=True)
    (ledger / "witness/1").write_text("".join(note[:5]), encoding="utf-8")
    assert errors(verify_ledger(ledger)) == {("checkpoint-malformed", "witness/1")}


def test_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        verify_ledger(tmp_path / "absent")
    assert ("file-missing", "checkpoint") in errors(verify_ledger(tmp_path))


def test_the_report_as_json_has_no_infinity(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Bounds(by_distribution=float("inf"), by_divergence=float("inf"))
    monkeypatch.setattr(verify, "bounds", lambda mechanisms, delta: none)
    monkeypatch.setattr(verify, "first_excess", lambda history, budgets: Excess(0, none.smaller, budgets[0][1]))
    report = verify_ledger(ledger)
    assert {code for code, _ in errors(report)} == {"budget-exceeded"}
    assert report.to_json()["sites"]["berlin"]["epsilon"] is None
    assert sha256_hex(b"") not in str(report)
