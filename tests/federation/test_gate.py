"""The gate holds questions for messages, loses none, and lets nobody at control without the secret."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message

from synclave_server.federation import gate
from synclave_server.federation.gate import Doorbell, loopback_gate, public_gate

Event = MutableMapping[str, Any]
PULL = "/v1/fleet/pull-messages"


@dataclass
class SuperLink:
    """Stands for Flower's application: hands out queued messages."""

    messages: list[Message] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        self.paths.append(scope["path"])
        event = await receive()
        assert event["body"] == b"who asks"
        answer = PullMessagesResponse(messages_list=[self.messages.pop()] if self.messages else [])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer.SerializeToString()})


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
        return len(PullMessagesResponse.FromString(self.events[1]["body"]).messages_list)


def test_a_message_reaches_a_waiting_site_at_once() -> None:
    async def scenario() -> None:
        superlink, doorbell = SuperLink(), Doorbell()
        public = public_gate(superlink, doorbell)
        site = Client(PULL)
        waiting = site.ask(public)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        superlink.messages.append(Message())
        doorbell.ring()
        await asyncio.wait_for(waiting, 1)
        assert site.pulled == 1

    asyncio.run(scenario())


def test_the_bell_rings_when_the_serverapp_asks_for_replies_and_not_before() -> None:
    async def scenario() -> None:
        superlink, doorbell = SuperLink([Message()]), Doorbell()
        loopback = loopback_gate(superlink, doorbell, "secret")
        ring = doorbell.next_ring()
        await Client("/v1/runtime/pull-messages").ask(loopback)
        assert not ring.is_set()
        await Client("/v1/runtime/push-messages").ask(loopback)
        await Client("/v1/runtime/push-object").ask(loopback)
        assert not ring.is_set()
        await Client("/v1/runtime/pull-messages").ask(loopback)
        assert ring.is_set()
        assert not doorbell.next_ring().is_set()

    asyncio.run(scenario())


def test_a_site_that_left_gets_no_message_it_would_lose() -> None:
    async def scenario() -> None:
        superlink, doorbell = SuperLink(), Doorbell()
        site = Client(PULL)
        waiting = site.ask(public_gate(superlink, doorbell))
        await asyncio.sleep(0.02)
        site.leave.set()
        await asyncio.wait_for(waiting, 1)
        superlink.messages.append(Message())
        doorbell.ring()
        await asyncio.sleep(0.02)
        assert superlink.messages
        assert not site.events

    asyncio.run(scenario())


def test_a_question_is_answered_before_the_client_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "HOLD_S", 0.05)

    async def scenario() -> None:
        site = Client(PULL)
        await asyncio.wait_for(site.ask(public_gate(SuperLink(), Doorbell())), 1)
        assert site.pulled == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/docs", "/v1/runtimes", "/", "/healthy/../v1/control/x"])
def test_control_needs_the_secret(path: str) -> None:
    async def scenario() -> None:
        superlink = SuperLink()
        loopback = loopback_gate(superlink, Doorbell(), "secret")
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
        await client.ask(public_gate(superlink, Doorbell()))
        assert client.events[0]["status"] == 404
        assert not superlink.paths

    asyncio.run(scenario())
