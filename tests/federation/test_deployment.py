"""A real federation on loopback: SuperLink, SuperNodes, gateways and vaults as processes, on public heart data."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from synclave_client.settings import SitePolicy, SiteSettings
from synclave_client.vault.service import initialise
from synclave_server.federation.coordinator import serve
from synclave_server.federation.deployment import InstalledSite, run_deployed
from synclave_server.federation.simulation import run_simulated
from synclave_server.run_folder import RoundProgress, RunFolder
from synclave_server.snapshots import read_snapshot
from synclave_shared.errors import ConfigurationError, FederationError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.node_keys import node_key
from synclave_shared.plan import TrainPlan, signed_plan_bytes
from synclave_shared.privacy.budget import Budget
from synclave_shared.processes import free_port
from tests.federation.hospitals import SCHEMA, make_plan

pytestmark = pytest.mark.loopback

HEART = Path(__file__).parents[2] / "examples" / "heart"


def processes_about(folder: Path) -> dict[int, str]:
    """Command lines of the processes that name ``folder``, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in command:
                found[int(entry.name)] = command
    return found


def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def install(folder: Path, names: tuple[str, ...], **federation: object) -> tuple[RunFolder, Path, list[Path]]:
    """Sites with the heart example's data, and a prepared run of theirs."""
    key_file = folder / "coordinator.key"
    key = SigningKey.generate(key_file)
    settings_files, public_keys = [], {}
    for number, name in enumerate(names):
        home = folder / name
        home.mkdir()
        settings = SiteSettings(
            name=name,
            coordinator_key=key.public_text,
            dataset=f"{name}-patients",
            data_folder=HEART / "sites" / name,
            schema_file=HEART / "schema.toml",
            state_folder=home / "state",
            socket_path=folder / "s" / f"{number}.sock",
            budget=Budget(epsilon=Decimal(50), delta=Decimal("0.00001")),
            policy=SitePolicy(minimum_noise_multiplier=Decimal("0.5")),
        )
        public_keys[name] = initialise(settings)
        (home / "site.toml").write_text(settings.to_toml(), encoding="utf-8")
        settings_files.append(home / "site.toml")
    content = make_plan(**federation).model_dump(mode="json") | {
        "coordinator_key": key.public_text,
        "sites": [
            {"name": name, "public_key": public_keys[name], "nominal_patients": 200, "weight": None} for name in names
        ],
    }
    plan = TrainPlan.model_validate(content).to_bytes()
    run = RunFolder.prepare(folder / "run", plan, key.sign_text(signed_plan_bytes(plan)), SCHEMA.to_json_bytes())
    return run, key_file, settings_files


def test_two_hospitals_train_over_tls_and_one_is_lost_on_the_way(short_folder: Path) -> None:
    names = ("budapest", "cleveland-clinic")
    run, key_file, settings = install(short_folder, names, rounds=4, minimum_sites=1, round_timeout_s=60)
    seen: list[RoundProgress] = []

    def watch(event: RoundProgress) -> None:
        seen.append(event)
        if event.stage == "training" and event.round == 1 and event.seconds:
            for process, command in processes_about(settings[1]).items():
                if "synclave_client.vault" in command:
                    os.kill(process, signal.SIGKILL)

    run_deployed(run, str(key_file), settings, watch)
    assert seen[-1].stage == "complete"
    metrics = run.read_metrics()["rounds"]
    assert metrics[1]["sites"] == sorted(names)
    # By the time we saw the end of round 1, round 2 may have been nearly over.
    assert metrics[4]["sites"] == ["budapest"]
    assert metrics[4]["findings"] == {"cleveland-clinic": "failed (federation)"}
    assert read_snapshot(run.snapshot).record.round == 4
    report = verify_ledger(run.ledger)
    assert report.valid, report.findings
    assert not processes_about(short_folder)


def test_the_same_sites_train_in_the_simulation_engine(short_folder: Path) -> None:
    names = ("budapest", "cleveland-clinic", "zurich-basel")
    run, key_file, settings = install(short_folder, names, rounds=1, round_timeout_s=60)
    seen: list[RoundProgress] = []
    run_simulated(run, str(key_file), settings, seen.append)
    assert seen[-1].stage == "complete"
    assert run.read_metrics()["rounds"][-1]["sites"] == sorted(names)
    assert verify_ledger(run.ledger).valid
    assert eventually(lambda: not processes_about(short_folder))


