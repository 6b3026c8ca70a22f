"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synclave_shared.errors import ConfigurationError

__all__ = ["new_folder"]


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill; it gets its name ``path`` when the block ends, and is gone if the block fails.

    What a crash left half done bears another name (``.NAME.unfinished``) and is removed by the next try.

    Raises:
        ConfigurationError: if there is something at ``path`` already.
    """
    path = path.absolute()
    if path.exists() or path.is_symlink():
        raise ConfigurationError(
            expected="a folder that does not exist yet",
            found=str(path),
            remedy="Choose another name, or move that one away: nothing is overwritten.",
        )
    unfinished = path.with_name(f".{path.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        # On disk before it has its name: a power failure must not leave a folder with empty files.
        for entry in (*unfinished.rglob("*"), unfinished):
            descriptor = os.open(entry, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
