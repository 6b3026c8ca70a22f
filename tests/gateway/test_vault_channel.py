"""The channel between gateway and vault: what goes in comes out, within bounds, and no text of an exception does."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_client import vault_channel
from synclave_client.vault_channel import CHUNK_BYTES, VaultClient, join_frames, serve, split_frames
from synclave_shared.errors import DataError, FederationError, ProtocolError
from synclave_shared.protocol import MAX_HEADER_BYTES, Envelope, failed


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="syn"))
    yield made
    shutil.rmtree(made)


@given(st.binary(max_size=200), st.binary(max_size=300), st.integers(1, 64))
def test_frames_come_together_again(header: bytes, payload: bytes, chunk: int) -> None:
    envelope = Envelope(header, payload)
    assert join_frames(split_frames(envelope)) == envelope
    # However the other side cuts the payload.
    pieces = [payload[start : start + chunk] for start in range(0, len(payload), chunk)]
    assert join_frames([b"\x01" + header, *pieces]) == envelope


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_arbitrary_frames_are_an_envelope_or_a_protocol_error(frames: list[bytes]) -> None:
    if frames and frames[0].startswith(b"\x01"):
        assert join_frames(frames).header == frames[0][1:]
    else:
        with pytest.raises(ProtocolError):
            join_frames(frames)


def test_bounds_hold_before_memory_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProtocolError, match="header"):
        join_frames([b"\x01" + bytes(MAX_HEADER_BYTES + 1)])
    with pytest.raises(ProtocolError, match="chunk"):
        join_frames([b"\x01", bytes(CHUNK_BYTES + 1)])
    monkeypatch.setattr(vault_channel, "MAX_PAYLOAD_BYTES", 3 * CHUNK_BYTES)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield b"\x01"
        while True:
            taken += 1
            yield bytes(CHUNK_BYTES)

    with pytest.raises(ProtocolError, match="in all"):
        join_frames(endless())
    assert taken == 4


def test_large_payloads_and_concurrent_calls(folder: Path) -> None:
    server = serve(lambda request: Envelope(request.header, request.payload[::-1]), folder / "v.sock")
    try:
        payload = os.urandom(5 * CHUNK_BYTES + 17)
        with VaultClient(folder / "v.sock") as client:
            client.wait_ready(1)
            answers: list[Envelope] = []
            threads = [
                threading.Thread(target=lambda n=n: answers.append(client.exchange(Envelope(b"%d" % n, payload), 20)))
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(answer.header for answer in answers) == [b"0", b"1", b"2", b"3"]
        assert all(answer.payload == payload[::-1] for answer in answers)
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("SECRET"), "internal"),
        (DataError(expected="SECRET", found="SECRET", remedy="SECRET"), "data"),
        (KeyError("SECRET"), "internal"),
    ],
)
def test_the_text_of_an_exception_stays_in_the_vaults_log(
    folder: Path, caplog: pytest.LogCaptureFixture, error: Exception, code: str
) -> None:
    def handler(_request: Envelope) -> Envelope:
        raise error

    server = serve(handler, folder / "v.sock")
    try:
        with caplog.at_level(logging.ERROR), VaultClient(folder / "v.sock") as client:
            assert client.exchange(Envelope(b"hello"), 5) == failed(code)
        assert "SECRET" in caplog.text
        # Nor in what gRPC itself says about a call that a foreign client made wrong.
        with grpc.insecure_channel(f"unix:{folder / 'v.sock'}") as channel:
            call = channel.stream_stream("/synclave.Vault/Exchange")(iter([b"\x09nonsense"]))
            assert join_frames(call) == failed("protocol")
            assert "SECRET" not in (call.details() or "")
            with pytest.raises(grpc.RpcError):
                list(channel.stream_stream("/synclave.Vault/Other")(iter([b"\x01"])))
    finally:
        server.stop(0).wait()


def test_nobody_else_may_knock(folder: Path) -> None:
    made = folder / "new" / "v.sock"
    server = serve(lambda request: request, made)
    try:
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    finally:
        server.stop(0).wait()
    shared = folder / "shared"
    shared.mkdir()
    for folder_mode, for_group, expected in ((0o755, False, 0o600), (0o750, False, 0o600), (0o750, True, 0o660)):
        shared.chmod(folder_mode)
        server = serve(lambda request: request, shared / "v.sock", for_group=for_group)
        try:
            assert stat.S_IMODE((shared / "v.sock").stat().st_mode) == expected
        finally:
            server.stop(0).wait()


def test_a_second_vault_is_refused_and_the_first_goes_on(folder: Path) -> None:
    server = serve(lambda _request: Envelope(b"first"), folder / "v.sock")
    try:
        with pytest.raises(FederationError, match="running"):
            serve(lambda _request: Envelope(b"second"), folder / "v.sock")
        with VaultClient(folder / "v.sock") as client:
            assert client.exchange(Envelope(b"?"), 5).header == b"first"
    finally:
        server.stop(0).wait()


def test_the_socket_of_a_killed_vault_is_taken_over(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "v.sock"))
    server = serve(lambda _request: Envelope(b"new"), folder / "v.sock")
    try:
        with VaultClient(folder / "v.sock") as client:
            assert client.exchange(Envelope(b"?"), 5).header == b"new"
    finally:
        server.stop(0).wait()


def test_a_file_in_the_way_is_left_alone(folder: Path) -> None:
    (folder / "v.sock").write_text("precious")
    with pytest.raises(FederationError, match="a file at"):
        serve(lambda request: request, folder / "v.sock")
    assert (folder / "v.sock").read_text() == "precious"


def test_a_path_that_is_too_long_is_explained(folder: Path) -> None:
    with pytest.raises(FederationError, match="shorter name"):
        serve(lambda request: request, folder / ("x" * 120) / "v.sock")
    with pytest.raises(FederationError, match="shorter name"):
        VaultClient(folder / ("x" * 120) / "v.sock")


def test_no_vault_and_a_slow_vault_are_errors_within_the_time_given(folder: Path) -> None:
    with VaultClient(folder / "v.sock") as client:
        with pytest.raises(FederationError, match="listening"):
            client.wait_ready(0.2)
        with pytest.raises(FederationError, match="UNAVAILABLE"):
            client.exchange(Envelope(b"?"), 2)
    release = threading.Event()

    def slow(request: Envelope) -> Envelope:
        release.wait(10)
        return request

    server = serve(slow, folder / "v.sock")
    try:
        with VaultClient(folder / "v.sock") as client, pytest.raises(FederationError, match="DEADLINE"):
            client.exchange(Envelope(b"?"), 0.3)
    finally:
        release.set()
        server.stop(0).wait()
