"""The gate holds questions for messages, loses none, and lets nobody at control without the secret."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse

from synclave_server.federation import gate, superlink
from synclave_server.federation.gate import Doorbell, loopback_gate, public_gate
from synclave_shared.processes import free_port

Event = MutableMapping[str, Any]
PULL = "/v1/fleet/pull-messages"


@dataclass
class SuperLink:
    """Stands for Flower's application: hands out queued messages, and otherwise says ``answer``."""

    messages: list[Message] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answer: bytes | None = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        self.paths.append(scope["path"])
        event = await receive()
        assert event["body"] == b"who asks"
        answer = self.answer or b""
        if scope["path"].endswith("pull-messages"):
            there = [self.messages.pop()] if self.messages else []
            kind = PullMessagesResponse if "fleet" in scope["path"] else PullAppMessagesResponse
            answer = kind(messages_list=there).SerializeToString()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})


class Client:
    """One request and what comes back."""

    def __init__(self, path: str, *, headers: list[tuple[bytes, bytes]] | None = None, method: str = "POST") -> None:
        self.scope: MutableMapping[str, Any] = {
            "type": "http",
            "path": path,
            "method": method,
            "headers": headers or [],
        }
        self.events: list[Event] = []
        self.leave = asyncio.Event()
        self._asked = False

    async def receive(self) -> Event:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"who asks", "more_body": False}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        self.events.append(event)

    def ask(self, app: gate.App) -> asyncio.Task[None]:
        return asyncio.ensure_future(app(self.scope, self.receive, self.send))

    @property
    def pulled(self) -> int:
        kind = PullMessagesResponse if "fleet" in self.scope["path"] else PullAppMessagesResponse
        return len(kind.FromString(self.events[1]["body"]).messages_list)


def gates(superlink: SuperLink) -> tuple[gate.App, gate.App]:
    """The public and the loopback gate before one SuperLink."""
    bells = {"to_sites": Doorbell(), "to_coordinator": Doorbell()}
    return public_gate(superlink, **bells), loopback_gate(superlink, "secret", **bells)


def test_a_message_reaches_a_waiting_site_at_once() -> None:
    async def scenario() -> None:
        superlink = SuperLink()
        public, loopback = gates(superlink)
        site = Client(PULL)
        waiting = site.ask(public)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        superlink.messages.append(Message())
        await Client("/v1/fleet/push-object").ask(public)  # another site's news are none for sites
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await Client("/v1/runtime/push-object").ask(loopback)
        await asyncio.wait_for(waiting, 1)
        assert site.pulled == 1

    asyncio.run(scenario())


def test_a_reply_reaches_the_waiting_coordinator_at_once() -> None:
    async def scenario() -> None:
        superlink = SuperLink()
        public, loopback = gates(superlink)
        serverapp = Client("/v1/runtime/pull-messages")
        waiting = serverapp.ask(loopback)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        superlink.messages.append(Message())
        await Client("/v1/fleet/push-messages").ask(public)
        await asyncio.wait_for(waiting, 1)
        assert serverapp.pulled == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        (PullObjectResponse(object_found=True, object_available=False), True),
        (PullObjectResponse(object_found=True, object_available=True, object_content=b"x"), False),
        (PullObjectResponse(object_found=False, object_available=False), False),
    ],
)
def test_an_object_that_is_still_coming_is_waited_for(answer: PullObjectResponse, held: bool) -> None:
    async def scenario() -> None:
        superlink = SuperLink(answer=answer.SerializeToString())
        public, loopback = gates(superlink)
        site = Client("/v1/fleet/pull-object")
        waiting = site.ask(public)
        await asyncio.sleep(0.05)
        assert waiting.done() is not held
        if held:
            superlink.answer = PullObjectResponse(object_found=True, object_available=True).SerializeToString()
            await Client("/v1/runtime/push-object").ask(loopback)
            await asyncio.wait_for(waiting, 1)
            assert PullObjectResponse.FromString(site.events[1]["body"]).object_available

    asyncio.run(scenario())


