"""The vault as it runs at a hospital: a process, real data, real training, a Unix socket with its permissions."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.service import initialise, serve_site
from synclave_client.vault_channel import VaultClient
from synclave_shared.data.schema import Schema
from synclave_shared.errors import ConfigurationError, JournalError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.models.codes import anchor_size, model_payload_size, parameter_count
from synclave_shared.plan import ModelSpec, SiteEntry, TrainPlan
from synclave_shared.protocol import Envelope, HelloRequest, encode_model, parse_reply
from tests.vault.coordinator import Coordinator, make_plan, make_settings
from tests.vault.toy import write_hospital

GATEWAY_USER, GATEWAY_GROUP = 61_002, 61_003
START_TIMEOUT_S = 90.0
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for sockets, that other users may pass through."""
    path = Path(tempfile.mkdtemp(prefix="vault-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


class Remote:
    """A vault behind its socket, to be spoken to like one in the same process."""

    def __init__(self, settings: SiteSettings) -> None:
        self.settings = settings

    def handle(self, request: Envelope) -> Envelope:
        with VaultClient(self.settings.socket_path) as client:
            return client.exchange(request, 60.0)


def make_site(folder: Path, name: str = "north", **changes: object) -> tuple[SiteSettings, Schema, SiteEntry]:
    folder.mkdir(exist_ok=True)
    schema = write_hospital(folder)
    settings = make_settings(folder, name=name, **changes)
    key = initialise(settings)
    (folder / "site.toml").write_text(settings.to_toml())
    return settings, schema, SiteEntry(name=name, public_key=key, nominal_patients=60)


def test_a_sites_key_may_come_from_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SigningKey.generate(tmp_path / "elsewhere.key")
    monkeypatch.setenv("SITE_KEY", (tmp_path / "elsewhere.key").read_text())
    settings, _, entry = make_site(tmp_path / "north", key="env:SITE_KEY")
    assert entry.public_key == made.public_text
    assert not settings.key_file.exists()
    again = SiteSettings.load(tmp_path / "north" / "site.toml")
    assert again == settings
    assert SigningKey.named(again.key_name).public_text == made.public_text


def plan_for(schema: Schema, *sites: SiteEntry) -> TrainPlan:
    return make_plan(schema_name=schema.name, schema_digest=schema.digest, sites=sites)


@contextmanager
def running_vault(*settings: SiteSettings, log: Path, sandbox: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [part for one in settings for part in ("--settings", str(one.schema_file.parent / "site.toml"))]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*sandbox, sys.executable, "-m", "synclave_client.vault", *arguments],
            stdout=output,
            stderr=output,
            env=_ENVIRONMENT,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while log.read_text().count("ready on") < len(settings):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def test_two_sites_in_a_process_that_is_killed_and_comes_back(folder: Path) -> None:
    north, schema, north_entry = make_site(folder / "n", "north")
    south, _, south_entry = make_site(folder / "s", "south")
    plan = plan_for(schema, north_entry, south_entry)
    model = encode_model(np.zeros(model_payload_size(schema, ModelSpec()), np.float32))
    requests = {}
    replies = {}
    with running_vault(north, south, log=folder / "first.log") as process:
        for settings in (north, south):
            coordinator = Coordinator(Remote(settings), plan)  # type: ignore[arg-type]
            coordinator.join()
            marginals = coordinator.vault.handle(coordinator.round_request(0))
            assert coordinator.take(marginals).status == "ok"
            assert len(marginals.payload) == 8 * (anchor_size(schema) + 2)
            requests[settings.name] = coordinator.round_request(1, model)
            replies[settings.name] = coordinator.vault.handle(requests[settings.name])
            assert parse_reply(replies[settings.name]).status == "ok"
            assert len(replies[settings.name].payload) == 8 * parameter_count(schema, ModelSpec())
        process.kill()
    assert replies["north"].payload != replies["south"].payload
    with running_vault(north, south, log=folder / "second.log") as process:
        for settings in (north, south):
            assert Remote(settings).handle(requests[settings.name]) == replies[settings.name]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not north.socket_path.exists()
    assert "Traceback" not in (folder / "second.log").read_text()


# The interpreter may lie where only root can read (a home folder), so this imports what it needs before it changes its
# identity for good.
AS_GATEWAY = """
import os, pickle, sys
from pathlib import Path
from synclave_client.vault_channel import VaultClient
from synclave_shared.errors import FederationError
user, group, data, socket = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
os.setgroups([]); os.setgid(group); os.setuid(user)
for forbidden in (data, data / "patients.csv", data.parent / "state" / "site.key"):
    try:
        open(forbidden, "rb")
    except PermissionError:
        continue
    raise SystemExit(f"the gateway's user can open {forbidden}")
with VaultClient(socket) as vault:
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            reply = vault.exchange(request, 60.0)
        except FederationError:
            reply = None
        pickle.dump(reply, sys.stdout.buffer)
        sys.stdout.buffer.flush()
"""


def without_network() -> list[str]:
    """A command prefix that takes the network away; empty where the kernel or the container does not allow it."""
    prefix = ["unshare", "--net", "--"]
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix
    return []


class PipedGateway:
    """A gateway process of another user, fed with requests by a pipe (both ends are this test's)."""

    def __init__(self, settings: SiteSettings, group: int) -> None:
        user_and_group = [str(GATEWAY_USER), str(group)]
        paths = [str(settings.data_folder), str(settings.socket_path)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", AS_GATEWAY, *user_and_group, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
        )

    def ask(self, request: Envelope) -> Envelope | None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        reply: Envelope | None = pickle.load(self.process.stdout)
        return reply

    def handle(self, request: Envelope) -> Envelope:
        reply = self.ask(request)
        assert reply is not None, "the vault could not be reached"
        return reply

    def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(20)


@pytest.mark.skipif(os.getuid() != 0, reason="takes on other users' identities, which only root may")
def test_a_round_completes_between_a_vault_without_network_and_a_gateway_that_cannot_read_the_data(
    folder: Path,
) -> None:
    settings, schema, entry = make_site(
        folder / "n", gateway_group=str(GATEWAY_GROUP), socket_path=folder / "run" / "vault.sock"
    )
    settings.data_folder.chmod(0o700)
    plan = plan_for(schema, entry)
    model = encode_model(np.zeros(model_payload_size(schema, ModelSpec()), np.float32))
    with running_vault(settings, log=folder / "vault.log", sandbox=without_network()):
        socket, run = settings.socket_path.stat(), settings.socket_path.parent.stat()
        assert (stat.S_IMODE(socket.st_mode), socket.st_gid) == (0o660, GATEWAY_GROUP)
        assert (stat.S_IMODE(run.st_mode), run.st_gid) == (0o2750, GATEWAY_GROUP)
        gateway = PipedGateway(settings, GATEWAY_GROUP)
        coordinator = Coordinator(gateway, plan)  # type: ignore[arg-type]
        coordinator.join()
        assert coordinator.round(0).status == "ok"
        assert coordinator.round(1, model).status == "ok"
        assert gateway.end() == 0
        stranger = PipedGateway(settings, GATEWAY_USER)
        assert stranger.ask(Envelope.of(HelloRequest())) is None
        assert stranger.end() == 0


def remove_data(settings: SiteSettings) -> None:
    shutil.rmtree(settings.data_folder)


def corrupt_data(settings: SiteSettings) -> None:
    (settings.data_folder / "patients.csv").write_bytes(b"PAR1\x00\xff")


def drop_column(settings: SiteSettings) -> None:
    (settings.data_folder / "patients.csv").write_text("id,died\nP1,no\n")


@pytest.mark.parametrize("spoil", [remove_data, corrupt_data, drop_column])
def test_data_that_cannot_be_used_are_answered_with_a_code_and_explained_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[SiteSettings], None]
) -> None:
    settings, _, _ = make_site(folder / "n")
    spoil(settings)
    with caplog.at_level(logging.INFO):
        server = serve_site(settings, threading.Lock())
        reply = Remote(settings).handle(Envelope.of(HelloRequest()))
        server.stop(None).wait()
    assert reply.payload == b""
    assert (parse_reply(reply).status, parse_reply(reply).code) == ("failed", "not-ready")
    assert "cannot be used" in caplog.text
    assert "Then restart it" in caplog.text


