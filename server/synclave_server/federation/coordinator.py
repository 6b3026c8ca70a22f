"""The coordinator's processes: a SuperLink behind its gate, and one ServerApp per run.

The demo and a federation over many hospitals use the same code; only who starts the sites differs.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient

from synclave_server.app import COORDINATOR_KEY_VARIABLE, RUN_VARIABLE
from synclave_server.federation.certificates import Certificates, certificates_for
from synclave_server.federation.gate import CONTROL_SECRET_HEADER
from synclave_server.run_folder import ProgressTail, RoundProgress, RunFolder
from synclave_shared.bundle import bundle_bytes, bundle_digest
from synclave_shared.errors import FederationError
from synclave_shared.node_keys import registered_form
from synclave_shared.processes import (
    Child,
    ProcessGroup,
    flower_environment,
    free_port,
    stop_on_signals,
    wait_for_port,
    write_secret,
)

__all__ = ["Coordinator", "follow", "serve"]

START_TIMEOUT_S: Final = 60.0
"""Longest wait for our own processes to come up; 3 s is usual, the rest is for overloaded machines."""

WATCH_INTERVAL_S: Final = 0.2
"""Between two looks at a run's progress."""


class _ControlSecret:
    """Adds the secret that the loopback gate asks for."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[CONTROL_SECRET_HEADER] = self._secret
        return call_next(context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """A SuperLink that is up.

    Attributes:
        address: ``host:port`` that the sites connect to.
        certificates: of that address; the sites need ``certificates.authority``.
        group: the processes; stopped by :func:`serve`.
    """

    address: str
    certificates: Certificates
    group: ProcessGroup
    _loopback: str
    _secret: str
    _state: Path

    def register(self, node_keys: Mapping[str, str]) -> None:
        """Let sites in.

        Args:
            node_keys: site name -> public node key (OpenSSH form).

        Raises:
            ConfigurationError: if a key is no EC P-384 key.
            FederationError: if the SuperLink refuses one, say because two sites have the same.
        """
        keys = {name: registered_form(key) for name, key in node_keys.items()}
        with self._control() as control:
            for name, key in keys.items():
                try:
                    control.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
                except httpx.HTTPError as error:
                    raise FederationError(
                        expected=f"the node key of {name} to be registered",
                        found=f"a refusal ({type(error).__name__})",
                        remedy="Check that no two sites have the same node key and that no name is given twice.",
                    ) from None

    def run(
        self,
        folder: RunFolder,
        coordinator_key: str,
        progress: Callable[[RoundProgress], None],
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Run the plan of ``folder`` to its end, or from where it stopped.

        Args:
            folder: the prepared run.
            coordinator_key: names the coordinator's Ed25519 key.
            progress: called with every event.
            check: called while waiting; raises if something else that the run needs has ended.

        Raises:
            FederationError: if the run failed, or one of the processes ended.
        """
        tail = ProgressTail(folder.progress)
        environment = {
            **flower_environment(self._state / "flower"),
            RUN_VARIABLE: str(folder.path.resolve()),
            COORDINATOR_KEY_VARIABLE: coordinator_key,
        }
        token_file = self._state / "task.token"
        token_file.touch(mode=0o600)
        token_file.write_text(self._start_task(), encoding="ascii")
        command = ["flwr-serverapp", "--runtime-api-address", self._loopback, "--insecure"]
        server_app = self.group.start("serverapp", [*command, "--token-file", str(token_file)], environment)

        def both() -> None:
            self.group.check(but=server_app)
            check()

        follow(server_app, tail, progress, check=both)
        self.group.release(server_app)

    def _control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            self._loopback,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="CLI"), _ControlSecret(self._secret)],
        )

    def _start_task(self) -> str:
        """Submit the code-free bundle as a run and acquire its ServerApp task; returns the task's token.

        We acquire the task ourselves, in place of ``flower-superexec``: one process less, the ServerApp's output is
        kept in a log, and its end is noticed at once.
        """
        content = bundle_bytes()
        with self._control() as control:
            control.StartRun(StartRunRequest(fab=fab_to_proto(Fab(bundle_digest(), content, {}))))
        authentication = SuperExecAuthHttpInterceptor(
            master_secret=self._secret.encode("ascii"),
            protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"}),
        )
        runtime = RuntimeHttpClient.from_server_address(
            self._loopback,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), authentication],
        )
        with runtime:
            deadline = time.monotonic() + START_TIMEOUT_S
            while time.monotonic() < deadline:
                answer = runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
                if answer.token:
                    return str(answer.token)
                time.sleep(WATCH_INTERVAL_S)
        raise FederationError(
            expected=f"the run to be started within {START_TIMEOUT_S:g} s",
            found="no task",
            remedy="Read superlink.log in the run's logs folder.",
        )


