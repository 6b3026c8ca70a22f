"""The key by which Flower knows a site's gateway: EC P-384, made at the site, its public half registered by name.

It opens the door of the network and nothing else. What a site *says* is signed with another key, which the gateway
does not have (:mod:`synclave_shared.ledger.keys`).
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from synclave_shared.errors import ConfigurationError

__all__ = ["node_key", "registered_form"]


def node_key(path: Path) -> str:
    """The public half, in OpenSSH form, of the node key at ``path``; the key is made (mode 0600) if there is none.

    The public half is also written beside it, with the suffix ``.pub``: that file is what the coordinator gets.

    Raises:
        ConfigurationError: if there is a file that holds no such key.
    """
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    try:
        private = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, type(error).__name__) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise _no_key(path, "another kind of key")
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    public_file = path.with_suffix(".pub")
    if not public_file.exists() or public_file.read_text(encoding="utf-8") != public + "\n":
        public_file.write_text(public + "\n", encoding="ascii")
    return public


def registered_form(public_key: str) -> bytes:
    """The bytes by which Flower registers a node key that is given in OpenSSH form.

    Raises:
        ConfigurationError: if it is not an EC P-384 public key.
    """
    try:
        key = load_ssh_public_key(public_key.encode("utf-8"))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigurationError(
            expected="a node key as the site's gateway printed it (ecdsa-sha2-nistp384 ...)",
            found=f"{public_key[:24]!r}",
            remedy="Ask the site for the public half of its node key.",
        )
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _no_key(path: Path, found: str) -> ConfigurationError:
    return ConfigurationError(
        expected=f"an EC P-384 private key in OpenSSH form at {path}",
        found=found,
        remedy="Move the file away; a new key is made at the next start and has to be registered again.",
    )