@pytest.mark.skipif(torch.cuda.device_count() > 9, reason="this machine has a tenth GPU")
def test_a_device_that_is_not_there_is_found_out_before_anything_is_spent(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, _, _ = make_site(folder / "n", device="cuda:9")
    server = serve_site(settings, threading.Lock())
    reply = parse_reply(Remote(settings).handle(Envelope.of(HelloRequest())))
    server.stop(None).wait()
    assert (reply.status, reply.code) == ("failed", "not-ready")
    assert "cuda:9" in caplog.text


def test_a_site_without_its_journal_is_not_served(folder: Path) -> None:
    settings, _, _ = make_site(folder / "n")
    settings.journal_file.unlink()
    with pytest.raises(JournalError, match="forgets what was spent"):
        serve_site(settings, threading.Lock())
    assert not settings.socket_path.exists()
    assert not settings.journal_file.exists()


def test_a_vault_does_not_start_for_known_data_under_a_new_name(folder: Path) -> None:
    settings, _, _ = make_site(folder / "n")
    journal = Journal.open(settings.journal_file)
    accept(journal, make_plan(), settings)
    journal.close()
    before = settings.journal_file.read_bytes()
    with pytest.raises(ConfigurationError, match="north-patients"):
        serve_site(settings.model_copy(update={"dataset": "renamed"}), threading.Lock())
    assert not settings.socket_path.exists()
    assert settings.journal_file.read_bytes() == before
    serve_site(settings, threading.Lock()).stop(None).wait()


def accept(journal: Journal, plan: TrainPlan, settings: SiteSettings) -> None:
    journal.accept(
        plan,
        signature="s",
        dataset=settings.dataset,
        folder=settings.data_folder,
        patients=(),
        budget=settings.budget,
        entry=lambda previous: b"accepted",
    )


def test_the_socket_is_for_its_owner_alone_unless_a_group_is_named(folder: Path) -> None:
    settings, _, _ = make_site(folder / "n")
    settings.socket_path.parent.mkdir(mode=0o755)
    settings.socket_path.parent.chmod(0o755)
    server = serve_site(settings, threading.Lock())
    assert stat.S_IMODE(settings.socket_path.stat().st_mode) == 0o600
    server.stop(None).wait()


def test_an_unknown_gateway_group_is_named(folder: Path) -> None:
    settings, _, _ = make_site(folder / "n", gateway_group="no-such-group")
    with pytest.raises(ConfigurationError, match="no-such-group"):
        serve_site(settings, threading.Lock())


def test_settings_that_cannot_be_used_end_the_process_with_an_explanation(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("name = 'north'\n")
    done = subprocess.run(
        [sys.executable, "-m", "synclave_client.vault", "--settings", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "coordinator_key" in done.stderr
    assert "Traceback" not in done.stderr
