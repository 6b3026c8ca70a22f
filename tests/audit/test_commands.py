"""The command lines beyond `verify` and `show`, as a person types them."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from synclave_shared.audit.cli import app
from synclave_shared.audit.console import run
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.receipt import make_receipt
from synclave_shared.ledger.store import Ledger
from synclave_shared.privacy.accountant import epsilon
from tests.audit.ledgers import HOSTILE, hostile, two_plans, written
from tests.ledger.story import START, Story, files_of, key_of, make_plan


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        run(app, arguments)
    output = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, output.out, output.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code, out, err = call(capsys, *arguments, "--json")
    assert err == ""
    return code, json.loads(out)


def test_a_spend_by_site_plan_and_round(capsys: pytest.CaptureFixture[str], two_plans_ledger: Path) -> None:
    code, shown = document(capsys, "spend", str(two_plans_ledger))
    assert code == 0
    berlin, oslo = shown["accounts"]
    assert (berlin["site"], oslo["site"]) == ("berlin", "oslo")
    assert [plan["name"] for plan in berlin["plans"]] == ["demo", "second"]
    assert berlin["entries"] == [{"ledger": 1, "entries": [point["entry"] for point in berlin["course"]]}]
    code, out, err = call(capsys, "spend", str(two_plans_ledger), "--site", "berlin", "--rounds")
    assert (code, err) == (0, "")
    assert f"berlin, data set admissions: epsilon {berlin['epsilon']:.4f} in this ledger, budget 4" in out
    assert "oslo" not in out
    assert out.count("\n│ ") >= len(berlin["course"])
    code, out, err = call(capsys, "spend", str(two_plans_ledger), "--site", "paris")
    assert (code, out) == (1, "")
    assert "berlin, oslo" in err


def test_a_broken_ledger_still_says_what_it_spent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    story = Story().opening()
    story.round(0)
    story.reserve("berlin", 0)
    written(story, tmp_path / "ledger")
    code, out, _ = call(capsys, "spend", str(tmp_path / "ledger"))
    assert code == 0
    assert "not valid" in out
    assert "berlin, data set admissions: epsilon" in out


def test_one_entry_in_plain_words(capsys: pytest.CaptureFixture[str], two_plans_ledger: Path) -> None:
    code, out, err = call(capsys, "explain", str(two_plans_ledger), "6")
    assert (code, err) == (0, "")
    for label in ("Who: Site berlin", "What: Charges the budget", "Plan: ", "For patients: ", "holds"):
        assert label in out
    code, shown = document(capsys, "explain", str(two_plans_ledger), "6")
    assert shown["kind"] == "spend-reserved"
    assert all(holds for _, holds in shown["rules"])
    code, out, err = call(capsys, "explain", str(two_plans_ledger), "999")
    assert (code, out) == (1, "")
    assert "an entry from 0 to" in err


def test_copies_are_compared(capsys: pytest.CaptureFixture[str], two_plans_ledger: Path, tmp_path: Path) -> None:
    short = two_plans()
    short.entries = short.entries[:9]
    written(short, tmp_path / "short")
    forked = two_plans()
    forked.entries = forked.entries[:8]
    forked.release("oslo", 0, b"another")
    written(forked, tmp_path / "forked")
    note = str(tmp_path / "short" / "checkpoint")
    assert call(capsys, "export", str(two_plans_ledger), "--out", str(tmp_path / "a.tar"))[0] == 0
    for second, relation, code in (
        (str(tmp_path / "a.tar"), "same", 0),
        (str(tmp_path / "short"), "first-extends", 0),
        (note, "first-extends", 0),
        (str(tmp_path / "forked"), "fork", 1),
    ):
        assert document(capsys, "compare", str(two_plans_ledger), second)[0] == code
        assert document(capsys, "compare", str(two_plans_ledger), second)[1]["relation"] == relation
    code, out, _ = call(capsys, "compare", str(two_plans_ledger), str(tmp_path / "forked"))
    assert code == 1
    assert "Entry 8 differs" in out
    assert "The coordinator signed both histories" in out
    code, out, _ = call(capsys, "compare", str(tmp_path / "short"), str(two_plans_ledger / "checkpoint"))
    assert code == 1
    assert out.startswith("TRUNCATED")


def test_a_receipt_is_checked_offline(
    capsys: pytest.CaptureFixture[str], two_plans_ledger: Path, tmp_path: Path
) -> None:
    ledger = Ledger.open(two_plans_ledger)
    key = key_of(COORDINATOR).public_text
    receipt = make_receipt(ledger.entry(6), 6, ledger.inclusion_proof(6), ledger.checkpoint(), key)
    path = tmp_path / "receipt.json"
    path.write_bytes(receipt.to_bytes())
    code, shown = document(capsys, "receipt", str(path))
    assert (code, shown["valid"], shown["index"], shown["entry"]["actor"]) == (0, True, 6, "berlin")
    code, out, _ = call(capsys, "receipt", str(path), "--coordinator-key", key)
    assert code == 0
    assert out.startswith("VALID receipt")
    assert "Compare with the key" not in out
    site_key = key_of("oslo").public_text
    code, out, _ = call(capsys, "receipt", str(path), "--site-key", site_key)
    assert code == 1
    assert "[site-key-unexpected]" in out
    path.write_bytes(receipt.to_bytes()[:-10])
    code, out, _ = call(capsys, "receipt", str(path))
    assert code == 1
    assert "[receipt-malformed]" in out
    code, out, err = call(capsys, "receipt", str(tmp_path / "absent"))
    assert (code, out) == (1, "")
    assert "Traceback" not in err


def test_a_report_is_written(capsys: pytest.CaptureFixture[str], two_plans_ledger: Path, tmp_path: Path) -> None:
    before = files_of(two_plans_ledger)
    out_folder = str(tmp_path / "report")
    key = key_of(COORDINATOR).public_text
    code, shown = document(capsys, "report", str(two_plans_ledger), "--out", out_folder, "--coordinator-key", key)
    assert (code, shown["valid"]) == (0, True)
    assert sorted(files_of(tmp_path / "report")) == ["index.html", "registry.json", "report.json"]
    assert json.loads((tmp_path / "report" / "report.json").read_text())["verdict"] == shown["verdict"]
    assert files_of(two_plans_ledger) == before
    code, out, err = call(capsys, "report", str(two_plans_ledger), "--out", out_folder)
    assert (code, out) == (1, "")
    assert "something in it" in err


def test_an_invalid_ledger_is_reported_and_is_still_invalid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    story = Story().opening()
    story.release("berlin", 0)
    written(story, tmp_path / "ledger")
    code, out, _ = call(capsys, "report", str(tmp_path / "ledger"), "--out", str(tmp_path / "report"))
    assert code == 1
    assert "must not be relied on" in out
    assert (tmp_path / "report" / "index.html").exists()


def test_every_view_reads_the_exported_file(
    capsys: pytest.CaptureFixture[str], two_plans_ledger: Path, tmp_path: Path
) -> None:
    tar = str(tmp_path / "ledger.tar")
    code, shown = document(capsys, "export", str(two_plans_ledger), "--out", tar, "--spends", str(tmp_path / "s.csv"))
    assert code == 0
    assert len(shown["sha256"]) == 64
    for arguments in (["verify"], ["show"], ["spend"]):
        assert document(capsys, *arguments, tar) == document(capsys, *arguments, str(two_plans_ledger))
    assert document(capsys, "explain", tar, "7") == document(capsys, "explain", str(two_plans_ledger), "7")
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["site"] for row in rows] == ["berlin"] * 5 + ["oslo"] * 3
    total = document(capsys, "spend", tar)[1]["accounts"][0]["epsilon"]
    assert float(rows[4]["epsilon"]) == pytest.approx(total, abs=1e-4)
    before = files_of(tmp_path)
    for out, spends in ((tar, "new.csv"), ("new.tar", "s.csv")):
        options = ["--out", str(tmp_path / out), "--spends", str(tmp_path / spends)]
        assert call(capsys, "export", str(two_plans_ledger), *options)[0] == 1
        assert files_of(tmp_path) == before


def test_names_steer_neither_a_terminal_nor_a_spreadsheet(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, name in enumerate((HOSTILE, "=cmd|' /C calc'!A0", "\x1b[31mred")):
        monkeypatch.setattr("tests.audit.ledgers.HOSTILE", name)
        folder = str(written(hostile(), tmp_path / str(place)))
        for arguments in (["spend", "--rounds"], ["explain"], ["verify"], ["show"]):
            index = ["6"] if arguments[0] == "explain" else []
            code, out, err = call(capsys, arguments[0], folder, *index, *arguments[1:])
            assert code == 0
            assert not {"\x1b", "\u202e"} & set(out + err)
        options = ["--out", str(tmp_path / f"{place}.tar"), "--spends", str(tmp_path / f"{place}.csv")]
        assert call(capsys, "export", folder, *options)[0] == 0
        lines = (tmp_path / f"{place}.csv").read_text(encoding="utf-8").splitlines()
        cells = [cell for row in csv.reader(lines) for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\x1b")]


def test_a_spend_beside_a_budget_is_said_to_be_of_one_ledger(
    capsys: pytest.CaptureFixture[str], two_plans_ledger: Path, tmp_path: Path
) -> None:
    for command in ("verify", "spend"):
        _, out, _ = call(capsys, command, str(two_plans_ledger))
        assert "Epsilon is of this ledger alone" in out
    _, out, _ = call(capsys, "report", str(two_plans_ledger), "--out", str(tmp_path / "report"))
    assert "more than its budget in this ledger" in out
    page = (tmp_path / "report" / "index.html").read_text()
    assert "left after this ledger" in page
    registry = json.loads((tmp_path / "report" / "registry.json").read_text())
    assert registry["accounting"]["scope"].startswith("this ledger alone")


@pytest.fixture(scope="module")
def two_ledgers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trainings of the same sites, the budgets of which the second spends more than is left."""
    folder = tmp_path_factory.mktemp("two-ledgers")
    plans = (make_plan(rounds=2), make_plan(rounds=1, name="second", noise="2"))
    limit = f"{epsilon([*plans[0].mechanisms(), *plans[1].mechanisms()], 1e-5) - 0.01:.4f}"
    first = written(Story(plans[0], limit).whole(), folder / "first")
    with mock.patch("tests.ledger.story.START", START + timedelta(days=9)):
        return first, written(Story(plans[1], limit).whole(), folder / "second")


