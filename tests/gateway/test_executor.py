"""The site runs what it installed: a bundle with code is refused, never unpacked, and errors travel without text."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.fab import Fab
from flwr.supercore.task_identity import TaskIdentity

from synclave_client.gateway import executor
from synclave_client.gateway.app import SOCKET_VARIABLE, SOCKETS_VARIABLE
from synclave_client.gateway.executor import BUNDLE_REFUSED, answer
from synclave_shared.bundle import bundle_bytes, bundle_digest
from synclave_shared.protocol import Envelope, HelloRequest, failed, parse_reply
from synclave_shared.wire import MESSAGE_TYPE, from_records, to_records


@pytest.fixture(autouse=True)
def _no_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (SOCKET_VARIABLE, SOCKETS_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1


def request() -> Message:
    return Message(to_records(Envelope.of(HelloRequest())), dst_node_id=1, message_type=MESSAGE_TYPE, ttl=5)


def context(**node_config: int) -> Context:
    return Context(run_id=1, node_id=1, node_config=dict(node_config), state=RecordDict(), run_config={})


def fab(content: bytes) -> Fab:
    return Fab(hashlib.sha256(content).hexdigest(), content, {})


def with_code(marker: Path) -> bytes:
    """Our bundle with one file more: a package that would shadow the installed one."""
    buffer = io.BytesIO(bundle_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("synclave_client/__init__.py", f"open({str(marker)!r}, 'w').close()")
    return buffer.getvalue()


def test_our_own_bundle_passes() -> None:
    reply = parse_reply(from_records(answer(request(), context(), fab(bundle_bytes())).content))
    # It reached the app, which finds no vault in this environment.
    assert (reply.status, reply.code) == ("failed", "configuration")


def test_a_bundle_with_code_is_refused_and_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    marker = tmp_path / "it-ran"
    reply = answer(request(), context(), fab(with_code(marker)))
    assert from_records(reply.content) == failed(BUNDLE_REFUSED)
    assert not marker.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_only_claims_the_digest_is_refused(tmp_path: Path) -> None:
    forged = Fab(bundle_digest(), with_code(tmp_path / "it-ran"), {})
    assert from_records(answer(request(), context(), forged).content) == failed(BUNDLE_REFUSED)


def test_an_exception_of_the_app_leaves_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> Message:
        raise RuntimeError("SECRET")

    monkeypatch.setattr(executor, "app", broken)
    reply = answer(request(), context(), fab(bundle_bytes()))
    assert from_records(reply.content) == failed("internal")


def test_a_message_that_is_no_envelope_is_answered_with_a_code() -> None:
    odd = Message(RecordDict(), dst_node_id=1, message_type=MESSAGE_TYPE, ttl=5)
    assert parse_reply(from_records(answer(odd, context(), fab(bundle_bytes())).content)).status == "failed"


def test_a_message_of_another_kind_is_answered_with_a_code() -> None:
    train = Message(RecordDict(), dst_node_id=1, message_type="train", ttl=5)
    assert from_records(answer(train, context(), fab(bundle_bytes())).content) == failed("internal")


def test_the_bundle_holds_no_code_and_is_the_same_everywhere() -> None:
    with zipfile.ZipFile(io.BytesIO(bundle_bytes())) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "README.md", "pyproject.toml"]
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    elsewhere = subprocess.run(
        [sys.executable, "-c", "from synclave_shared.bundle import bundle_digest; print(bundle_digest())"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"},
    )
    assert elsewhere.stdout.strip() == bundle_digest()


def test_the_gateway_loads_neither_torch_nor_data_readers() -> None:
    program = (
        "import sys, synclave_client.gateway.executor, synclave_client.gateway.launcher\n"
        "heavy = {'torch', 'opacus', 'pyarrow', 'scipy', 'dp_accounting', 'synclave_shared.data.schema'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
