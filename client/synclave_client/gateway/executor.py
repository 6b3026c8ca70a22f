"""Runs a site's Flower tasks, in one process and with nothing but the installed app.

This takes the place of ``flower-superexec`` and ``flwr-clientapp``, which start a new process per message, unpack the
bundle that the coordinator sent, put it first on the import path, and send the text of exceptions back. Here a bundle
is never unpacked: its SHA-256 must be that of the code-free bundle of the installed version, and then the installed
app answers. Only tasks of ClientApps are taken; agents, models and connectors, which Flower also offers, stay unserved.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from synclave_client.gateway.app import app
from synclave_shared.bundle import bundle_digest
from synclave_shared.canonical import sha256_hex
from synclave_shared.protocol import failed
from synclave_shared.wire import to_records

__all__ = ["BUNDLE_REFUSED", "Executor", "answer"]

POLL_INTERVAL_S: Final = 0.2
"""Between two questions for work to the SuperNode beside us; each costs about 2 ms of CPU."""

PATIENCE_S: Final = 10.0
"""How long a task's message, or one of its objects, is waited for at a time."""

PATIENT_INTERVAL_S: Final = 0.03
"""Between two looks for it."""

BUNDLE_REFUSED: Final = "bundle-refused"
"""The code that a coordinator gets whose bundle is not the one of the installed version."""

Answer = TypeVar("Answer")

_log = logging.getLogger("synclave.gateway")


def answer(message: Message, context: Context, fab: Fab) -> Message:
    """The installed app's reply, or a refusal if the bundle is not the code-free one; never raises."""
    try:
        digest = sha256_hex(fab.content)
        if digest != bundle_digest():
            _log.error("refused a bundle with SHA-256 %s; this site lets pass %s only", digest, bundle_digest())
            return Message(to_records(failed(BUNDLE_REFUSED)), reply_to=message)
        return app(message=message, context=context)
    except Exception:  # noqa: BLE001 - Flower would send its text to the coordinator
        _log.exception("the gateway could not answer a message")
        return Message(to_records(failed("internal")), reply_to=message)


class _PatientClient(RuntimeHttpClient):
    """Waits for what the SuperNode is about to have.

    A SuperNode makes a task before it has stored the task's message, and long before it has pulled the message's
    objects. Flower's executor does not notice, since it starts a process first. One that is quicker would fail on a
    missing message, or sleep 1 s for each object that comes a moment later.
    """

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 - Flower's name
        return _patiently(lambda: super(_PatientClient, self).PullMessages(request), lambda a: bool(a.messages_list))

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802 - Flower's name
        return _patiently(
            lambda: super(_PatientClient, self).PullObject(request), lambda a: a.object_available or not a.object_found
        )


def _patiently(ask: Callable[[], Answer], complete: Callable[[Answer], bool]) -> Answer:
    deadline = time.monotonic() + PATIENCE_S
    while not complete(answer := ask()) and time.monotonic() < deadline:
        time.sleep(PATIENT_INTERVAL_S)
    return answer


class Executor:
    """Asks the SuperNode for tasks and answers them, one after the other.

    Args:
        runtime_address: ``host:port`` of the SuperNode's runtime API, on loopback.
        secret: the secret that SuperNode and executor share.
    """

    def __init__(self, runtime_address: str, secret: bytes) -> None:
        self._address = runtime_address
        authentication = SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
        )
        self._client = RuntimeHttpClient.from_server_address(
            runtime_address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), authentication],
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def step(self) -> None:
        """Answer one task if there is one, else wait a moment. A SuperNode that is away is waited for."""
        try:
            task = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        except httpx.HTTPError as error:
            _log.debug("the SuperNode does not answer yet: %s", error)
            time.sleep(POLL_INTERVAL_S)
            return
        if not task.token:
            time.sleep(POLL_INTERVAL_S)
            return
        try:
            self._serve(task.token)
        except Exception:  # noqa: BLE001 - one task that fails must not end the gateway
            _log.exception("a task could not be completed")

    def _serve(self, token: str) -> None:
        """Pull the message of a task, answer it, push the reply."""
        client = _PatientClient.from_server_address(
            self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
            retry_invoker=make_simple_http_retry_invoker(),
        )
        heartbeat = HeartbeatSender(lambda: _beat(client))
        heartbeat.start()
        context: Context | None = None
        status = SubStatus.FAILED
        try:
            message, context, _run, fab = pull_task_input(client)
            push_message(client, answer(message, context, fab), context)
            status = SubStatus.COMPLETED
        finally:
            push_task_output(client, context, status, "")
            heartbeat.stop()
            client.close()


def _beat(client: RuntimeHttpClient) -> bool:
    """Keep a task's lease. Flower's own version ends the process when a task was given up elsewhere; we go on."""
    try:
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.HTTPError:
        return False
    return True
