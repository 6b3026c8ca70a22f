"""Ed25519 keys: how a site or a coordinator signs what it does (RFC 8032).

A public key travels as 44 characters of base64, a signature as 88. A secret key is a file of one line, the base64 of
its 32-byte seed, readable by its owner alone; a space and a moment may follow, after which it signs no entry. Settings
and commands name a secret key by where it is: ``file:PATH`` (or the path alone), or ``env:NAME`` for an environment
variable with the same line. Tokens (``pkcs11:``) are not built.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from synclave_shared.errors import ConfigurationError

__all__ = [
    "SIGNATURE_BYTES",
    "TIME_FORMAT",
    "SigningKey",
    "decode_base64",
    "encode_base64",
    "verify_signature",
]

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
"""How a moment is written: UTC, whole seconds. As texts, moments are in their order."""


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, size_bytes: int | None = None) -> bytes:
    """Decode base64 and accept only the one canonical text of a value, so that no two texts mean the same bytes.

    Raises:
        ValueError: if the text is not canonical base64, or not of ``size_bytes`` bytes.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("not base64") from None
    if encode_base64(data) != text:
        raise ValueError("not the canonical base64 of its bytes")
    if size_bytes is not None and len(data) != size_bytes:
        raise ValueError(f"{len(data)} bytes instead of {size_bytes}")
    return data


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret Ed25519 key. Its repr shows the public half only.

    Attributes:
        public_text: the public key, base64.
        not_after: the last moment (:data:`TIME_FORMAT`) at which it may sign a ledger entry; empty if it has no end.
    """

    _private: Ed25519PrivateKey = field(repr=False)
    public_text: str
    not_after: str = ""

    @classmethod
    def from_seed(cls, seed: bytes, not_after: str = "") -> Self:
        """The key of a 32-byte seed (RFC 8032, section 5.1.5).

        Raises:
            ValueError: if the seed has another length, or ``not_after`` is no moment.
        """
        if not_after:
            datetime.strptime(not_after, TIME_FORMAT)
        private = Ed25519PrivateKey.from_private_bytes(seed)
        public_text = encode_base64(private.public_key().public_bytes_raw())
        return cls(_private=private, public_text=public_text, not_after=not_after)

    @classmethod
    def _from_text(cls, text: str) -> Self:
        seed, _, not_after = text.rstrip("\n").partition(" ")
        return cls.from_seed(decode_base64(seed, SEED_BYTES), not_after)

    @classmethod
    def generate(cls, path: Path, valid_days: int | None = None) -> Self:
        """Make a key from the operating system's randomness and write it to a new file that only its owner can read.

        Args:
            path: of the file.
            valid_days: for how many days from now it may sign; None: without end.

        Raises:
            ConfigurationError: if the file exists already or cannot be written. An existing key is never replaced.
        """
        seed = os.urandom(SEED_BYTES)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigurationError(
                expected="no file where a new key is to be written",
                found=f"{path}",
                remedy="Use the existing key, or move it away first.",
            ) from None
        except OSError as error:
            raise ConfigurationError(
                expected="a folder in which a key can be written",
                found=f"{path}: {error.strerror}",
                remedy="Create the folder or correct its permissions.",
            ) from None
        end = None if valid_days is None else datetime.now(UTC) + timedelta(days=valid_days)
        text = encode_base64(seed) + ("" if end is None else f" {end.strftime(TIME_FORMAT)}")
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return cls._from_text(text)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file.

        Raises:
            ConfigurationError: if it is missing, readable by others, or not a key.
        """
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigurationError(
                expected="a readable key file", found=f"{path}: {reason}", remedy="Check the path, or make a key."
            ) from None
        if mode & 0o077:
            raise ConfigurationError(
                expected="a key file that only its owner can read (mode 0600)",
                found=f"{path} with mode {mode:04o}",
                remedy=f"Run: chmod 600 {path}",
            )
        try:
            return cls._from_text(text)
        except ValueError as error:
            # The message must not repeat the file's content: it may be another secret.
            raise ConfigurationError(
                expected="the base64 of a 32-byte seed on one line",
                found=f"{path}: {error}",
                remedy="Restore the key from your backup.",
            ) from None

    @classmethod
    def named(cls, name: str) -> Self:
        """Get a key by its name: ``file:PATH``, a path alone, or ``env:NAME``.

        Raises:
            ConfigurationError: if it is missing, not a key, readable by others, or named in a way that is not built.
        """
        scheme, _, rest = name.partition(":")
        if scheme == "env":
            return cls._from_environment(rest)
        if scheme == "pkcs11":
            raise ConfigurationError(
                expected="a key named by file:PATH or env:NAME",
                found="pkcs11:, which is not built yet",
                remedy="Keep the key in a file that only its owner can read, or give it in an environment variable.",
            )
        return cls.load(Path(rest if scheme == "file" else name))

    @classmethod
    def _from_environment(cls, variable: str) -> Self:
        try:
            return cls._from_text(os.environ[variable])
        except (KeyError, ValueError) as error:
            # Never the value: it may be another secret.
            raise ConfigurationError(
                expected=f"the base64 of a 32-byte seed in the environment variable {variable}",
                found="no such variable" if isinstance(error, KeyError) else str(error),
                remedy="Set it from your secret store, or name a key file.",
            ) from None

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature over ``data``."""
        return self._private.sign(data)

    def sign_text(self, data: bytes) -> str:
        """The signature over ``data`` in base64."""
        return encode_base64(self.sign(data))


def verify_signature(public_text: str, data: bytes, signature: bytes | str) -> bool:
    """Whether ``signature`` is the key's Ed25519 signature over ``data``.

    Args:
        public_text: the public key, base64.
        data: what was signed.
        signature: its 64 bytes, or their base64.

    Returns:
        False also for a malformed key or signature: nothing here raises on what somebody else wrote.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(decode_base64(public_text, PUBLIC_KEY_BYTES))
        raw = decode_base64(signature, SIGNATURE_BYTES) if isinstance(signature, str) else signature
        key.verify(raw, data)
    except (ValueError, InvalidSignature):
        return False
    return True