def test_several_ledgers_are_composed(capsys: pytest.CaptureFixture[str], two_ledgers: tuple[Path, Path]) -> None:
    first, second = map(str, two_ledgers)
    before = files_of(two_ledgers[0].parent)
    total = epsilon([*make_plan(rounds=2).mechanisms(), *make_plan(rounds=1, noise="2").mechanisms()], 1e-5)
    assert call(capsys, "verify", first)[0] == call(capsys, "verify", second)[0] == 0
    code, checked = document(capsys, "verify", first, second)
    assert (code, checked["valid"]) == (1, False)
    assert [each["valid"] for each in checked["ledgers"]] == [True, True]
    assert [each["code"] for each in checked["findings_over_all"]] == ["budget-exceeded"] * 2
    assert [each["epsilon"] for each in checked["over_all"]] == [total] * 2
    assert [part["ledger"] for part in checked["over_all"][0]["entries"]] == [1, 2]
    code, shown = document(capsys, "spend", first, second)
    assert code == 0
    assert [account["epsilon"] for account in shown["accounts"]] == [total] * 2
    assert [plan["name"] for plan in shown["accounts"][0]["plans"]] == ["demo", "second"]
    assert shown["accounts"][0]["exceeded"]
    code, out, err = call(capsys, "spend", first, second, "--rounds")
    assert (code, err) == (0, "")
    assert f"berlin, data set admissions: epsilon {total:.4f} in these ledgers" in out
    assert "Epsilon is of these 2 ledgers alone" in out
    assert "budget-exceeded" in out
    code, out, err = call(capsys, "verify", first, second)
    assert (code, err) == (1, "")
    assert out.count("\nVALID") + out.startswith("VALID") == 2
    assert "NOT VALID 2 ledgers together" in out
    assert "Epsilon is of these 2 ledgers alone" in out
    assert files_of(two_ledgers[0].parent) == before


