"""Certificates that TLS accepts for their host and for no other, kept from start to start."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from synclave_server.federation import certificates
from synclave_server.federation.certificates import Certificates, certificates_for


def handshake(paths: Certificates, name: str) -> None:
    """A TLS handshake with a client that trusts the authority and expects ``name``."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(paths.certificate, paths.private_key)
    client = ssl.create_default_context(cafile=str(paths.authority))
    left, right = socket.socketpair()

    def serve() -> None:
        with left:
            try:
                server.wrap_socket(left, server_side=True).close()
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with right:
            client.wrap_socket(right, server_hostname=name).close()
    finally:
        thread.join()


@pytest.mark.parametrize("host", ["coordinator.example.org", "192.0.2.7", "::1"])
def test_a_client_that_trusts_the_authority_accepts_that_host_alone(tmp_path: Path, host: str) -> None:
    paths = certificates_for(tmp_path / "tls", host)
    handshake(paths, host)
    handshake(paths, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(paths, "another.example.org")
    other = certificates_for(tmp_path / "other", host).authority
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(replace(paths, authority=other), host)
    assert stat.S_IMODE(paths.private_key.stat().st_mode) == 0o600


def test_they_are_kept_until_they_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = certificates_for(tmp_path, "a.example.org").authority.read_bytes()
    assert certificates_for(tmp_path, "a.example.org").authority.read_bytes() == first
    second = certificates_for(tmp_path, "b.example.org").authority.read_bytes()
    assert second != first
    monkeypatch.setattr(certificates, "RENEWAL", datetime.timedelta(days=400))
    assert certificates_for(tmp_path, "b.example.org").authority.read_bytes() != second
    monkeypatch.undo()
    (tmp_path / "server.pem").write_text("nonsense")
    handshake(certificates_for(tmp_path, "b.example.org"), "b.example.org")
