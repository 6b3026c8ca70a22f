"""A Flower grid in this process: every message becomes protobuf bytes and back, then the real ClientApp answers it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from synclave_client.gateway.app import app as client_app


@dataclass
class Node:
    """A simulated SuperNode.

    Attributes:
        partition: its number, by which the gateway finds its vault.
        name: name it is registered under, or empty as in a simulation.
        online: whether it can be reached.
        silent: takes messages and never answers.
        stuck: begins to send its answer and never ends; Flower then waits for the rest of it.
    """

    partition: int
    name: str = ""
    online: bool = True
    silent: bool = False
    stuck: bool = False


@dataclass
class InProcessGrid(Grid):
    """See the module.

    Attributes:
        nodes: nodes by id.
        received: the bytes of every reply that reached the server's side.
        sent: number of messages that were pushed.
        tamper: changes the bytes of a reply on its way; (node id, bytes) -> bytes.
    """

    nodes: dict[int, Node]
    received: list[bytes] = field(default_factory=list)
    sent: int = 0
    tamper: Callable[[int, bytes], bytes] = lambda _node, data: data
    _stuck: set[str] = field(default_factory=set)
    _closed: threading.Event = field(default_factory=threading.Event)
    _replies: dict[str, bytes] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *_: object, **__: object) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return [node_id for node_id, node in self.nodes.items() if node.online]

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node_id, name=self.nodes[node_id].name) for node_id in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        identifiers = []
        for message in messages:
            metadata = message.metadata.__dict__
            metadata["_message_id"], metadata["_run_id"] = uuid4().hex, 1
            data = message_to_proto(message).SerializeToString()
            identifiers.append(message.metadata.message_id)
            self.sent += 1
            self._pool.submit(self._answer, message.metadata.dst_node_id, data)
        return identifiers

    def _answer(self, node_id: int, data: bytes) -> None:
        node = self.nodes[node_id]
        if node.silent:
            return
        if node.stuck:
            self._stuck.add(MessageProto.FromString(data).metadata.message_id)
            return
        message = message_from_proto(MessageProto.FromString(data))
        context = Context(
            run_id=1, node_id=node_id, node_config={"partition-id": node.partition}, state=RecordDict(), run_config={}
        )
        reply = client_app(message, context)
        if node.online:
            self._replies[message.metadata.message_id] = self.tamper(
                node_id, message_to_proto(reply).SerializeToString()
            )

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        time.sleep(0.005)
        if self._stuck & set(message_ids):
            self._closed.wait()
        there = [self._replies.pop(identifier) for identifier in list(message_ids) if identifier in self._replies]
        self.received += there
        return [message_from_proto(MessageProto.FromString(data)) for data in there]

    def close(self) -> None:
        """Wait for what is still answering."""
        self._closed.set()
        self._pool.shutdown()
