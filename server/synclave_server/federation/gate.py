"""What of the SuperLink may be reached from where.

Flower's SuperLink is one application on one port: the fleet API for the sites, and beside it control and runtime APIs
that in the open build ask nobody for credentials. Whoever reaches those can register nodes and start code. So the
application itself listens on loopback only, with control behind a secret, and the public TLS port shows the sites'
part alone.

The gate also spares the sites their waiting. A SuperNode asks for messages and sleeps 3 s when there is none; the gate
holds an unanswered question until the coordinator has something to say, so that a message is on its way at once.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

from flwr.proto.fleet_pb2 import PullMessagesResponse

__all__ = ["CONTROL_SECRET_HEADER", "MAX_BODY_BYTES", "Doorbell", "loopback_gate", "public_gate"]

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL_SECRET_HEADER: Final = "x-synclave-secret"  # noqa: S105 - the name of a header

MAX_BODY_BYTES: Final = 64 * 2**20
"""Flower sends arrays in chunks of 5 MiB; nothing legitimate comes near this."""

HOLD_S: Final = 12.0
"""How long a question for messages is held. Flower's clients give up a request after 30 s."""

_FLEET: Final = re.compile(r"/v1/fleet/[a-z-]+")
_PULL: Final = "/v1/fleet/pull-messages"
_RUNTIME_PUSH: Final = "/v1/runtime/push-messages"
_RUNTIME_PULL: Final = "/v1/runtime/pull-messages"


class Doorbell:
    """Wakes everyone who waits for the coordinator to say something."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.closed = False

    def ring(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        """Wake all, and let nobody wait any more."""
        self.closed = True
        self.ring()

    def next_ring(self) -> asyncio.Event:
        """The event of the next ring; take it *before* looking, so that no ring is missed."""
        return self._event


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None if it is larger than the limit or the peer is gone."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not event.get("more_body", False):
            return bytes(body)


async def _ask(app: App, scope: Scope, body: bytes) -> list[Event]:
    """Run the application on a request that was read before, and collect what it answers."""
    requests = iter([{"type": "http.request", "body": body, "more_body": False}])
    events: list[Event] = []

    async def receive() -> Event:
        return next(requests, {"type": "http.disconnect"})

    async def send(event: Event) -> None:
        events.append(event)

    # The application writes into its scope; each attempt gets a fresh one.
    await app({**scope, "state": dict(scope.get("state", {}))}, receive, send)
    return events


def _nothing_to_pull(events: list[Event]) -> bool:
    if events[0].get("status") != 200:
        return False
    answer = PullMessagesResponse()
    answer.ParseFromString(b"".join(event.get("body", b"") for event in events[1:]))
    return not answer.messages_list


def public_gate(app: App, doorbell: Doorbell) -> App:
    """Let the sites' requests through to ``app``, and nothing else; limit bodies; hold questions for messages."""

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if not (_FLEET.fullmatch(path) and scope["method"] == "POST") and path != "/health":
            await _refuse(send, 404)
            return
        body = await _read_body(receive)
        if body is None:
            await _refuse(send, 413)
            return
        gone = asyncio.ensure_future(receive()) if path == _PULL else None
        try:
            deadline = asyncio.get_running_loop().time() + HOLD_S
            while True:
                ring = doorbell.next_ring()
                events = await _ask(app, scope, body)
                left_s = deadline - asyncio.get_running_loop().time()
                if gone is None or left_s <= 0 or doorbell.closed or not _nothing_to_pull(events):
                    break
                waiting = asyncio.ensure_future(ring.wait())
                await asyncio.wait({gone, waiting}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if gone.done():
                    return  # whoever asked has left: a message pulled now would be lost
        finally:
            if gone is not None:
                gone.cancel()
                with suppress(asyncio.CancelledError):
                    await gone
        for event in events:
            await send(event)

    return gate


def loopback_gate(app: App, doorbell: Doorbell, secret: str) -> App:
    """Guard control with ``secret`` and ring the bell when the ServerApp has pushed messages.

    It rings when the ServerApp first asks for replies, which it does after the last object is pushed. A site that
    begins to pull earlier meets missing objects, and waits seconds before it tries again.
    """
    expected = secret.encode("ascii")
    pushed = False

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal pushed
        if scope["type"] == "http":
            if scope["path"] == _RUNTIME_PULL and pushed:
                pushed = False
                doorbell.ring()
            if not scope["path"].startswith("/v1/runtime/") and scope["path"] != "/health":
                given = dict(scope["headers"]).get(CONTROL_SECRET_HEADER.encode("ascii"), b"")
                if not hmac.compare_digest(given, expected):
                    await _refuse(send, 401)
                    return
            pushed = pushed or scope["path"] == _RUNTIME_PUSH
        await app(scope, receive, send)

    return gate
