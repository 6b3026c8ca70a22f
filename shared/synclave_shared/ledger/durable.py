"""Changing many files so that a crash leaves the old state or the new one, and waiting for the disk only twice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

__all__ = ["TEMPORARY_SUFFIX", "commit"]

TEMPORARY_SUFFIX: Final = ".new"

MAX_WRITERS: Final = 16
"""Threads that wait for the disk at the same time; more make nothing faster."""


def commit(new: Mapping[Path, bytes], replaced: Mapping[Path, bytes]) -> None:
    """Make files durable so that, after a crash, who reads those in ``replaced`` finds what they need among ``new``.

    Args:
        new: contents of files that nothing refers to yet, so that half of one does no harm.
        replaced: contents of files that are read at any time: after a crash each is the old one or the new one.
    """
    contents = {**new, **replaced}
    temporary = {path: path.with_name(path.name + TEMPORARY_SUFFIX) for path in replaced}
    waiting = {*new, *temporary.values(), *(path.parent for path in new)}
    for path, data in contents.items():
        waiting |= _make_folder(path.parent)
        _write(temporary.get(path, path), data)
    _flush(waiting)
    for path in replaced:
        _move(temporary[path], path)
    _flush({path.parent for path in replaced})


def _make_folder(path: Path) -> set[Path]:
    """Make a folder if there is none. Returns the folders in which a new one is listed."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return {folder.parent for folder in missing}


def _flush(paths: Iterable[Path]) -> None:
    """Wait until files and folders are on disk: for all at once, in about the time of one."""
    waiting = list(paths)
    if len(waiting) < 2:
        for path in waiting:
            _flush_one(path)
        return
    with ThreadPoolExecutor(min(len(waiting), MAX_WRITERS)) as pool:
        list(pool.map(_flush_one, waiting))


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(temporary: Path, path: Path) -> None:
    temporary.replace(path)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
