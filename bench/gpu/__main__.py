"""What a GPU brings: ``python -m bench.gpu`` (about five minutes on one; ``--device cpu --quick`` tries it without).

Sections: patients of code tables a second and which share of the device's limits that is; the published sampler at
1,000 steps; private steps beside plain ones; a masked language model of BERT-base size, trained and drawn from; stays
with and without guidance. Each case is a process of its own. All of them prepare (import, build, compile) at the same
time, then measure one after another, each for at most ``--budget-s``; a case that fails or is late takes nobody else's
figures away. The tests that need a GPU run while the cases prepare.

Writes bench/results/gpu.json and gpu.md after every case, or into ``--out``. ``--merge FILE`` puts the sections of a
later gpu.json in the place of those that are there, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from bench.gpu.codes import CASES, Case
from bench.gpu.language import Language
from bench.gpu.networks import Networks
from bench.gpu.reference import Reference
from bench.gpu.report import markdown
from bench.gpu.series import Series
from bench.gpu.unmasking import Unmasking

RESULTS: Final = Path(__file__).parents[1] / "results"
TESTS: Final = ("tests/sampling", "tests/training/clipping")
GO: Final = "go"
"""What a prepared case is told when its turn has come."""


class Measured(Protocol):
    """Made, it is prepared."""

    def rows(self) -> Iterator[dict[str, Any]]: ...


SECTIONS: Final[dict[str, Callable[[torch.device, bool], Measured]]] = {
    **{name: partial(Case, **arguments) for name, arguments in CASES.items()},  # type: ignore[arg-type]
    "language": Language,
    "unmasking": Unmasking,
    "networks": Networks,
    "reference": Reference,
    "series": Series,
}
"""The most telling ones first."""


@dataclass
class Child:
    """The process of a section; its rows are lines of JSON in a file, so that none is lost if it is killed."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "bench.gpu", "--section", self.name, *sys.argv[1:]]
        with self.path(".rows").open("wb") as out, self.path(".log").open("wb") as log:
            # A group of its own: compilers that it starts end with it.
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=log, start_new_session=True
            )

    def path(self, kind: str) -> Path:
        return self.folder / f"{self.name}{kind}"

    def lines(self) -> list[Any]:
        text = self.path(".rows").read_text(encoding="utf-8", errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def prepared(self) -> bool:
        """Whether there is nothing left to wait for before its turn."""
        return self.process.poll() is not None or bool(self.lines())

    def measure(self, budget_s: float) -> dict[str, Any]:
        """Let it measure, and end it."""
        late = False
        try:
            if self.process.poll() is None:
                self.process.communicate(GO.encode() + b"\n", timeout=budget_s)
        except subprocess.TimeoutExpired:
            late = True
        except BrokenPipeError:
            pass
        self.end()
        rows = [line for line in self.lines() if "ready_s" not in line]
        found: dict[str, Any] = {"rows": rows}
        if late or self.process.returncode:
            log = self.path(".log").read_text(encoding="utf-8", errors="replace")
            found["failed"] = f"not within {budget_s:g} s" if late else (log.strip().splitlines() or ["died"])[-1]
        return found

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def child(name: str, device: torch.device, quick: bool) -> None:
    """Prepare, wait for the turn, measure; run in a process of its own."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    measured = SECTIONS[name](device, quick)
    print(json.dumps({"ready_s": time.perf_counter() - begun}), flush=True)
    if sys.stdin.readline().strip() == GO:
        for row in measured.rows():
            print(json.dumps(row), flush=True)


def machine_of(device: torch.device) -> dict[str, Any]:
    """What measured this."""
    found = {
        "device": "CPU, one thread",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        found |= {"device": torch.cuda.get_device_name(device), "driver": told, "cuda": torch.version.cuda}
    return found


def tests(folder: Path, where: Sequence[str]) -> subprocess.Popen[bytes]:
    """The tests that need a CUDA device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-o", "filterwarnings=", "-p", "no:cacheprovider"]
    if find_spec("xdist"):
        command += ["-n", "6"]
    with (folder / "tests.log").open("wb") as log:
        return subprocess.Popen([*command, *where], stdout=log, stderr=log, start_new_session=True)


def merged(document: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """A document with the sections of a later run; the report says which they are, and on what machine."""
    again = document.get("again", [])
    told = {"machine": later["machine"], "sections": list(later["sections"]), "tests": later.get("tests")}
    return {**document, "sections": {**document["sections"], **later["sections"]}, "again": [*again, told]}


def published(document: dict[str, Any], folder: Path) -> None:
    """Write the figures and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(markdown(document), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="everything small: to see that it runs")
    parser.add_argument("--budget-s", type=float, default=60.0, help="for the measuring of one case")
    parser.add_argument("--prepare-s", type=float, default=150.0, help="for preparing all of them")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="CASE")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="FOLDER", help="of the tests that need a GPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where gpu.json and gpu.md are written")
    parser.add_argument("--merge", type=Path, metavar="FILE")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.section:
        child(arguments.section, device, arguments.quick)
        return
    if arguments.merge:
        kept, later = (json.loads(path.read_text("utf-8")) for path in (RESULTS / "gpu.json", arguments.merge))
        published(merged(kept, later), RESULTS)
        return
    begun = time.perf_counter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no case outlives this process
    document: dict[str, Any] = {"machine": machine_of(device), "quick": arguments.quick, "seed": 0, "sections": {}}

    def tell(text: str) -> None:
        print(f"{time.perf_counter() - begun:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        tested = tests(Path(folder), arguments.tests) if device.type == "cuda" else None
        children = [Child(name, Path(folder)) for name in arguments.only]
        try:
            while time.perf_counter() - begun < arguments.prepare_s:
                if all(one.prepared() for one in children) and (tested is None or tested.poll() is not None):
                    break
                time.sleep(0.2)
            tell("prepared: " + ", ".join(f"{one.name} {one.lines()[:1]}" for one in children))
            if tested is not None:
                if tested.poll() is None:
                    os.killpg(tested.pid, signal.SIGKILL)
                log = (Path(folder) / "tests.log").read_text(encoding="utf-8", errors="replace")
                document["tests"] = {"exit": tested.wait(), "said": (log.strip().splitlines() or [""])[-1]}
                tell(log[-3000:])
            for one in children:
                document["sections"][one.name] = one.measure(arguments.budget_s)
                found = document["sections"][one.name]
                tell(f"{one.name}: {len(found['rows'])} rows{'; failed: ' if 'failed' in found else ''}"
                     f"{found.get('failed', '')}")  # fmt: skip
                if "failed" in found:
                    found["log"] = one.path(".log").read_text(encoding="utf-8", errors="replace")[-2000:]
                published(document, arguments.out)
        finally:
            for one in children:
                one.end()
            if tested is not None and tested.poll() is None:
                os.killpg(tested.pid, signal.SIGKILL)
    print(markdown(document))


if __name__ == "__main__":
    main()
