"""Why influence guidance helps or not: ``python -m bench.series.guidance`` (20 minutes of one core a seed; it resumes).

One small generator a seed, without noise, and clinical models that are logistic regressions. The questions, in
order: does the influence vector say anything where it is taken; does a synthetic patient's score by it tell how much it
teaches; do guided patients teach more; and what does guidance cost in time. What is taught is measured on the held-out
patients, by models that guidance does not know. Each cell is kept in ``.peers/results/series-guidance`` (ignored by
git). Prints Markdown and writes
bench/results/series-guidance.json and .md, and docs/images/guidance.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.series.ablation import (
    ARMS,
    DRAWN,
    KEPT,
    MODELS,
    POOL,
    Seed,
    at_random,
    by_score,
    guided,
    of_real_patients,
    pace,
    where_taken,
)
from bench.series.ablation_report import draw_picture, tables
from bench.series.fits import SeriesTask
from bench.series.folder import load_folder

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
PICTURE: Final = ROOT / "docs" / "images" / "guidance.png"


def cells_of() -> list[tuple[str, str, Callable[[Seed], dict[str, Any]]]]:
    """(question, row, how it is answered) of every cell, the most telling ones first."""
    found: list[tuple[str, str, Callable[[Seed], dict[str, Any]]]] = [
        ("where", name, lambda seed, name=name: where_taken(seed, name))  # type: ignore[misc]
        for name in MODELS
    ]
    found.append(("arm", "as many real patients", of_real_patients))
    found += [
        ("arm", arm.title, lambda seed, arm=arm: guided(seed, arm))  # type: ignore[misc]
        for arm in ARMS.values()
    ]
    found += [
        ("score", "chance", at_random),
        ("score", "gradient", lambda seed: by_score(seed, curvature=False)),
        ("score", "step", lambda seed: by_score(seed, curvature=True)),
    ]
    found += [
        ("pace", "couplings alone", lambda seed: pace(seed, 0)),
        ("pace", "transformer of width 64", lambda seed: pace(seed, 64)),
    ]
    return found


def file_of(seed: int, question: str, row: str) -> str:
    """Name of a kept cell."""
    return f"{seed}-{question}-{row.replace(' ', '-').replace(',', '')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "sepsis", help="a folder like examples/sepsis")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget-s", type=float, default=math.inf, help="begin nothing new after so many seconds")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    data = load_folder(arguments.data)
    held_out = data.held_out
    KEPT.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"where": {}, "score": {}, "arm": {}, "pace": {}}
    seeds = {
        number: Seed(SeriesTask(sites=data.sites, schema=data.schema, epsilon=None, seed=number), held_out)
        for number in arguments.seeds
    }
    for question, row, answer in cells_of():
        cells = []
        for number, seed in seeds.items():
            path = KEPT / f"{file_of(number, question, row)}.json"
            if not path.exists() and time.perf_counter() - begun < arguments.budget_s:
                path.write_text(json.dumps(answer(seed)), encoding="utf-8")
                print(path.name, path.read_text(encoding="utf-8"), flush=True)
            if path.exists():
                cells.append(json.loads(path.read_text(encoding="utf-8")))
        if len(cells) == len(seeds):  # seed by seed rows are compared
            found[question][row] = cells
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    patients = ", ".join(f"{name} {len(dataset)}" for name, dataset in data.sites.items())
    text = [
        f"Machine: {machine}; data {data.name}: {patients}; {len(held_out)} held out; no noise; pool of"
        f" {POOL} synthetic patients, {DRAWN} of each guidance; mean ± standard deviation over"
        f" seeds {', '.join(map(str, arguments.seeds))}.",
        "",
        *tables(found),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "series-guidance.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (RESULTS / "series-guidance.json").write_text(
        json.dumps({"machine": machine, "found": found}, indent=1) + "\n", encoding="utf-8"
    )
    draw_picture(found, PICTURE)
    print("\n".join(text))


if __name__ == "__main__":
    main()
