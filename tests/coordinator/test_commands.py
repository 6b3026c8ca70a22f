"""The coordinator's commands as a person calls them: answers, refusals, and nothing left behind by a refusal."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from synclave_server.cli import app
from synclave_server.preparation import require_valid
from synclave_server.sample_view import label_counts
from synclave_shared.audit.console import run
from synclave_shared.errors import ConfigurationError, LedgerError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.verify import verify_ledger

HEART = Path(__file__).parents[2] / "examples" / "heart"
PLAN = """
name = "heart"
schema = "{schema}"
[privacy]
epsilon = 4
selection_rate = 0.2
[federation]
rounds = 1
steps_per_round = 2
[site_defaults]
nominal_patients = 200
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(schema=HEART / "schema.toml"), encoding="utf-8")
    return path


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        run(app, [str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def answer(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """The one JSON document that the command prints."""
    assert call(*arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def test_a_plan_is_costed_without_keys_and_signed_with_them(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = answer(capsys, "plan", plan)
    assert cost["epsilon_prv"] == pytest.approx(cost["epsilon"], rel=0.02)
    assert 3.8 <= cost["epsilon"] <= 4 < cost["epsilon_patient_at_sites"]["2"]
    home, out = tmp_path / "home", tmp_path / "run"
    refused = answer(capsys, "plan", plan, "--home", home, "--out", out, code=1)
    assert "synclave init" in refused["error"]["remedy"]
    assert not out.exists()
    key = answer(capsys, "init", "--home", home, "--name", "fed.example.org")
    assert Path(key["root_certificate"]).read_text(encoding="ascii").startswith("-----BEGIN CERTIFICATE")
    site = SigningKey.from_seed(b"s" * 32).public_text
    signed = answer(capsys, "plan", plan, "--home", home, "--out", out, "--site-key", f"north={site}")
    assert signed["epsilon"] == cost["epsilon"]
    assert {path.name for path in out.iterdir()} >= {"plan.json", "plan.sig", "schema.json"}
    wildcard = answer(capsys, "run", out, "--home", home, "--node-key", "north=ecdsa-x", code=1)
    assert "--name" in wildcard["error"]["expected"]
    missing = answer(capsys, "run", out, "--home", home, "--name", "x", "--node-key", "north=/nowhere", code=1)
    assert "public node key of north" in missing["error"]["expected"]


def test_alternatives_to_a_plan_cost_no_more_than_it_does(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost = answer(capsys, "plan", plan, "--alternatives")
    offers = {(offer["rounds"], offer["selection_rate"]): offer for offer in cost["alternatives"]}
    assert [rounds for rounds, _ in offers] == [1, 2] * 3  # of a plan of one round
    assert all(offer["epsilon"] <= cost["epsilon"] + 1e-4 for offer in offers.values())
    same = offers[cost["rounds"], cost["selection_rate"]]
    assert float(same["noise_multiplier"]) == pytest.approx(float(cost["noise_multiplier"]), rel=0.03, abs=0.01)
    assert call("plan", plan, "--alternatives") == 0
    shown = capsys.readouterr().out
    assert same["noise_multiplier"] in shown


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [("chol", "column chol"), (None, "nothing at")],
    ids=["a column is missing", "the folder is missing"],
)
def test_simulate_looks_at_the_data_before_anything_is_made(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str | None, complaint: str
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    if damage:
        shutil.copytree(HEART / "sites" / "budapest", data)
        table = data / "patients.csv"
        table.write_text(table.read_text(encoding="utf-8").replace(damage, "other", 1), encoding="utf-8")
    refused = answer(capsys, "simulate", plan, "--site", f"north={data}", "--out", out, code=1)
    assert "north" in refused["error"]["expected"]
    assert complaint in refused["error"]["found"]
    assert not out.exists()


def test_sites_may_be_listed_after_one_option(plan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused = answer(capsys, "simulate", plan, "--site", "A=/no/a", "A=/no/b", "--out", tmp_path / "out", code=1)
    assert "each name once" in refused["error"]["expected"]
    refused = answer(capsys, "simulate", plan, "--site", "A=/no/a", "B=/no/b", "--out", tmp_path / "out", code=1)
    assert "site A" in refused["error"]["expected"]


def test_a_command_line_that_cannot_be_understood_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    refused = answer(capsys, "sample", "--snapshot", "x", "--patients", "0", "--out", "y.parquet", code=2)
    assert "--patients" in refused["error"]["found"]


def test_a_run_whose_ledger_does_not_verify_is_not_called_finished(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    Ledger.create(ledger, "synclave/0123456789abcdef", SigningKey.from_seed(b"c" * 32))
    audit = verify_ledger(ledger)
    assert not audit.valid  # no coordinator has registered in it
    with pytest.raises(LedgerError, match=re.escape(audit.findings[0].explanation)):
        require_valid(audit, ledger)


def test_a_demo_never_writes_into_a_folder_with_something_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    refused = answer(capsys, "demo", "--out", tmp_path, code=1)
    assert "not empty" in refused["error"]["found"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("epsilon", ["0", "-1", "abc", "nan", "inf"])
def test_an_epsilon_is_a_number_above_zero(epsilon: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused = answer(capsys, "demo", f"--epsilon={epsilon}", "--out", tmp_path / "demo", code=1)
    assert "--epsilon" in refused["error"]["expected"]
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ([], None),
        (["sick=yes"], {"yes": 10}),
        (["sick=yes:3", "sick=no:7"], {"yes": 3, "no": 7}),
        (["sick=yes:3", "sick=no"], {"yes": 3, "no": 7}),
        (["sick=a:b"], {"a:b": 10}),
        (["sick=a:b:4", "sick=no"], {"a:b": 4, "no": 6}),
    ],
)
def test_labels_are_counted_as_written(options: list[str], counts: dict[str, int] | None) -> None:
    assert label_counts(options, "sick", ["no", "yes", "a:b"], 10) == counts


@pytest.mark.parametrize(
    "options",
    [
        ["yes"],
        ["ill=yes"],
        ["sick=maybe"],
        ["sick=yes:x"],
        ["sick=yes:-3"],
        ["sick=yes:3"],
        ["sick=yes:11", "sick=no"],
        ["sick=yes", "sick=no"],
        ["sick=yes", "sick=yes"],
        ["sick=yes:5", "sick=yes:5"],
    ],
)
def test_labels_that_cannot_be_meant_are_refused(options: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        label_counts(options, "sick", ["no", "yes"], 10)
