"""The documentation is a test target: what it names exists, and what exists is named."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from click import Group
from pydantic import BaseModel

from synclave_client.cli import app as site_app
from synclave_client.settings import SiteSettings
from synclave_server.cli import app as coordinator_app
from synclave_server.planning import PlanFile
from synclave_shared.audit.cli import app as audit_app
from synclave_shared.diffusion.discrete import REVEALERS
from synclave_shared.diffusion.samplers import SAMPLERS
from synclave_shared.errors import REFUSAL_CODES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(app: Any, program: str) -> list[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    return [f"{program} {name}" for name in group.commands]


@pytest.mark.parametrize(
    "command",
    commands(coordinator_app, "synclave") + commands(site_app, "synclave-site") + commands(audit_app, "synclave-audit"),
)
def test_every_command_is_documented(command: str) -> None:
    assert command in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    missing = []
    for app, program in ((coordinator_app, "synclave"), (site_app, "synclave-site"), (audit_app, "synclave-audit")):
        group = typer.main.get_command(app)
        assert isinstance(group, Group)
        for name, command in group.commands.items():
            section = text.partition(f"### `{program} {name}")[2].partition("\n### ")[0]
            missing += [
                f"{program} {name} {option}"
                for parameter in command.params
                for option in parameter.opts
                if option.startswith("--") and option != "--help" and option not in section
            ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not broken


def test_the_annotated_tree_of_the_readme_exists() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("```text\n")[2].partition("```")[0]
    stack: list[str] = []
    missing = []
    for line in tree.splitlines():
        match = re.match(r"( *)([\w./{},-]+)", line)
        if match is None:
            continue
        depth = len(match[1]) // 2
        stack = [*stack[:depth], match[2].rstrip("/")]
        if not (ROOT / "/".join(stack)).exists():
            missing.append("/".join(stack))
    assert tree.strip()
    assert not missing


def test_every_pitfall_is_held_by_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| *(high|medium|low) *\|", line)]
    assert len(rows) >= 20
    for row in rows:
        references = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert references, row
        for file, test in references:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def documented(model: type[BaseModel], text: str) -> list[str]:
    return [name for name, field in model.model_fields.items() if f"{field.alias or name}" not in text]


def test_every_key_of_a_plan_file_is_documented() -> None:
    text = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    models: list[type[BaseModel]] = [PlanFile]
    for name in ("privacy", "federation"):
        annotation = PlanFile.model_fields[name].annotation
        assert isinstance(annotation, type)
        models.append(annotation)
    assert not [key for model in models for key in documented(model, text)]


def test_every_site_setting_is_documented() -> None:
    assert not documented(SiteSettings, (ROOT / "deploy" / "README.md").read_text(encoding="utf-8"))


def test_figures_are_quoted_as_the_bench_printed_them() -> None:
    table = (ROOT / "bench" / "results" / "demo.md").read_text(encoding="utf-8")
    document = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert table in document
    for name in (
        "private_step",
        "codes",
        "sampling",
        "series",
        "series-sepsis-all",
        "backbones",
        "series-guidance",
        "series-augment",
        "ledger",
        "ledger-report",
        "gpu",
    ):
        figures = (ROOT / "bench" / "results" / f"{name}.md").read_text(encoding="utf-8").strip()
        assert figures in document, name
    readme = [
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| 3 |")
    ]
    assert readme
    assert set(readme) <= set(table.splitlines())


def test_the_time_of_a_verification_is_quoted_as_the_bench_measured_it() -> None:
    checked = json.loads((ROOT / "bench" / "results" / "ledger.json").read_text(encoding="utf-8"))["verify"]
    assert checked["entries"] >= 1_000_000
    assert f"{checked['cpu_s']:.1f} s of one core" in (ROOT / "docs" / "ledger-format.md").read_text(encoding="utf-8")


def test_what_the_conformance_audit_sees_is_quoted_as_the_bench_printed_it() -> None:
    figures = (ROOT / "bench" / "results" / "conformance.md").read_text(encoding="utf-8").strip()
    assert figures in (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")


def test_every_refusal_code_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert not [code for code in REFUSAL_CODES if f"`{code}`" not in text]


def test_the_makefile_has_what_the_readme_promises() -> None:
    promised = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert promised
    assert promised <= targets


def test_every_runtime_dependency_is_bounded_and_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in {item for group in groups for item in group if not item.startswith("synclave")}:
        assert re.search(r">=[\d.]+,<[\d.]+$", requirement), requirement
        assert re.split(r"[\[<>=]", requirement)[0].lower() in locked, requirement


def test_every_sampler_is_documented_in_the_order_of_its_list() -> None:
    text = (ROOT / "docs" / "codes.md").read_text(encoding="utf-8").partition("## Drawing patients")[2]
    named = re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)
    assert [name for name in named if name in SAMPLERS] == ["unipc", "flow", *list(SAMPLERS)[2:]]
    assert [name for name in named if name in REVEALERS] == list(REVEALERS)
