"""``synclave-audit attack``: through the real private training, honest and broken."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from synclave_client.training.noise import SecretRandomness
from synclave_shared.audit import console
from synclave_shared.audit.cli import app
from synclave_shared.audit.commands import attack as attack_view

QUICK = ("attack", "--canaries", "200", "--patients", "20", "--noise-multiplier", "12", "--selection-rate", "0.5")


def attacked(*options: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*QUICK, "--steps", "12", "--seed", "1", "--json", *options])
    return result.exit_code, json.loads(result.stdout)


def test_an_honest_training_is_not_refuted_and_the_power_is_told() -> None:
    code, document = attacked()
    assert code == 0
    assert not document["refuted"]
    assert 0.3 < document["epsilon_upper_bound"] < 0.8
    assert document["epsilon_lower_bound"] < document["epsilon_upper_bound"]
    assert document["power"]["every_guess_right"] > 3
    assert [line["would_refute"] for line in document["power"]["best_attack"]] == [False, False, True]
    assert "a tenth of the noise" in document["reading"]
    assert "conformance audit" in document["reading"]


def test_a_training_without_noise_is_caught_by_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecretRandomness, "add_normal", lambda self, values, std: None)
    code, document = attacked()
    assert code == console.EXIT_ERROR
    assert document["refuted"]
    assert document["epsilon_lower_bound"] > 1.5 * document["epsilon_upper_bound"]
    assert "refuted" in document["reading"]


def test_the_bounds_are_told_in_words() -> None:
    result = CliRunner().invoke(app, [*QUICK, "--steps", "1", "--canaries", "50"])
    assert result.exit_code == 0
    assert "claimed by the accountant" in result.stdout
    assert "No contradiction, which proves little." in " ".join(result.stdout.split())


def test_an_attack_that_could_see_nothing_says_so() -> None:
    code, document = attacked("--canaries", "10", "--noise-multiplier", "0.5")
    assert code == 0
    assert "Nothing could have been seen" in document["reading"]


def test_without_the_sites_installation_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(_: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(attack_view.importlib, "import_module", absent)
    with pytest.raises(SystemExit) as left:
        console.run(app, ["attack", "--json"])
    assert left.value.code == console.EXIT_ERROR
    assert "synclave[site]" in json.loads(capsys.readouterr().out)["error"]["remedy"]


def test_the_auditors_command_does_not_load_torch() -> None:
    loaded = "import sys, synclave_shared.audit.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "options", [("--noise-multiplier", "much"), ("--selection-rate", "2"), ("--delta", "0"), ("--confidence", "1")]
)
def test_settings_that_mean_nothing_are_refused(options: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, [*QUICK, *options])
    assert result.exit_code != 0
    assert "expected" in str(result.exception)
