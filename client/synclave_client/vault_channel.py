"""The narrow way into the vault: one gRPC method over a Unix socket, envelopes in, envelopes out.

The gateway calls :class:`VaultClient`; the vault calls :func:`serve`. Service ``synclave.Vault``, method ``Exchange``,
both directions a stream of byte frames: the first is one version byte and the header, each following one up to
:data:`CHUNK_BYTES` of payload. There is no generated code, and nothing but envelopes can be said. What goes wrong in a
handler is logged where it happened and answered with a closed code: gRPC's own error details stay empty.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from synclave_client.socket_path import MAX_SOCKET_PATH_BYTES
from synclave_shared.errors import FederationError, ProtocolError, SynclaveError
from synclave_shared.protocol import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Envelope, failed

__all__ = ["CHUNK_BYTES", "VaultClient", "join_frames", "serve", "split_frames"]

CHUNK_BYTES: Final = 2**20
"""Payload bytes of a frame: small beside gRPC's buffers, large beside its cost per frame."""

_VERSION: Final = b"\x01"
_SERVICE: Final = "synclave.Vault"
_METHOD: Final = "Exchange"
_CONCURRENT_CALLS: Final = 8
"""Calls the vault holds at once; the gateway makes one per message, and the rest is refused, not queued."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_HEADER_BYTES + 64),
    ("grpc.max_send_message_length", MAX_HEADER_BYTES + 64),
    ("grpc.enable_http_proxy", 0),
    ("grpc.so_reuseport", 0),
)

_log = logging.getLogger("synclave.vault_channel")


def split_frames(envelope: Envelope) -> Iterator[bytes]:
    """The frames of ``envelope``: version byte and header, then the payload in chunks."""
    yield _VERSION + envelope.header
    for start in range(0, len(envelope.payload), CHUNK_BYTES):
        yield envelope.payload[start : start + CHUNK_BYTES]


def join_frames(frames: Iterable[bytes]) -> Envelope:
    """Read an envelope back from its frames.

    Raises:
        ProtocolError: if there is no frame, the version is unknown, or header or payload exceed their bounds.
    """
    iterator = iter(frames)
    first = next(iterator, b"")
    if not first.startswith(_VERSION) or len(first) > MAX_HEADER_BYTES + 1:
        raise ProtocolError(
            expected=f"a first frame of version {_VERSION[0]} and at most {MAX_HEADER_BYTES} header bytes",
            found=f"{len(first)} bytes beginning with {first[:1].hex() or 'nothing'}",
            remedy="Install the same version of Synclave in the gateway and in the vault.",
        )
    payload = bytearray()
    for chunk in iterator:
        if len(chunk) > CHUNK_BYTES or len(payload) + len(chunk) > MAX_PAYLOAD_BYTES:
            raise ProtocolError(
                expected=f"chunks of at most {CHUNK_BYTES} bytes, {MAX_PAYLOAD_BYTES} in all",
                found=f"a chunk of {len(chunk)} bytes after {len(payload)}",
                remedy="The message was dropped.",
            )
        payload += chunk
    return Envelope(header=first[1:], payload=bytes(payload))


def _target(socket_path: Path) -> str:
    """The gRPC address of a socket; relative paths are resolved, since gateway and vault may run in other folders."""
    path = socket_path.resolve()
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise FederationError(
            expected=f"a socket path of at most {MAX_SOCKET_PATH_BYTES} bytes",
            found=f"{len(os.fsencode(path))} bytes: {path}",
            remedy="Put the socket into a folder with a shorter name.",
        )
    return f"unix:{path}"


def _claim(socket_path: Path) -> None:
    """Prepare folder and path of the socket. A folder that is there stays as it is; one that we make is private."""
    folder = socket_path.resolve().parent
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(socket_path).st_mode):
            raise FederationError(
                expected="a free path for the vault's socket",
                found=f"a file at {socket_path}",
                remedy="Remove it, or name another socket in site.toml.",
            )
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(socket_path.resolve()))
            except OSError:
                socket_path.unlink()  # left over by a vault that was killed
            else:
                raise FederationError(
                    expected="no other vault on this socket",
                    found=f"a running one at {socket_path}",
                    remedy="Stop it first (synclave-site allows one vault per site).",
                )


def serve(handler: Callable[[Envelope], Envelope], socket_path: Path, *, for_group: bool = False) -> Any:
    """Answer envelopes on a Unix socket with ``handler``; returns the started ``grpc.Server``.

    Calls may arrive concurrently: the handler does its own locking. Whatever it raises is logged here and answered
    with ``failed(code)``, where the code is a constant of the error's class.

    Args:
        handler: answers one envelope.
        socket_path: where to listen.
        for_group: let the group of the socket's folder connect as well (mode 0660). Else the owner alone may (0600),
            also in an ordinary folder that others may pass through.

    Raises:
        FederationError: if the path is too long, taken by another vault, or not a socket.
    """
    target = _target(socket_path)
    _claim(socket_path)

    def exchange(frames: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        try:
            reply = handler(join_frames(frames))
        except SynclaveError as error:
            _log.exception("the vault could not answer")
            reply = failed(error.code)
        except Exception:  # noqa: BLE001 - its text must not leave the site, whatever it is
            _log.exception("the vault could not answer")
            reply = failed("internal")
        yield from split_frames(reply)

    # No serialisers: requests and replies are bytes as they are.
    method = grpc.stream_stream_rpc_method_handler(exchange)
    server = grpc.server(
        ThreadPoolExecutor(_CONCURRENT_CALLS, thread_name_prefix="vault"),
        options=_OPTIONS,
        maximum_concurrent_rpcs=_CONCURRENT_CALLS,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: method}),))
    server.add_insecure_port(target)
    socket_path.chmod(0o660 if for_group else 0o600)
    server.start()
    return server


class VaultClient:
    """The gateway's side of the channel: one connection to one vault; use it as a context manager.

    Args:
        socket_path: the vault's socket.

    Raises:
        FederationError: if the path is too long for a socket.
    """

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._channel = grpc.insecure_channel(_target(socket_path), options=_OPTIONS)
        self._exchange = self._channel.stream_stream(f"/{_SERVICE}/{_METHOD}")

    def __enter__(self) -> VaultClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def exchange(self, request: Envelope, timeout_s: float) -> Envelope:
        """Send a request and wait for its reply, at most ``timeout_s`` seconds.

        Raises:
            FederationError: if the vault cannot be reached or does not answer in time.
            ProtocolError: if its answer is malformed.
        """
        try:
            return join_frames(self._exchange(split_frames(request), timeout=timeout_s))
        except grpc.RpcError as error:
            raise FederationError(
                expected=f"an answer of the vault within {timeout_s:g} s",
                found=str(error.code()),
                remedy=f"Check that the vault runs and listens on {self._socket_path}; its log says more.",
            ) from None

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the vault accepts connections.

        Raises:
            FederationError: if it does not within ``timeout_s`` seconds.
        """
        # A plain connect: gRPC's own readiness future backs off up to seconds while the socket does not exist yet.
        deadline = time.monotonic() + timeout_s
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                try:
                    probe.connect(os.fspath(self._socket_path.resolve()))
                except OSError:
                    pass
                else:
                    return
            if time.monotonic() >= deadline:
                raise FederationError(
                    expected=f"a vault listening on {self._socket_path} within {timeout_s:g} s",
                    found="none",
                    remedy="Start it with `synclave-site vault`; its log says what went wrong.",
                )
            time.sleep(0.05)
