"""Quality and time of the demo over several runs: ``python bench/demo.py`` (about 3 minutes a run on 2 cores).

Each run is a whole ``synclave demo``: the hospitals' noise is fresh every time (it has no seed), the seed is that of
sampling and evaluation. Prints a Markdown table and writes bench/results/demo.json and demo.md, which
docs/benchmarks.md quotes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def run(epsilon: str, seed: int) -> dict[str, Any]:
    """One demo; its JSON document."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "synclave_server.cli", "demo", "--json"]
        command += ["--out", f"{folder}/demo", "--epsilon", epsilon, "--seed", str(seed)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epsilon", nargs="+", default=["3"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {
        epsilon: [run(epsilon, seed) for seed in arguments.seeds] for epsilon in arguments.epsilon
    }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"Machine: {machine}. Seeds {', '.join(map(str, arguments.seeds))}; mean ± standard deviation over runs.",
        "",
        "| epsilon | measure | synthetic | ceiling (other real patients) | floor (independent columns) |",
        "|---|---|---|---|---|",
    ]
    for epsilon, runs in results.items():
        for key, measure in runs[0]["measures"].items():
            columns = [spread([r["measures"][key][part] for r in runs]) for part in ("value", "ceiling", "floor")]
            lines.append(f"| {epsilon} | {measure['title']} | {' | '.join(columns)} |")
        lines.append(f"| {epsilon} | seconds for the whole demo | {spread([r['seconds'] for r in runs])} | | |")
    RESULTS.mkdir(exist_ok=True)
    kept = {
        epsilon: [{key: r[key] for key in ("measures", "sites", "seconds", "patients")} for r in runs]
        for epsilon, runs in results.items()
    }
    (RESULTS / "demo.json").write_text(
        json.dumps({"machine": machine, "runs": kept}, indent=2) + "\n", encoding="utf-8"
    )
    (RESULTS / "demo.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
