from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from synclave_shared.audit.cli import app
from synclave_shared.audit.console import run
from synclave_shared.ledger.checkpoint import Note, parse_note, sign_checkpoint
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.store import Ledger
from synclave_shared.privacy.accountant import epsilon
from tests.ledger.story import SITES, Story, files_of, key_of, make_plan

STORY = Story().whole()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "ledger"
    STORY.write(folder)
    return folder


@pytest.fixture
def broken(ledger: Path, tmp_path: Path) -> Path:
    STORY.write(tmp_path / "broken")
    path = next((tmp_path / "broken/tile/entries").rglob("25"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"noise_multiplier":"10"', b'"noise_multiplier":"90"', 1))
    assert path.read_bytes() != data
    return tmp_path / "broken"


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        run(app, arguments)
    output = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, output.out, output.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code, out, err = call(capsys, *arguments)
    assert err == ""
    return code, json.loads(out)


def test_a_valid_ledger(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    before = files_of(ledger)
    code, report = document(capsys, "verify", str(ledger), "--json")
    assert code == 0
    assert report["valid"] is True
    assert report["findings"] == []
    assert set(report["sites"]) == set(SITES)
    expected = epsilon(STORY.plan.mechanisms(), 1e-5)
    for site in report["sites"].values():
        assert site["epsilon"] == pytest.approx(expected, rel=1e-9)
        assert site["delta"] == 1e-5
        assert site["epsilon_all_datasets"] == site["epsilon"]
        assert set(site) == {
            "epsilon",
            "epsilon_rdp",
            "delta",
            "dataset",
            "budget_epsilon",
            "spends",
            "epsilon_all_datasets",
            "witnessed_size",
            "public_key",
            "datasets",
        }
    assert {name: site["public_key"] for name, site in report["sites"].items()} == {
        name: key_of(name).public_text for name in SITES
    }
    assert files_of(ledger) == before
    code, out, err = call(capsys, "verify", str(ledger))
    assert (code, err) == (0, "")
    assert out.startswith("VALID")
    assert all(key_of(site).public_text in out for site in SITES)
    assert "berlin" in out
    assert f"{expected:.4f}" in out


def test_one_changed_byte(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    code, report = document(capsys, "verify", str(broken), "--json")
    assert (code, report["valid"]) == (1, False)
    changed = next(finding for finding in report["findings"] if finding["code"] == "entry-altered")
    index = next(i for i, entry in enumerate(STORY.entries) if b'"noise_multiplier":"10"' in entry.to_bytes())
    assert changed["entry"] == index
    assert set(changed) == {"code", "severity", "explanation", "entry", "file"}
    code, out, err = call(capsys, "verify", str(broken))
    assert (code, err) == (1, "")
    assert out.startswith("NOT VALID")
    assert f"entry {index}:" in out


def test_the_coordinators_key_can_be_pinned(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    key = key_of(COORDINATOR).public_text
    code, out, _ = call(capsys, "verify", str(ledger), "--coordinator-key", key)
    assert code == 0
    assert key not in out
    _, out, _ = call(capsys, "verify", str(ledger))
    assert key in out
    code, _, _ = call(capsys, "verify", str(ledger), "--coordinator-key", key_of("stranger").public_text)
    assert code == 1


def findings(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, set[str]]:
    code, report = document(capsys, "verify", *arguments, "--json")
    return code, {finding["code"] for finding in report["findings"]}


def test_the_sites_keys_can_be_pinned(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    right = [part for site in SITES for part in ("--site-key", f"{site}={key_of(site).public_text}")]
    assert findings(capsys, str(ledger), *right) == (0, set())
    for wrong in (f"berlin={key_of('oslo').public_text}", f"paris={key_of('paris').public_text}", "oslo="):
        assert findings(capsys, str(ledger), "--site-key", wrong) == (1, {"site-key-unexpected"})
    for unreadable in ("berlin", "=x"):
        code, out, err = call(capsys, "verify", str(ledger), "--site-key", unreadable)
        assert (code, out) == (1, "")
        assert "NAME=KEY" in err


def test_a_checkpoint_that_a_site_kept_is_an_anchor(
    capsys: pytest.CaptureFixture[str], ledger: Path, tmp_path: Path
) -> None:
    def kept(name: str, story: Story) -> str:
        path = tmp_path / f"{name}.note"
        path.write_text(story.write(tmp_path / name, witnessed=False).checkpoint(), encoding="utf-8")
        return str(path)

    begun, longer, altered = Story().opening(), Story().whole(), Story().opening()
    longer.close(1)
    altered.entries.reverse()
    foreign = Story(make_plan(name="another")).opening()
    assert findings(capsys, str(ledger), "--seen", kept("begun", begun)) == (0, set())
    for name, story, code in (
        ("longer", longer, "history-truncated"),
        ("altered", altered, "history-rewritten"),
        ("foreign", foreign, "seen-foreign"),
    ):
        assert findings(capsys, str(ledger), "--seen", kept(name, story)) == (1, {code})
    (tmp_path / "none.note").write_bytes(b"\xff")
    for name in ("none.note", "absent.note"):
        code, out, err = call(capsys, "verify", str(ledger), "--seen", str(tmp_path / name))
        assert (code, out) == (1, "")
        assert "What to do:" in err


def test_a_note_signed_by_another_coordinator_is_foreign(
    capsys: pytest.CaptureFixture[str], ledger: Path, tmp_path: Path
) -> None:
    note = parse_note(Ledger.open(ledger).checkpoint())
    forged = Note(checkpoint=note.checkpoint, signatures=(sign_checkpoint(note.checkpoint, key_of("stranger")),))
    (tmp_path / "kept.note").write_text(forged.text, encoding="utf-8")
    assert findings(capsys, str(ledger), "--seen", str(tmp_path / "kept.note")) == (1, {"seen-foreign"})


def test_the_entries_are_shown(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    code, shown = document(capsys, "show", str(ledger), "--json")
    assert code == 0
    assert shown["size"] == len(shown["entries"]) == len(STORY.entries)
    assert shown["entries"][0] == json.loads(STORY.entries[0].to_bytes())
    code, out, _ = call(capsys, "show", str(ledger))
    assert code == 0
    assert out.count("spend-reserved") == 6


@pytest.mark.parametrize("command", ["verify", "show"])
def test_errors_are_three_lines_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    missing = str(tmp_path / "absent")
    code, out, err = call(capsys, command, missing)
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Expected", "Found", "What to do"]
    assert "Traceback" not in err
    code, report = document(capsys, command, missing, "--json")
    assert code == 1
    assert set(report) == {"error"}
    assert set(report["error"]) == {"code", "expected", "found", "remedy"}
    assert report["error"]["code"] == "ledger"


@pytest.mark.parametrize(
    "arguments", [["verify"], ["nonsense"], ["show", "a", "b"], ["verify", "--no-such-option", "a"], ["show"]]
)
def test_a_command_line_that_cannot_be_understood(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> None:
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [["--help"]]
    + [[name, "--help"] for name in ("verify", "show", "spend", "explain", "receipt", "compare", "report", "export")],
)
def test_help(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> None:
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert "Usage" in out


def test_what_others_wrote_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    STORY.write(tmp_path)
    (tmp_path / "red\x1b[31m\x9b").write_text("")
    (tmp_path / os.fsdecode(b"not-utf-8-\xff")).write_text("")
    for arguments in (["verify", str(tmp_path)], ["verify", str(tmp_path), "--json"]):
        code, out, err = call(capsys, *arguments)
        assert code == 0
        assert "not-utf-8" in out
        assert not {"\x1b", "\x9b"} & set(out + err)


BLOCKED = ("torch", "flwr", "opacus", "pyarrow", "grpc", "matplotlib", "jinja2", "sklearn", "safetensors")

ISOLATED = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError("not installed at an auditor's: " + name)

sys.meta_path.insert(0, Blocked())
try:
    import torch
except ImportError:
    pass
else:
    sys.exit("the block does not block")
from synclave_shared.audit.cli import main
main()
"""


COMMANDS = {
    "verify": [],
    "show": [],
    "spend": [],
    "explain": ["7"],
    "report": ["--out", "report"],
    "export": ["--out", "ledger.tar"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_works_where_torch_flwr_and_the_rest_are_not_installed(ledger: Path, tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ISOLATED, command, str(ledger), *COMMANDS[command], "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    if command == "verify":
        assert report["valid"]
        assert report["sites"]["oslo"]["epsilon"] > 0
    if command == "spend":
        (check,) = {json.dumps(account["accountants"]["not_checked"]) for account in report["accounts"]}
        assert "Opacus is not installed" in check


def test_help_does_not_wait_for_the_accountant(ledger: Path) -> None:
    script = (
        "import sys; from synclave_shared.audit.cli import app; import synclave_shared.ledger.witness\n"
        "print([name for name in ('dp_accounting', 'scipy', 'torch', 'flwr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