def follow(
    child: Child, tail: ProgressTail, progress: Callable[[RoundProgress], None], *, check: Callable[[], None]
) -> None:
    """Pass a run's events on until it is complete.

    Args:
        child: the process that runs it.
        tail: its events, from before the process was started.
        progress: called with every event.
        check: called while waiting; raises if something else that the run needs has ended.

    Raises:
        FederationError: if the run failed, or its process ended without a last word.
    """
    while True:
        time.sleep(WATCH_INTERVAL_S)
        running = child.running
        for event in tail.new_events():
            progress(event)
            event.raise_if_failed()
            if event.last:
                return
        if not running:
            raise FederationError(
                expected="the run to be completed",
                found=f"{child.name} ended with status {child.process.returncode}",
                remedy=f"Read {child.log}; start the same command again to resume after the last round.",
            )
        check()


def _check_port(host: str, port: int) -> None:
    """Refuse a port that is taken before anything is started."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise FederationError(
            expected=f"{host}:{port} to be free for the coordinator",
            found=os.strerror(error.errno) if error.errno and error.errno > 0 else str(error),
            remedy="Stop what uses it, or choose another address.",
        ) from None


@contextmanager
def serve(
    state: Path, logs: Path, *, host: str = "127.0.0.1", port: int | None = None, name: str | None = None
) -> Iterator[Coordinator]:
    """Run a SuperLink; it is stopped when the block ends, however it ends.

    Args:
        state: folder for certificates, secrets and Flower's state; private to this coordinator.
        logs: folder for the processes' output.
        host: address to listen on.
        port: TCP port of the public side; None picks a free one.
        name: host name or address by which the sites reach it; ``host`` if None.

    Raises:
        FederationError: if the port is taken or the SuperLink does not come up.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    public_port = port or free_port()
    _check_port(host, public_port)
    reached = name or host
    certificates = certificates_for(state / "tls", reached)
    secret = secrets.token_hex(32)
    secret_file = state / "superlink.secret"
    write_secret(secret_file, secret)
    loopback_port = free_port()
    command = [
        *(sys.executable, "-m", "synclave_server.federation.superlink"),
        *("--host", host, "--port", str(public_port), "--loopback-port", str(loopback_port)),
        *("--certificate", str(certificates.certificate), "--private-key", str(certificates.private_key)),
        *("--secret-file", str(secret_file)),
    ]
    with stop_on_signals(), ProcessGroup(logs) as group:
        group.start("superlink", command, flower_environment(state / "flower"))
        wait_for_port("127.0.0.1", loopback_port, group, START_TIMEOUT_S)
        wait_for_port("127.0.0.1" if host in ("0.0.0.0", "::") else host, public_port, group, START_TIMEOUT_S)  # noqa: S104
        yield Coordinator(
            address=f"{reached}:{public_port}",
            certificates=certificates,
            group=group,
            _loopback=f"127.0.0.1:{loopback_port}",
            _secret=secret,
            _state=state,
        )
