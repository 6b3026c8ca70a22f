"""Flower's grid as the round loop's transport: bounded waits over ``push_messages`` and ``pull_messages``.

``send_and_receive`` of Flower looks for replies each 3 s and, without a timeout, waits for ever.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Final

from flwr.app import Message
from flwr.serverapp import Grid

from synclave_shared.errors import ProtocolError
from synclave_shared.protocol import Envelope
from synclave_shared.wire import MESSAGE_TYPE, from_records, to_records

__all__ = ["GridTransport"]

POLL_INTERVAL_S: Final = 0.1
"""Between two looks for replies. On a SuperLink behind our gate a look waits there until there is news."""

MAX_POLLERS: Final = 64
"""Threads that look for replies. Flower's ``pull_messages`` waits up to two hours for the rest of a reply that a site
began to send, and holds up whatever it was asked for along with it; so each site, or at worst each 1/64 of them, has
its own."""

UNREADABLE: Final = Envelope(header=b"")
"""Stands for a reply whose records are not an envelope; no reader of replies accepts it."""

_log = logging.getLogger("synclave.rounds")


class GridTransport:
    """Carries envelopes to Flower's nodes; a peer is a node, by its id in decimal.

    Args:
        grid: of the run's ServerApp.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def peers(self) -> Mapping[str, str | None]:
        """The nodes that are online, with the names they were registered under (none in a simulation)."""
        return {str(node.node_id): node.name or None for node in self._grid.get_nodes()}

    def exchange(self, requests: Mapping[str, Envelope], timeout_s: float) -> Iterator[tuple[str, Envelope]]:
        """Send one request to each node and yield replies as they come; see :class:`synclave_server.cohort.Transport`.

        A request lives no longer than it is waited for, so that a site that comes back does not work on an old one.
        """
        if not requests:
            return
        deadline = time.monotonic() + timeout_s
        messages = [
            Message(to_records(request), dst_node_id=int(peer), message_type=MESSAGE_TYPE, ttl=timeout_s)
            for peer, request in requests.items()
        ]
        waiting = {
            message_id: peer
            for message_id, peer in zip(self._grid.push_messages(messages), requests, strict=True)
            if message_id
        }
        replies: queue.SimpleQueue[Message | Exception] = queue.SimpleQueue()
        stop = threading.Event()
        identifiers = list(waiting)
        for start in range(min(MAX_POLLERS, len(identifiers))):
            share = set(identifiers[start::MAX_POLLERS])
            threading.Thread(target=self._poll, args=(share, replies, stop), name="replies", daemon=True).start()
        try:
            while waiting:
                try:
                    message = replies.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    return
                if isinstance(message, Exception):
                    raise message
                peer = waiting.pop(message.metadata.reply_to_message_id, None)
                if peer is None:
                    continue
                if message.has_error():
                    # Flower's own words, about a node that left or a message that expired; no text of a site.
                    _log.warning("node %s gave no reply: error %d", peer, message.error.code)
                    continue
                try:
                    envelope = from_records(message.content)
                except ProtocolError:
                    envelope = UNREADABLE
                yield peer, envelope
        finally:
            stop.set()

    def _poll(self, share: set[str], replies: queue.SimpleQueue[Message | Exception], stop: threading.Event) -> None:
        """Look for the replies to some messages until all are there or nobody waits any more."""
        try:
            while share and not stop.is_set():
                for message in self._grid.pull_messages(list(share)):
                    share.discard(message.metadata.reply_to_message_id)
                    replies.put(message)
                if share:
                    stop.wait(POLL_INTERVAL_S)
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            replies.put(error)
