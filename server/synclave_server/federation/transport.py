"""Flower's grid as the round loop's transport: bounded waits over ``push_messages`` and ``pull_messages``.

``send_and_receive`` of Flower looks for replies each 3 s and, without a timeout, waits for ever.
"""

from __future__ import annotations

import logging
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
"""Between two looks for replies on the SuperLink beside us; each costs about 3 ms of CPU."""

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
        while waiting:
            for message in self._grid.pull_messages(list(waiting)):
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
            if time.monotonic() >= deadline:
                return
            if waiting:
                time.sleep(POLL_INTERVAL_S)
