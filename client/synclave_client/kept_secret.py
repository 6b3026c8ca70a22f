"""Secrets that a site makes once and keeps in its state folder."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from synclave_shared.errors import ConfigurationError

__all__ = ["SECRET_BYTES", "kept_secret"]

SECRET_BYTES: Final = 32


def kept_secret(path: Path) -> bytes:
    """The secret in a file, [32] bytes; made at the first call, so that only its owner can read it.

    Raises:
        ConfigurationError: if it can be neither read nor made, or holds something else.
    """
    try:
        if not path.exists():
            # Whole before it has its name: a call that is broken off leaves no half a secret.
            part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # another call was faster: its secret counts
            finally:
                part.unlink()
            _flush_folder(path.parent)
        secret = path.read_bytes()
    except OSError as error:
        raise _unusable(f"{path}: {error.strerror}") from None
    if len(secret) != SECRET_BYTES:
        raise _unusable(f"{path}: {len(secret)} bytes")
    return secret


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(found: str) -> ConfigurationError:
    return ConfigurationError(
        expected=f"a secret of {SECRET_BYTES} bytes in the site's state folder, or a folder to make it in",
        found=found,
        remedy="Run as the user who owns the state folder, or put the file back from a backup.",
    )
