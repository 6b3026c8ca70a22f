"""A ledger in one file: a plain tar archive with one form, and reading such a file as if it were a folder.

The archive is not compressed, so what it holds is never larger than the file itself; it is written in one order without
times or owners, so two copies of one ledger give the same bytes, whose SHA-256 can be told over the phone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import MAX_NOTE_BYTES
from synclave_shared.ledger.files import MAX_BUNDLE_BYTES, MAX_TILE_BYTES
from synclave_shared.ledger.tiles import CHECKPOINT_PATH

__all__ = ["MAX_ARCHIVE_BYTES", "opened", "write_archive"]

MAX_ARCHIVE_BYTES: Final = 4 * 2**30
"""Ten million entries are about this much."""

MAX_MEMBERS: Final = 200_000
"""Two files for every 256 entries, and one for each site: ten million entries have 80,000."""

_MEMBER: Final = re.compile(
    re.escape(CHECKPOINT_PATH)
    + r"|tile/(entries|[0-9])(/x[0-9]{3}){0,5}/[0-9]{3}(\.p/[0-9]{1,3})?|witness/[!-.0-~]{1,200}"
)
"""The only names of files that a ledger has (docs/ledger-format.md); nothing else is ever written anywhere.

No index has more than 18 digits, no site's name more than 200 characters."""


def write_archive(folder: Path, target: Path) -> str:
    """Write the files of a ledger folder into one file.

    Args:
        folder: the ledger. What is no part of a ledger by its name, is left out.
        target: the new file; must not exist.

    Returns:
        SHA-256 of the file, hex; the same for the same ledger, wherever it is written.

    Raises:
        LedgerError: if the folder has no checkpoint, or ``target`` exists.
    """
    if not (folder / CHECKPOINT_PATH).is_file():
        found = f"no {CHECKPOINT_PATH} in {folder}"
        raise LedgerError(expected="a ledger folder", found=found, remedy="Check the path.")
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and _is_member(path.relative_to(folder).as_posix())
    )
    try:
        with target.open("xb") as new, tarfile.open(fileobj=new, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name in names:
                content = (folder / name).read_bytes()
                # Name and size only: mode, owner and time stay at the constants of the class.
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    except FileExistsError:
        raise LedgerError(
            expected="a name for a new file", found=f"{target} exists", remedy="Remove it, or choose another name."
        ) from None
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A ledger as a folder, whether it is one or an archive; what an archive held is gone afterwards.

    Args:
        path: a ledger folder, or a file of :func:`write_archive`. A tar archive that somebody else made of the files of
            a ledger is read as well.

    Raises:
        LedgerError: if the file is no such archive. Nothing of it was written outside a temporary folder then.
    """
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="synclave-audit-") as temporary:
        folder = Path(temporary)
        _unpack(path, folder)
        yield folder


def _unpack(path: Path, folder: Path) -> None:
    if path.stat().st_size > MAX_ARCHIVE_BYTES:
        raise _unusable(path, f"more than {MAX_ARCHIVE_BYTES} bytes")
    names: set[str] = set()
    try:
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise _unusable(path, f"{name!r} is a link, a device or a file with holes")
                if not _is_member(name):
                    raise _unusable(path, f"{name!r}, which is the name of no file of a ledger")
                if name in names or len(names) >= MAX_MEMBERS:
                    raise _unusable(path, f"{name!r} twice, or more than {MAX_MEMBERS} files")
                if member.size > _most_bytes(name):
                    raise _unusable(path, f"{name!r} has {member.size} bytes, more than {_most_bytes(name)}")
                names.add(name)
                content = archive.extractfile(member)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read() if content else b"")
    except tarfile.TarError as error:
        raise _unusable(path, str(error)) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _unusable(path, "a name that is a file and a folder at once") from None
    if CHECKPOINT_PATH not in names:
        raise _unusable(path, f"no {CHECKPOINT_PATH}")


def _is_member(name: str) -> bool:
    return _MEMBER.fullmatch(name) is not None and name not in ("witness/.", "witness/..")


def _most_bytes(name: str) -> int:
    """What a file of this name can have at most, the same as when a folder is read."""
    if name.startswith("tile/"):
        return MAX_BUNDLE_BYTES if name.startswith("tile/entries/") else MAX_TILE_BYTES
    return MAX_NOTE_BYTES


def _unusable(path: Path, found: str) -> LedgerError:
    return LedgerError(
        expected="a ledger folder, or the file that `synclave-audit export` makes of one",
        found=f"{path}: {found}",
        remedy="Ask for the ledger again.",
    )
