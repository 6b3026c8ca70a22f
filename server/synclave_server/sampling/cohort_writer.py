"""A cohort on its way to disk: finished row groups that survive a crash, then the whole.

::

    OUT.unfinished/
      request.json          what is being made; another request is refused
      parts/0000017.rows    a finished row group: rows as RowForm stores them, no header; whole or absent
      OUT                   the cohort so far, written anew by every run from the parts
    OUT                     the finished cohort
    OUT.provenance.json     where it comes from

Parts hold what was expensive: drawing. They do not know the format. Whoever works on a cohort holds a lock on its
folder, which ends with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.run_folder import write_atomically
from synclave_server.sampling.cohort_formats import CohortFormat
from synclave_server.sampling.rows import RowForm
from synclave_shared.canonical import canonical_bytes
from synclave_shared.errors import ConfigurationError

__all__ = [
    "ROW_GROUP_PATIENTS",
    "PartStore",
    "RowGroups",
    "UnfinishedCohort",
    "digest_of",
    "unfinished_folder",
]

ROW_GROUP_PATIENTS: Final = 16_384
"""Most patients per finished unit of work and per row group: bounds memory and lost work, and is part of the bytes."""

ROW_GROUP_CELLS: Final = 2**27
"""Most values of a row group: of more than 8,192 columns it has fewer patients."""

ROW_GROUP_STEP: Final = 256
"""Patients by which a row group is a smaller one: whole tiles of the generator."""

_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroups:
    """A cohort cut into row groups.

    Attributes:
        patients: how many in all.
        size: patients of every group but the last.
    """

    patients: int
    size: int

    @classmethod
    def of(cls, patients: int, width: int, most: int = ROW_GROUP_PATIENTS) -> RowGroups:
        """The row groups of a cohort of ``width`` columns, of ``most`` patients each if those are not too wide."""
        fitting = ROW_GROUP_CELLS // width // ROW_GROUP_STEP * ROW_GROUP_STEP
        return cls(patients=patients, size=min(most, max(ROW_GROUP_STEP, fitting)))

    def __len__(self) -> int:
        return -(-self.patients // self.size)

    def count(self, group: int) -> int:
        """How many patients a group has."""
        return min(self.size, self.patients - group * self.size)

    def numbers(self, group: int) -> NDArray[np.int64]:
        """The numbers of a group's patients."""
        return np.arange(self.count(group)) + group * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStore:
    """The finished row groups on disk.

    Attributes:
        folder: where.
        form: of a patient's row.
        groups: what a part holds.
    """

    folder: Path
    form: RowForm
    groups: RowGroups

    def finished(self) -> list[int]:
        """Groups whose part is there, whole, ascending."""
        return [group for group in range(len(self.groups)) if self._whole(group)]

    def write(self, group: int, packed: NDArray[np.uint8]) -> None:
        """Store the rows of a group, as the form packs them, durably."""
        path = self._path(group)
        # A worker that outlives a killed run may write the same part at the same time as its successor.
        own = path.with_name(f"{path.name}.{os.getpid()}")
        write_atomically(own, packed.tobytes())
        own.replace(path)

    def read(self, group: int) -> NDArray[np.uint8]:
        """The rows [n, W] of a finished group."""
        return self.form.unpack(np.fromfile(self._path(group), np.uint8).reshape(-1, self.form.stored_bytes))

    def _path(self, group: int) -> Path:
        return self.folder / f"{group:07d}.rows"

    def _whole(self, group: int) -> bool:
        try:
            return self._path(group).stat().st_size == self.groups.count(group) * self.form.stored_bytes
        except FileNotFoundError:
            return False


def unfinished_folder(out: Path) -> Path:
    """Where the finished parts of an interrupted cohort are kept."""
    return out.with_name(out.name + ".unfinished")


