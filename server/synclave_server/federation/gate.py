"""What of the SuperLink may be reached from where.

Flower's SuperLink is one application on one port: the fleet API for the sites, and beside it control and runtime APIs
that in the open build ask nobody for credentials. Whoever reaches those can register nodes and start code. So the
application itself listens on loopback only, with control behind a secret, and the public TLS port shows the sites'
part alone.

The gate also spares both sides their waiting. A SuperNode sleeps 3 s when there is no message for it; whoever pulls an
object before it was pushed sleeps 1 s, then 2, then 4. The gate holds such a question until there is news from the
other side, so that a message is on its way at once and nobody asks in vain.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse

__all__ = ["CONTROL_SECRET_HEADER", "MAX_CONNECTIONS", "Doorbell", "loopback_gate", "public_gate"]

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL_SECRET_HEADER: Final = "x-synclave-secret"  # noqa: S105 - the name of a header

MAX_OBJECT_BYTES: Final = 8 * 2**20
"""Limit of a body that carries an object: Flower's chunks of arrays are 5 MiB, our headers at most 4 MiB."""

MAX_BODY_BYTES: Final = 2**20
"""Limit of any other body from a site: identifiers and signatures, with a message those of its chunks as well."""

MAX_CONNECTIONS: Final = 512
"""How many connections the public port serves at a time. Bodies are read before Flower asks who sends them, so that
this times :data:`MAX_OBJECT_BYTES`, 4 GiB, is what strangers can make us hold. A site has about ten; who is beyond the
limit gets 503, upon which a SuperNode asks again."""

BODY_TIMEOUT_S: Final = 120.0
"""How long a body may take to arrive: eight chunks at a time over a line of 3 Mbit/s."""

HOLD_S: Final = 12.0
"""How long a question for messages is held. Flower's clients give up a request after 30 s."""

COALESCE_S: Final = 0.02
"""Pause between news and asking again: what arrives together is noticed together."""

_FLEET: Final = re.compile(r"/v1/fleet/[a-z-]+")
_OBJECT: Final = "/v1/fleet/push-object"
_PUSH: Final = re.compile(r"/v1/(fleet|runtime)/push-(messages|object)")


def _no_messages(answer: bytes) -> bool:
    return not PullMessagesResponse.FromString(answer).messages_list


def _no_replies(answer: bytes) -> bool:
    return not PullAppMessagesResponse.FromString(answer).messages_list


def _no_object(answer: bytes) -> bool:
    found = PullObjectResponse.FromString(answer)
    return found.object_found and not found.object_available


_HELD: Final[dict[str, Callable[[bytes], bool]]] = {
    "/v1/fleet/pull-messages": _no_messages,
    "/v1/fleet/pull-object": _no_object,
    "/v1/runtime/pull-messages": _no_replies,
    "/v1/runtime/pull-object": _no_object,
}
"""Questions that are held while their answer is that there is nothing yet."""


class Doorbell:
    """Wakes everyone who waits for news from the other side."""

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


async def _read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None if it is larger than ``limit`` bytes or the peer is gone."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        body += event.get("body", b"")
        if len(body) > limit:
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


def _in_vain(path: str, events: list[Event]) -> bool:
    if not events or events[0].get("status") != 200:
        return False
    return _HELD[path](b"".join(event.get("body", b"") for event in events[1:]))


async def _hold(app: App, scope: Scope, body: bytes, receive: Receive, send: Send, bell: Doorbell) -> None:
    """Answer a question, if need be after a while; not at all if whoever asked has left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HOLD_S
    gone = asyncio.ensure_future(receive())
    try:
        while True:
            ring = bell.next_ring()
            events = await _ask(app, scope, body)
            left_s = deadline - loop.time()
            if left_s <= 0 or bell.closed or not _in_vain(scope["path"], events):
                break
            waiting = asyncio.ensure_future(ring.wait())
            await asyncio.wait({gone, waiting}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if gone.done():
                return  # a message pulled now would be lost
            await asyncio.sleep(COALESCE_S)
    finally:
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
    for event in events:
        await send(event)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then whatever comes after it."""
    first = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Event:
        return next(first, None) or await receive()

    return again


async def _pass(
    app: App, scope: Scope, receive: Receive, send: Send, *, limit: int, hears: Doorbell, rings: Doorbell
) -> None:
    """Let a request through; hold it if its answer has to wait, and tell the other side if it brings something."""
    try:
        body = await asyncio.wait_for(_read_body(receive, limit), BODY_TIMEOUT_S)
    except TimeoutError:
        await _refuse(send, 503)  # not 408: Flower gives up on that, and lines do stall
        return
    if body is None:
        await _refuse(send, 413)
    elif scope["path"] in _HELD:
        await _hold(app, scope, body, receive, send, hears)
    else:
        await app(scope, _replayed(body, receive), send)
        if _PUSH.fullmatch(scope["path"]):
            rings.ring()


def public_gate(app: App, *, to_sites: Doorbell, to_coordinator: Doorbell) -> App:
    """Let the sites' requests through to ``app``, and nothing else; limit their bodies."""

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path != "/health" and not (_FLEET.fullmatch(path) and scope["method"] == "POST"):
            await _refuse(send, 404)
        else:
            limit = MAX_OBJECT_BYTES if path == _OBJECT else MAX_BODY_BYTES
            await _pass(app, scope, receive, send, limit=limit, hears=to_sites, rings=to_coordinator)

    return gate


def loopback_gate(app: App, secret: str, *, to_sites: Doorbell, to_coordinator: Doorbell) -> App:
    """Everything for processes beside us, but only with ``secret`` unless it is the runtime API, which has its own."""
    expected = secret.encode("ascii")

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if not scope["path"].startswith("/v1/runtime/") and scope["path"] != "/health":
            given = dict(scope["headers"]).get(CONTROL_SECRET_HEADER.encode("ascii"), b"")
            if not hmac.compare_digest(given, expected):
                await _refuse(send, 401)
                return
        await _pass(app, scope, receive, send, limit=MAX_OBJECT_BYTES, hears=to_coordinator, rings=to_sites)

    return gate
