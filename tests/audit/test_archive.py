from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.audit import archive
from synclave_shared.audit.archive import opened, write_archive
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.verify import verify_ledger
from tests.ledger.story import files_of


def archived(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def test_an_archive_is_the_ledger(two_plans_ledger: Path, tmp_path: Path) -> None:
    write_archive(two_plans_ledger, tmp_path / "a.tar")
    with opened(tmp_path / "a.tar") as folder:
        assert files_of(folder) == files_of(two_plans_ledger)
        assert verify_ledger(folder) == verify_ledger(two_plans_ledger)
    assert not folder.exists()
    with opened(two_plans_ledger) as same:
        assert same == two_plans_ledger


def test_one_ledger_has_one_archive(two_plans_ledger: Path, tmp_path: Path) -> None:
    first = write_archive(two_plans_ledger, tmp_path / "a.tar")
    (tmp_path / "copy").mkdir()
    with opened(tmp_path / "a.tar") as folder:
        (folder / "notes.txt").write_text("no part of a ledger")
        assert write_archive(folder, tmp_path / "b.tar") == first
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_archive_made_by_hand_is_read(two_plans_ledger: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "hand.tar", "w") as file:
        file.add(two_plans_ledger, arcname=".")
    with opened(tmp_path / "hand.tar") as folder:
        assert files_of(folder) == files_of(two_plans_ledger)


def test_nothing_is_overwritten(two_plans_ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("mine")
    with pytest.raises(LedgerError, match="exists"):
        write_archive(two_plans_ledger, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_text() == "mine"
    with pytest.raises(LedgerError, match="no checkpoint"):
        write_archive(tmp_path, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../checkpoint",
        "/etc/checkpoint",
        "witness/../../checkpoint",
        "witness/..",
        "tile/0/../000",
        "tile/0/000/001",
        "witness/a/b",
        "witness/\x1b",
        "tile\\0\\000",
        "home/key.pem",
        "checkpoint/x",
        "witness/" + "a" * 400,
        "tile/0" + "/x000" * 2000 + "/000",
    ],
)
def test_a_name_that_no_ledger_has_is_refused(tmp_path: Path, name: str) -> None:
    path = archived(tmp_path / "a.tar", ("checkpoint", b"x"), (name, b"x"))
    before = files_of(tmp_path)
    with pytest.raises(LedgerError), opened(path):
        pass
    assert files_of(tmp_path) == before


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = archived(tmp_path / "a.tar", ("checkpoint", b"x"), member("witness/oslo", kind, "/etc/passwd"))
    with pytest.raises(LedgerError, match="link"), opened(path):
        pass


def test_a_file_twice_is_refused(tmp_path: Path) -> None:
    path = archived(tmp_path / "a.tar", ("checkpoint", b"x"), ("checkpoint", b"y"))
    with pytest.raises(LedgerError, match="twice"), opened(path):
        pass


def test_a_name_that_is_file_and_folder_is_refused(tmp_path: Path) -> None:
    path = archived(tmp_path / "a.tar", ("checkpoint", b"x"), ("tile/0/x001", b""), ("tile/0/x001/000", b""))
    with pytest.raises(LedgerError), opened(path):
        pass


def test_an_archive_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no checkpoint"), opened(archived(tmp_path / "a.tar")):
        pass


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archived(tmp_path / "a.tar", ("checkpoint", b"x"), ("witness/oslo", b"x"))
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    with pytest.raises(LedgerError, match="more than 1 files"), opened(path):
        pass
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", 100)
    with pytest.raises(LedgerError, match="100 bytes"), opened(path):
        pass


@given(st.binary(max_size=2000))
def test_any_bytes_are_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "a.tar"
    path.write_bytes(data)
    with pytest.raises(LedgerError), opened(path):
        pass


def test_a_cut_archive_is_refused(two_plans_ledger: Path, tmp_path: Path) -> None:
    write_archive(two_plans_ledger, tmp_path / "a.tar")
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(LedgerError), opened(tmp_path / "cut.tar"):
        pass


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("checkpoint", 2 * 2**20),
        ("witness/oslo", 2 * 2**20),
        ("tile/0/000", 8192),
        ("tile/entries/000", 256 * 65_537),
    ],
)
def test_a_file_larger_than_its_kind_can_be_is_not_read(tmp_path: Path, name: str, most: int) -> None:
    with pytest.raises(LedgerError, match="more than"), opened(archived(tmp_path / "a.tar", (name, bytes(most + 1)))):
        pass