class UnfinishedCohort:
    """Exclusive access to ``OUT.unfinished``; use :meth:`open`.

    Attributes:
        parts: the finished row groups.
    """

    def __init__(self, out: Path, parts: PartStore) -> None:
        self._out = out
        self.parts = parts

    @classmethod
    @contextmanager
    def open(
        cls, out: Path, cohort_format: CohortFormat, identity: Mapping[str, Any], *, form: RowForm, groups: RowGroups
    ) -> Iterator[UnfinishedCohort]:
        """Begin a cohort, or go on with an interrupted one of the same identity.

        The folder stays if the block fails and at least one part is finished.

        Args:
            out: where the finished cohort will be.
            cohort_format: of the finished cohort.
            identity: everything that the bytes depend on.
            form: of a patient's row.
            groups: the parts.

        Raises:
            ConfigurationError: if ``out`` cannot be written, another process is at it, or another request was begun.
        """
        _require_name(out, cohort_format)
        folder = unfinished_folder(out)
        store = PartStore(folder=folder / "parts", form=form, groups=groups)
        with _errors_explained(out), _locked(folder, out):
            _require_same(folder, out, identity)
            store.folder.mkdir(exist_ok=True)
            try:
                yield cls(out, store)
            finally:
                if folder.exists() and not store.finished():
                    _remove(folder)

    @property
    def joined(self) -> Path:
        """Where the cohort so far is written."""
        return unfinished_folder(self._out) / self._out.name

    def publish(self, provenance: bytes) -> None:
        """Put the joined cohort and ``OUT.provenance.json`` in their place and remove the folder."""
        self.joined.replace(self._out)
        write_atomically(self._out.with_name(self._out.name + ".provenance.json"), provenance)
        _make_durable(self._out.parent)
        _remove(unfinished_folder(self._out))

    def discard_joined(self) -> None:
        """Remove what an interrupted run had joined: files of that kind cannot be continued."""
        if self.joined.is_dir():
            shutil.rmtree(self.joined)
        self.joined.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the canonical JSON of its files' names and digests. Makes both durable."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = {file.relative_to(path).as_posix(): digest_of(file) for file in files}
        return hashlib.sha256(canonical_bytes(dict(names))).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _require_name(out: Path, cohort_format: CohortFormat) -> None:
    if cohort_format.suffix is not None and (out.suffix != cohort_format.suffix or out.is_dir()):
        raise ConfigurationError(
            expected=f"a file ending in {cohort_format.suffix}",
            found=f"{out.name}{', a folder' if out.is_dir() else ''}",
            remedy="Give the output another name.",
        )
    if cohort_format.suffix is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(
            expected="a new or empty folder for the cohort", found=str(out), remedy="Choose another --out."
        )


def _require_same(folder: Path, out: Path, identity: Mapping[str, Any]) -> None:
    wanted = canonical_bytes(dict(identity))
    noted = folder / "request.json"
    if not noted.exists():
        write_atomically(noted, wanted)
        _make_durable(folder)
        _make_durable(folder.parent)
    begun = noted.read_bytes()
    if begun == wanted:
        return
    there, asked = _leaves(json.loads(begun)), _leaves(json.loads(wanted))
    different = [
        f"{name} {there.get(name, 'nothing')}, now {asked.get(name, 'nothing')}"
        for name in sorted(there | asked)
        if there.get(name) != asked.get(name)
    ]
    raise ConfigurationError(
        expected=f"the request that was begun for {out.name}, or a new output",
        found=f"another one: {'; '.join(different)}",
        remedy=f"Repeat the old request to go on with it, remove {folder} to give it up, or choose another --out.",
    )


def _leaves(value: Any, name: str = "") -> dict[str, str]:
    """Nested objects as one level: ``{"request": {"seed": "1"}}`` -> ``{"request.seed": "1"}``."""
    if not isinstance(value, dict):
        return {name: str(value)}
    return {
        path: leaf
        for key, item in value.items()
        for path, leaf in _leaves(item, f"{name}.{key}" if name else key).items()
    }


@contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    """Hold the lock on a folder, made if need be."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError(
                expected=f"{out.name} to be written by one process at a time",
                found="another one that is at work on it",
                remedy="Wait for it, stop it, or choose another --out.",
            ) from None
        # The one before us may have finished, and removed the folder, between our two calls.
        if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _errors_explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            expected=f"to write {out}", found=error.strerror or str(error), remedy="Check the folder and the disk."
        ) from None


def _remove(folder: Path) -> None:
    """Remove the folder, also while a worker that outlived a killed run still puts a part into it."""
    nameless = folder.with_name(f".{folder.name}.{os.getpid()}")
    folder.rename(nameless)
    shutil.rmtree(nameless)


def _make_durable(folder: Path) -> None:
    """Make names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
