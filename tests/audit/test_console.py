from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.audit.console import print_json, printable, run
from synclave_shared.errors import BudgetExceeded, DataError

app = typer.Typer(name="trial")


@app.command()
def fail() -> None:
    raise DataError(expected="[red]rows[/red]\nof numbers", found="a \x1b[2Jword", remedy="Correct it.")


@app.command()
def refuse(as_json: bool = typer.Option(False, "--json")) -> None:
    raise BudgetExceeded(found="epsilon 9", remedy="Plan less.")


@app.command()
def stop() -> None:
    raise KeyboardInterrupt


@app.command()
def leave(code: int) -> None:
    raise typer.Exit(code)


@app.command()
def incomplete(package: str) -> None:
    raise ModuleNotFoundError(f"No module named {package!r}", name=package)


@app.command()
def full() -> None:
    raise OSError(28, "No space left on device", "/data/out.parquet")


@app.command()
def defect() -> None:
    raise ZeroDivisionError


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as left:
        run(app, arguments)
    return left.value.code


def test_an_error_is_shown_as_it_is_and_on_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("fail") == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "Expected:   [red]rows[/red] of numbers",
        r"Found:      a \x1b[2Jword",
        "What to do: Correct it.",
    ]


def test_with_json_an_error_is_a_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("refuse", "--json") == 1
    output = capsys.readouterr()
    assert output.err == ""
    assert json.loads(output.out)["error"] == {
        "code": "refused",
        "expected": "a plan this site may accept (budget-exceeded)",
        "found": "epsilon 9",
        "remedy": "Plan less.",
    }


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("stop") == 130
    assert code_of("leave", "0") == 0
    assert code_of("leave", "7") == 7
    assert code_of("leave", "seven") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_defect_is_not_dressed_up_as_an_error_of_the_user() -> None:
    with pytest.raises(ZeroDivisionError):
        run(app, ["defect"])


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(
        "import typer\nfrom synclave_shared.audit.console import run\napp = typer.Typer(name='many')\n"
        "@app.command()\ndef lines() -> None:\n    for number in range(200_000): print(number)\nrun(app, [])\n"
    )
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' '{script}' | head -n 1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


@given(st.text())
def test_printable_text_is_one_line_without_control_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("plain text, ä–漢") == "plain text, ä–漢"


def test_json_output_is_ascii_and_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Zürich\udcff"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "Zürich\udcff"}
    with pytest.raises(ValueError, match="JSON"):
        print_json({"value": math.nan})


def test_a_missing_extra_is_explained_and_a_missing_part_of_ours_is_a_defect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code_of("incomplete", "torch") == 1
    assert "synclave[site]" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):
        code_of("incomplete", "synclave_shared.nothing")


def test_what_the_operating_system_refuses_is_explained_with_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("full") == 1
    shown = capsys.readouterr().err
    assert "/data/out.parquet: No space left on device" in shown
    assert "Traceback" not in shown
