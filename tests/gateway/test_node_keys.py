"""The gateway's node key: made once, private, and registered in one form only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, uses_nist_ec_curve

from synclave_shared.errors import ConfigurationError
from synclave_shared.node_keys import node_key, registered_form


def test_it_is_made_once_and_flower_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "node.key"
    public = node_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.with_suffix(".pub").read_text(encoding="ascii") == public + "\n"
    before = path.read_bytes()
    assert node_key(path) == public
    assert path.read_bytes() == before
    assert uses_nist_ec_curve(bytes_to_public_key(registered_form(public)))
    assert node_key(tmp_path / "other.key") != public


@pytest.mark.parametrize("content", [b"", b"nonsense", ed25519.Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
)])  # fmt: skip
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.key").write_bytes(content)
    with pytest.raises(ConfigurationError, match="EC P-384"):
        node_key(tmp_path / "node.key")
    assert (tmp_path / "node.key").read_bytes() == content
    assert not (tmp_path / "node.pub").exists()


@pytest.mark.parametrize(
    "public",
    [
        "",
        "nonsense",
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        .decode(),
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    ],
    ids=["empty", "nonsense", "p-256", "ed25519"],
)
def test_another_key_cannot_be_registered(public: str) -> None:
    with pytest.raises(ConfigurationError, match="node key"):
        registered_form(public)
