"""``synclave-site`` as a data steward meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from synclave_client.performance import Performance
from synclave_client.settings import SiteSettings
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.journal import Journal
from synclave_shared.errors import ConfigurationError, NotConforming
from synclave_shared.ledger.checkpoint import parse_note
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.receipt import check_receipt
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.mechanism import PoissonGaussian
from tests.data.icu import channel, make_schema, write
from tests.site_cli.conftest import init_arguments
from tests.vault.coordinator import COORDINATOR_KEY, Coordinator, FakeWorkload, make_plan, open_vault
from tests.vault.test_conformance import watched


def test_init_makes_a_site_that_the_vault_can_open(site: Any, hospital: Path) -> None:
    done = site(*init_arguments(hospital, dataset="patients-2026", delta="0.000001"), "--json")
    assert done.code == 0
    loaded = SiteSettings.load(Path(done.document["settings"]))
    assert (loaded.name, loaded.dataset, str(loaded.budget.delta)) == ("north", "patients-2026", "0.000001")
    assert SigningKey.load(loaded.key_file).public_text == done.document["public_key"]
    assert loaded.state_folder.stat().st_mode & 0o777 == 0o700
    Journal.open(loaded.journal_file).close()


def test_init_with_a_coordinators_address_makes_the_node_key_too(site: Any, hospital: Path) -> None:
    arguments = init_arguments(hospital, superlink="fed.example.org:8443", **{"root-certificate": hospital / "ca.pem"})
    done = site(*arguments, "--json")
    gateway = SiteSettings.load(Path(done.document["settings"])).gateway
    assert gateway is not None
    assert (gateway.state_folder / "node.pub").read_text().strip() == done.document["node_key"]


def test_init_never_touches_a_site_that_is_there(site: Any, hospital: Path, settings: Path) -> None:
    before = {path: path.read_bytes() for path in settings.parent.rglob("*") if path.is_file()}
    again = site(*init_arguments(hospital))
    assert again.code == 1
    assert "What to do:" in again.err
    settings.rename(settings.with_suffix(".moved"))
    assert site(*init_arguments(hospital)).code == 1
    settings.with_suffix(".moved").rename(settings)
    assert {path: path.read_bytes() for path in settings.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("name", "North Hospital", "name"),
        ("coordinator-key", "nonsense", "coordinator_key"),
        ("epsilon", "a lot", "epsilon"),
        ("epsilon", "0", "epsilon"),
        ("delta", "1", "delta"),
        ("device", "abacus", "device"),
        ("socket", "/tmp/" + "x" * 100, "socket_path"),
        ("schema", "/nowhere/schema.toml", "/nowhere/schema.toml"),
    ],
)
def test_init_names_what_is_wrong_and_makes_nothing(
    site: Any, hospital: Path, option: str, value: str, named: str
) -> None:
    done = site(*init_arguments(hospital, **{option: value}), "--json")
    assert done.code == 1
    assert named in done.document["error"]["expected"] + done.document["error"]["found"]
    assert not (hospital / "site").exists()


def test_settings_survive_their_file(hospital: Path, settings: Path) -> None:
    loaded = SiteSettings.load(settings)
    copy = settings.with_name("copy.toml")
    copy.write_text(loaded.to_toml())
    assert SiteSettings.load(copy) == loaded


def test_how_a_site_computes_survives_its_file(settings: Path) -> None:
    chosen = {"clipping": "hooks", "precision": "bfloat16", "patients_at_once": 32}
    loaded = SiteSettings.load(settings)
    changed = loaded.model_copy(update={"performance": Performance.model_validate(chosen)})
    settings.write_text(changed.to_toml())
    assert SiteSettings.load(settings) == changed != loaded


@pytest.mark.parametrize(("old", "new"), [("book-keeping", "none"), ("float32", "float16"), ("= 256", "= 0")])
def test_an_unknown_way_to_compute_is_refused(settings: Path, old: str, new: str) -> None:
    text = settings.read_text()
    assert old in text
    settings.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError, match="performance"):
        SiteSettings.load(settings)


def test_relative_paths_are_relative_to_the_file(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = settings.read_text()
    settings.write_text(text.replace(str(settings.parent) + "/", ""))
    monkeypatch.chdir("/")
    assert SiteSettings.load(settings).state_folder == settings.parent / "state"


def test_state_among_the_data_is_refused(site: Any, hospital: Path, settings: Path) -> None:
    settings.write_text(
        settings.read_text().replace(str(hospital / "site" / "state"), str(hospital / "data" / "state"))
    )
    done = site("budget", "--settings", settings)
    assert done.code == 1
    assert "lie apart" in done.err


def test_check_data_passes_good_data_and_counts_them(site: Any, hospital: Path) -> None:
    done = site("check-data", "--schema", hospital / "schema.toml", hospital / "data", "--json")
    assert done.code == 0
    assert (done.document["ok"], done.document["patients"], done.document["faults"]) == (True, 60, [])
    shown = site("check-data", "--schema", hospital / "schema.toml", hospital / "data")
    assert shown.code == 0
    assert "No faults" in shown.out
    assert "died = yes" in shown.out


def test_check_data_names_each_fault_by_file_row_and_column(site: Any, hospital: Path) -> None:
    table = hospital / "data" / "patients.csv"
    table.write_text("id,sex,died\nP1,f,no\nP2,[bold]x,yes\nP3,m,perhaps\n")
    done = site("check-data", "--schema", hospital / "schema.toml", hospital / "data", "--json")
    assert done.code == 1
    places = {(fault["file"], fault["row"], fault["column"]) for fault in done.document["faults"]}
    assert places == {("patients.csv", 2, "sex"), ("patients.csv", 3, "died")}
    shown = site("check-data", "--schema", hospital / "schema.toml", hospital / "data")
    assert shown.code == 1
    for part in ("patients.csv", "sex", "[bold]x", "perhaps", "2 faults"):
        assert part in shown.out
    assert table.read_text().startswith("id,sex,died\nP1")


def test_check_data_shows_what_became_of_each_channel(site: Any, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_bytes(make_schema(channel(), channel("rate", outside="clip")).to_json_bytes())
    chart = {"person": ["p", "p", "q"], "minute": [0, 60, 0], "pulse": [50, 4000, 1], "rate": [-1, -2, None]}
    icu = write(tmp_path / "icu", chart)
    before = {file.name: file.read_bytes() for file in icu.iterdir()}
    done = site("check-data", "--schema", tmp_path / "schema.json", icu, "--json")
    assert done.code == 0
    assert done.document["channels"] == [
        {"name": "pulse", "values": 3, "dropped": 1, "clipped": 0, "observed": 2, "steps": 3},
        {"name": "rate", "values": 2, "dropped": 0, "clipped": 2, "observed": 2, "steps": 3},
    ]
    shown = site("check-data", "--schema", tmp_path / "schema.json", icu)
    for part in ("No faults", "died = no", "1 dropped", "2 clipped", "66.7%", "0 to 100 1/min", "steps of 60 minutes"):
        assert part in shown.out
    write(icu, {**chart, "minute": [0, None, 0]})
    shown = site("check-data", "--schema", tmp_path / "schema.json", icu)
    assert shown.code == 1
    for part in ("bad-time", "chart.parquet", "minute", "1 fault."):
        assert part in shown.out
    write(icu, chart)
    assert {file.name: file.read_bytes() for file in icu.iterdir()} == before


def test_check_data_of_a_folder_that_is_not_there(site: Any, hospital: Path) -> None:
    done = site("check-data", "--schema", hospital / "schema.toml", hospital / "nowhere", "--json")
    assert done.code == 1
    assert [fault["code"] for fault in done.document["faults"]] == ["not-found"]


def test_the_checkpoint_that_was_seen_is_printed_byte_for_byte(site: Any, settings: Path) -> None:
    assert site("checkpoint", "--settings", settings, "--json").document["error"]["code"] == "configuration"
    digest = open_plan(settings)
    journal = Journal.read(SiteSettings.load(settings).journal_file)
    seen = journal.ledgers.seen(digest)
    journal.close()
    assert seen is not None
    assert site("checkpoint", "--plan", digest[:12], "--settings", settings).out == seen.note
    document = site("checkpoint", "--plan", digest, "--settings", settings, "--json").document
    assert document == {"plan": digest, "size": seen.size, "root": seen.root, "note": seen.note}
    assert parse_note(document["note"]).checkpoint.size == seen.size
    several = site("checkpoint", "--settings", settings)
    assert several.code == 1
    assert "--plan" in several.err


def test_the_copy_of_a_ledger_is_a_ledger_that_an_auditor_accepts(site: Any, settings: Path, tmp_path: Path) -> None:
    empty = site("ledger", "--settings", settings, "--json").document
    assert empty["ledgers"] == []
    digest = open_plan(settings)
    document = site("ledger", "--settings", settings, "--json").document
    assert {ledger["plan_name"] for ledger in document["ledgers"]} == {"first", None}
    (copy,) = (ledger for ledger in document["ledgers"] if ledger["plan"] == digest)
    assert (copy["size"], copy["own_entries"]) == (6, 4)
    folder = tmp_path / "copy"
    done = site("ledger", "--plan", digest[:12], "--export", folder, "--settings", settings, "--json").document
    assert done["exported_to"] == str(folder)
    report = verify_ledger(folder)
    assert (report.findings, report.valid) == ((), True)
    assert (report.size, report.root) == (copy["size"], copy["root"])
    assert (report.sites["north"].spends, report.sites["north"].witnessed_size) == (1, 6)
    again = site("ledger", "--plan", digest[:12], "--export", folder, "--settings", settings)
    assert (again.code, "another folder" in again.err) == (1, True)
    several = site("ledger", "--export", tmp_path / "none", "--settings", settings, "--json")
    assert several.document["error"]["code"] == "configuration"
    assert not (tmp_path / "none").exists()
    shown = site("ledger", "--settings", settings)
    assert digest[:12] in shown.out


def test_receipts_prove_what_the_site_signed(site: Any, settings: Path, tmp_path: Path) -> None:
    assert site("receipts", "--settings", settings, "--json").document["receipts"] == []
    digest = open_plan(settings)
    folder = tmp_path / "receipts"
    document = site("receipts", "--plan", digest, "--export", folder, "--settings", settings, "--json").document
    kinds = ["key-registered", "plan-accepted", "spend-reserved", "update-released"]
    assert [(each["kind"], each["index"]) for each in document["receipts"]] == list(
        zip(kinds, range(2, 6), strict=True)
    )
    assert document["entries_without"] == 2
    assert {each["file"] for each in document["receipts"]} == {file.name for file in folder.iterdir()}
    for each in document["receipts"]:
        key = SigningKey.load(SiteSettings.load(settings).key_file).public_text
        report = check_receipt(
            (folder / each["file"]).read_bytes(), coordinator_key=COORDINATOR_KEY.public_text, site_key=key
        )
        assert report.valid
        assert report.entry is not None
        assert (report.entry.kind, report.index) == (each["kind"], each["index"])
    shown = site("receipts", "--settings", settings)
    assert "spend-reserved" in shown.out


def test_the_budget_of_a_new_site_is_whole(site: Any, settings: Path) -> None:
    document = site("budget", "--settings", settings, "--json").document
    assert document["epsilon"] == {"allowed": 3.0, "spent": 0.0, "left": 3.0, "worst_case": 0.0}
    assert (document["plans"], document["refusals"], document["paused"]) == ([], [], False)


def open_plan(settings: Path) -> str:
    """An accepted plan of which two rounds were done; its digest."""
    loaded = SiteSettings.load(settings)
    key = SigningKey.load(loaded.key_file)
    plan = make_plan()
    entry = plan.sites[0].model_copy(update={"public_key": key.public_text})
    plan = plan.model_copy(update={"sites": (entry,)})
    vault, journal = open_vault(loaded, FakeWorkload(), key=key)
    coordinator = Coordinator(vault, plan)
    coordinator.begin()
    coordinator.join()
    assert [coordinator.round(number).status for number in (0, 1)] == ["ok", "ok"]
    too_dear = plan.model_copy(
        update={"name": "dear", "federation": plan.federation.model_copy(update={"rounds": 9000})}
    )
    other = Coordinator(vault, too_dear)
    other.hello()
    assert other.propose().code == "budget-exceeded"
    journal.close()
    return plan.digest


def test_the_budget_shows_spent_and_promised_by_composition(site: Any, settings: Path) -> None:
    digest = open_plan(settings)
    document = site("budget", "--settings", settings, "--json").document
    plan = make_plan()
    spent = epsilon([plan.mechanism(0), plan.mechanism(1)], 1e-5)
    assert document["epsilon"]["spent"] == pytest.approx(spent, abs=1e-5)
    assert document["epsilon"]["left"] == pytest.approx(3 - spent, abs=1e-5)
    assert document["epsilon"]["worst_case"] == pytest.approx(epsilon(plan.mechanisms(), 1e-5), abs=1e-5)
    (shown,) = document["plans"]
    assert (shown["digest"], shown["state"], shown["rounds_released"], shown["rounds_to_come"]) == (
        digest,
        "open",
        2,
        2,
    )
    assert [refusal["refusal"] for refusal in document["refusals"]] == ["budget-exceeded"]
    table = site("budget", "--settings", settings)
    assert table.code == 0
    for part in ("first", digest[:12], "open", "2 of 4", f"{spent:.4g}", "refused", "replaced", "secure sum"):
        assert part in table.out
    otherwise = document["spent_otherwise"]
    assert spent < otherwise["patient_at_sites"]["2"] < otherwise["patient_at_sites"]["3"]
    assert otherwise["patient_at_sites"]["2"] < otherwise["patient_at_sites_in_one_sum"]["2"]
    assert spent < otherwise["replace_one"]


def test_what_can_still_be_trained_fits_on_top_of_what_is_promised(site: Any, settings: Path) -> None:
    open_plan(settings)
    asked = ("--patients", "2000", "--rounds", "4", "--batch", "100", "--settings", settings)
    document = site("afford", *asked, "--json").document
    (offer,) = document["offers"]
    assert (offer["rounds"], offer["batch"], offer["selection_rate"]) == (4, 100, "0.05")
    step = PoissonGaussian(
        noise_multiplier=Decimal(offer["noise_multiplier"]),
        clip_norm=Decimal(1),
        selection_rate=Decimal("0.05"),
        steps=20,
    )
    promised = make_plan().mechanisms()
    assert document["committed"] == pytest.approx(epsilon(promised, 1e-5))
    assert offer["epsilon_after"] == pytest.approx(epsilon([*promised, *[step] * 4], 1e-5))
    assert 2.8 < offer["epsilon_after"] <= 3
    table = site("afford", *asked)
    assert table.code == 0
    for part in (offer["noise_multiplier"], "batch 100", "rate 0.05", document["one_sum_noise_multiplier"]):
        assert part in table.out
    assert site("afford", *asked, "--batch", "2001", "--json").document["error"]["code"] == "plan"


def test_a_site_that_has_trained_nothing_has_nothing_to_show(site: Any, settings: Path) -> None:
    assert site("conformance", "--settings", settings, "--json").document["plans"] == []
    assert "trained no round" in site("conformance", "--settings", settings).out
    assert site("conformance", "abc", "--settings", settings).code == 1


def test_the_steward_sees_what_each_training_really_did(site: Any, settings: Path) -> None:
    folder, plan = ConformanceFolder(SiteSettings.load(settings).conformance_folder), make_plan()
    folder.conclude(plan, 0, watched(seed=0))
    done = site("conformance", "--settings", settings, "--json")
    assert done.code == 0
    ((shown,),) = (done.document["plans"],)
    assert (shown["name"], shown["digest"], shown["passed"]) == ("first", plan.digest, True)
    variance = shown["rounds"][0]["checks"][0]
    assert variance["name"] == "noise variance / the plan's"
    assert abs(variance["deviation"]) < 5
    assert 0 < variance["probability"] <= 1
    with pytest.raises(NotConforming):
        folder.conclude(plan, 1, watched(0.5, seed=1))
    failed = site("conformance", plan.digest[:8], "--settings", settings, "--json")
    assert failed.code == 1
    assert [each["passed"] for each in failed.document["plans"][0]["rounds"]] == [True, False]
    table = site("conformance", "--settings", settings)
    assert table.code == 1
    for part in ("DOES NOT CONFORM", "yes", "NO", "0.25", "-37.", "noise variance"):
        assert part in " ".join(table.out.split())


def test_withdrawing_frees_what_was_promised_and_keeps_what_was_spent(site: Any, settings: Path) -> None:
    digest = open_plan(settings)
    before = site("budget", "--settings", settings, "--json").document["epsilon"]
    assert site("withdraw", "ffff", "--settings", settings).code == 1
    assert site("withdraw", digest[:12], "--settings", settings, "--json").document["plan"] == digest
    after = site("budget", "--settings", settings, "--json").document["epsilon"]
    assert after["spent"] == before["spent"] == after["worst_case"] < before["worst_case"]


def test_pause_and_resume(site: Any, settings: Path) -> None:
    assert site("pause", "--settings", settings, "--json").document == {"name": "north", "paused": True}
    assert site("budget", "--settings", settings, "--json").document["paused"] is True
    assert "taking part" in site("resume", "--settings", settings).out
    assert not SiteSettings.load(settings).pause_file.exists()


@pytest.mark.parametrize("command", ["budget", "pause", "resume", "vault", "gateway", "run"])
def test_every_command_explains_missing_settings(site: Any, tmp_path: Path, command: str) -> None:
    done = site(command, "--settings", tmp_path / "site.toml")
    assert (done.code, done.out) == (1, "")
    assert "synclave-site init" in done.err
    assert "Traceback" not in done.err
    assert site(command, "--settings", tmp_path / "site.toml", "--json").document["error"]["code"] == "configuration"


@pytest.mark.parametrize("command", ["gateway", "run"])
def test_a_gateway_needs_an_address(site: Any, settings: Path, command: str) -> None:
    done = site(command, "--settings", settings)
    assert done.code == 1
    assert "[gateway]" in done.err


def test_a_wrong_command_line_is_exit_2(site: Any) -> None:
    assert site("budget", "--nonsense").code == 2


def test_run_starts_vault_and_gateway_and_leaves_nothing_behind(hospital: Path) -> None:
    arguments = init_arguments(
        hospital,
        superlink="127.0.0.1:9",
        socket=hospital / "v.sock",
        **{"root-certificate": hospital / "ca.pem"},
    )
    command = [sys.executable, "-m", "synclave_client.cli"]
    subprocess.run([*command, *map(str, arguments)], check=True, capture_output=True)
    settings = hospital / "site" / "site.toml"
    log = hospital / "site" / "gateway" / "logs" / "vault.log"
    process = subprocess.Popen(
        [*command, "run", "--settings", str(settings), "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        _wait_for(log, process)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert json.loads(out) == {"name": "north", "stopped": True}
    assert not (hospital / "v.sock").exists()


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while not log.exists() or "ready on" not in log.read_text():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.1)