def test_a_killed_coordinator_resumes(short_folder: Path) -> None:
    run, key_file, settings = install(short_folder, ("budapest",), rounds=4, minimum_sites=1, round_timeout_s=60)

    def kill(event: RoundProgress) -> None:
        if event.stage == "training" and event.round == 1 and event.seconds:
            for process, command in processes_about(run.path).items():
                if "flwr-serverapp" in command:
                    os.kill(process, signal.SIGKILL)

    with pytest.raises(FederationError, match="serverapp ended"):
        run_deployed(run, str(key_file), settings, kill)
    assert eventually(lambda: not processes_about(short_folder))
    run_deployed(run, str(key_file), settings, lambda _event: None)
    assert read_snapshot(run.snapshot).record.round == 4
    assert verify_ledger(run.ledger).valid


def test_a_vault_that_cannot_start_is_named(short_folder: Path) -> None:
    run, key_file, settings = install(short_folder, ("budapest",), rounds=1, minimum_sites=1)
    (short_folder / "budapest" / "state" / "journal.sqlite").unlink(missing_ok=True)
    for file in (short_folder / "budapest" / "state").iterdir():
        file.unlink()
    with pytest.raises(FederationError) as error:
        run_deployed(run, str(key_file), settings, lambda _event: None)
    assert "vault-budapest" in error.value.expected
    assert "vault-budapest.log" in error.value.remedy
    assert eventually(lambda: not processes_about(short_folder))


def test_settings_without_a_socket_are_refused(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="socket_path"):
        InstalledSite.read(tmp_path / "site.toml")


def test_only_the_fleet_api_is_public_and_control_needs_the_secret(short_folder: Path) -> None:
    with serve(short_folder / "state", short_folder / "logs") as coordinator:
        authority = ssl.create_default_context(cafile=str(coordinator.certificates.authority))
        public, loopback = f"https://{coordinator.address}", f"http://{coordinator._loopback}"
        with httpx.Client(verify=authority, trust_env=False) as client:
            assert client.get(f"{public}/health").status_code == 200
            for path in (
                "/v1/control/start-run",
                "/v1/control/register-node",
                "/v1/runtime/acquire-task",
                "/v1/runtime/push-messages",
                "/v1/fleet/../control/start-run",
                "/v1/fleet/%2e%2e/control/start-run",
                "//v1/control/start-run",
                "/docs",
                "/openapi.json",
            ):
                for method in ("GET", "POST"):
                    answer = client.request(method, public + path)
                    assert answer.status_code == 404, (method, path)
                    assert not answer.content
            too_large = client.post(f"{public}/v1/fleet/push-object", content=bytes(65 * 2**20))
            assert too_large.status_code == 413
            # Nobody who is not registered is answered, even by the fleet API.
            assert client.post(f"{public}/v1/fleet/pull-messages", content=b"").status_code in (401, 415, 422)
            for path in ("/v1/control/start-run", "/docs", "/v1/responses"):
                assert client.post(loopback + path).status_code == 401
            with pytest.raises(httpx.HTTPError):
                client.get(f"http://{coordinator.address}/health")
        coordinator.register({"north": node_key(short_folder / "node.key")})
        with pytest.raises(FederationError, match="two sites have the same node key"):
            coordinator.register({"south": node_key(short_folder / "node.key")})
        with pytest.raises(ConfigurationError, match="node key"):
            coordinator.register({"south": "ssh-ed25519 AAAA"})
    assert not processes_about(short_folder)


def test_a_port_in_use_is_named_before_anything_starts(short_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(FederationError, match=str(port)),
            serve(short_folder / "state", short_folder / "logs", port=port),
        ):
            pytest.fail("served on a port that is taken")
    assert not (short_folder / "logs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_the_coordinator_ends_its_processes_end_too(short_folder: Path, number: signal.Signals) -> None:
    program = (
        "import signal, sys, time; from pathlib import Path\n"
        # As in a terminal: whoever runs the tests in the background passes on an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from synclave_server.federation.coordinator import serve\n"
        f"folder = Path({str(short_folder)!r})\n"
        f"with serve(folder / 'state', folder / 'logs', port={free_port()}):\n"
        "    print('up', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert any("superlink" in command for command in processes_about(short_folder).values())
        parent.send_signal(number)
        parent.wait(20)
    assert eventually(lambda: not processes_about(short_folder))