def test_a_site_that_left_gets_no_message_it_would_lose() -> None:
    async def scenario() -> None:
        superlink = SuperLink()
        public, loopback = gates(superlink)
        site = Client(PULL)
        waiting = site.ask(public)
        await asyncio.sleep(0.02)
        site.leave.set()
        await asyncio.wait_for(waiting, 1)
        superlink.messages.append(Message())
        await Client("/v1/runtime/push-messages").ask(loopback)
        await asyncio.sleep(0.05)
        assert superlink.messages
        assert not site.events

    asyncio.run(scenario())


def test_a_question_is_answered_before_the_client_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "HOLD_S", 0.05)

    async def scenario() -> None:
        site = Client(PULL)
        await asyncio.wait_for(site.ask(gates(SuperLink())[0]), 1)
        assert site.pulled == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/docs", "/v1/runtimes", "/", "/healthy/../v1/control/x"])
def test_control_needs_the_secret(path: str) -> None:
    async def scenario() -> None:
        superlink = SuperLink()
        loopback = gates(superlink)[1]
        for headers in ([], [(b"x-synclave-secret", b"wrong")], [(b"x-synclave-secret", b"")]):
            client = Client(path, headers=headers)
            await client.ask(loopback)
            assert client.events[0]["status"] == 401
        assert not superlink.paths
        client = Client(path, headers=[(b"x-synclave-secret", b"secret")])
        await client.ask(loopback)
        assert superlink.paths == [path]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet//pull-messages"),
        ("POST", "/v1/fleet/"),
        ("POST", "/v1/fleetx"),
        ("GET", PULL),
        ("GET", "/docs"),
    ],
)
def test_the_public_side_shows_the_sites_part_alone(method: str, path: str) -> None:
    async def scenario() -> None:
        superlink = SuperLink()
        client = Client(path, method=method)
        await client.ask(gates(superlink)[0])
        assert client.events[0]["status"] == 404
        assert not superlink.paths

    asyncio.run(scenario())


class Sender(Client):
    """A client whose body comes in pieces of 64 KiB, and never ends if ``size`` is None."""

    def __init__(self, path: str, size: int | None) -> None:
        super().__init__(path)
        self._left = size

    async def receive(self) -> Event:
        if self._left is None:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b".", "more_body": True}
        piece = min(self._left, 2**16)
        self._left -= piece
        return {"type": "http.request", "body": bytes(piece), "more_body": self._left > 0}


@pytest.mark.parametrize(
    ("path", "size", "passes"),
    [
        ("/v1/fleet/push-object", 5 * 2**20 + 2**12, True),
        ("/v1/fleet/push-object", 9 * 2**20, False),
        ("/v1/fleet/push-messages", 2**19, True),
        ("/v1/fleet/push-messages", 2 * 2**20, False),
        ("/v1/fleet/activate-node", 2 * 2**20, False),
        ("/health", 2 * 2**20, False),
    ],
)
def test_strangers_cannot_make_us_hold_more_than_a_chunk(path: str, size: int, passes: bool) -> None:
    reached: list[int] = []

    async def application(_scope: gate.Scope, receive: gate.Receive, send: gate.Send) -> None:
        reached.append(len((await receive())["body"]))
        await gate._refuse(send, 401)

    async def scenario() -> None:
        client = Sender(path, size)
        bells = {"to_sites": Doorbell(), "to_coordinator": Doorbell()}
        await client.ask(public_gate(application, **bells))
        assert client.events[0]["status"] == (401 if passes else 413)
        assert reached == ([size] if passes else [])

    asyncio.run(scenario())


def test_a_body_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        flower = SuperLink()
        client = Sender("/v1/fleet/push-object", None)
        await asyncio.wait_for(client.ask(gates(flower)[0]), 1)
        assert client.events[0]["status"] == 503
        assert not flower.paths

    asyncio.run(scenario())


@pytest.mark.loopback
def test_connections_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "MAX_CONNECTIONS", 3)
    request = b"GET /docs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    async def status(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        return answer.split()[1]

    async def scenario() -> None:
        port = free_port()
        server = superlink._public_server(gates(SuperLink())[0], "127.0.0.1", port, None, None)
        serving = asyncio.ensure_future(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        assert await status(port) == b"404"
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await status(port) == b"503"
        for _reader, writer in idle:
            writer.close()
        await asyncio.sleep(0.05)
        assert await status(port) == b"404"
        server.should_exit = True
        await asyncio.wait_for(serving, 5)

    asyncio.run(scenario())