def test_a_copy_is_counted_once_and_named(
    capsys: pytest.CaptureFixture[str], two_ledgers: tuple[Path, Path], tmp_path: Path
) -> None:
    first, tar = str(two_ledgers[0]), str(tmp_path / "first.tar")
    assert call(capsys, "export", first, "--out", tar)[0] == 0
    for command in ("spend", "verify"):
        code, shown = document(capsys, command, first, tar)
        assert (code, shown["copies"]) == (0, [{"ledger": 2, "of": 1, "size": shown["ledgers"][0]["size"]}])
        code, out, _ = call(capsys, command, first, tar)
        assert code == 0
        assert "counted once" in out
    alone, twice = (document(capsys, "spend", *given)[1]["accounts"] for given in ([first], [first, tar]))
    assert [each["epsilon"] for each in alone] == [each["epsilon"] for each in twice]


def test_one_report_of_several_ledgers(
    capsys: pytest.CaptureFixture[str], two_ledgers: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    code, said, _ = call(capsys, "report", *map(str, two_ledgers), "--out", str(out))
    assert code == 1
    assert "These 2 ledgers must not be relied on: 2 things are not as they must be." in said
    numbers = json.loads((out / "report.json").read_text())
    assert [each["ledger"] for each in numbers["ledgers"]] == [1, 2]
    assert [finding["ledger"] for finding in numbers["findings"]] == [2, 2]
    assert {account["exceeded"] for account in numbers["accounts"]} == {True}
    page = (out / "index.html").read_text()
    for part in ("Privacy audit of 2 ledgers", "of ledger 2", "above its budget", "left after these 2 ledgers"):
        assert part in page
    registry = json.loads((out / "registry.json").read_text())
    assert len(registry["verification"]["ledgers"]) == 2
    assert registry["privacy"]["epsilon"] == max(account["epsilon"] for account in numbers["accounts"])
