"""Generators of time series side by side: ``python -m bench.series`` (half an hour of a core a seed; it resumes).

Peers, and our generator with its patients drawn by label only, pushed by the clinical model as a classifier of the
label, or pushed by its influence vector, all from the same training patients and measured against the same held-out
ones, beside other real patients (ceiling) and independent channels (floor). Peers know no privacy: they stand with
``--epsilon inf``, where nobody has noise. Their time is limited to about what our generator's fit takes.

Each cell is kept in ``.peers/results/series`` (ignored by git) by data set, arm, epsilon and seed, so that a run that
was stopped, or limited by ``--budget-s``, goes on where it was; ``--again ARM`` measures an arm anew. Prints the
tables of all cells that are kept, whatever was asked for, and writes them to bench/results/series.json and series.md,
and the picture to docs/images/series.png.

Data sets beside the example's: ``python -m bench.series.data --source FOLDER --out FOLDER``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from bench.codes.environments import ENVIRONMENTS
from bench.machines import other_machines
from bench.series.arms import ARMS, OURS, Cohort, our_cohorts, peer_cohort
from bench.series.fits import DELTA, SeriesTask
from bench.series.folder import SeriesFolder, load_folder
from bench.series.measures import Judge
from bench.series.peers import PEERS
from bench.series.report import REAL, cell_name, draw_picture, kept_cells, markdown
from synclave_server.evaluation.series.courses import courses

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
PICTURE: Final = ROOT / "docs" / "images" / "series.png"
KEPT: Final = ENVIRONMENTS / "results" / "series"
LIMIT_S: Final = 100.0
"""CPU time of a peer's training: our generator's takes as long on examples/sepsis."""


def real_cell(judge: Judge, end: str) -> dict[str, Any]:
    """Ceiling or floor. The ceiling's patients are training patients, whose membership is no question."""
    table = judge.other if end == "ceiling" else judge.independent
    membership = {} if end == "ceiling" else {"membership": judge.membership(table)}
    return {"measures": judge.score(table) | membership}


def cohort_cell(judge: Judge, cohort: Cohort) -> dict[str, Any]:
    """What drawn patients score and cost."""
    table = courses(cohort.patients)
    return {
        "measures": judge.score(table) | {"membership": judge.membership(table)},
        "fit_s": cohort.fit_s,
        "patients_per_cpu_s": len(table) / cohort.draw_s,
        "steps": cohort.steps,
        "composed_epsilon": cohort.composed_epsilon,
    }


def measured(
    data: SeriesFolder, judge: Judge, arms: Sequence[str], epsilon: float | None, limit_s: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The cells of these arms as they get ready."""
    for arm in arms:
        if arm in REAL:
            yield arm, real_cell(judge, arm)
        elif arm in PEERS:
            yield arm, cohort_cell(judge, peer_cohort(arm, data, judge.patients, limit_s=limit_s, seed=judge.seed))
    if ours := [arm for arm in arms if arm in OURS]:
        task = SeriesTask(sites=data.sites, schema=data.schema, epsilon=epsilon, seed=judge.seed)
        for arm, cohort in our_cohorts(ours, task, judge.patients):
            yield arm, cohort_cell(judge, cohort)


def batches(arms: Iterable[str], epsilons: Iterable[float | None]) -> Iterator[tuple[list[str], float | None]]:
    """What is begun together: each of real patients and peers by itself, ours by epsilon, since they share a fit."""
    chosen = list(arms)
    yield from (([arm], None) for arm in REAL)
    for epsilon in epsilons:
        if epsilon is None:
            yield from (([arm], None) for arm in chosen if arm in PEERS)
        if ours := [arm for arm in chosen if arm in OURS]:
            yield ours, epsilon


def write_cell(path: Path, cell: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    print(f"{path.relative_to(KEPT)}: {json.dumps(cell)}", flush=True)


def publish() -> None:
    """Tables, figures and picture of all that is kept."""
    kept = {folder.name: kept_cells(folder) for folder in sorted(KEPT.glob("*/"))}
    tasks = {name: cells for name, cells in kept.items() if cells}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    text = [
        f"Machine: {machine}; delta {DELTA:g}; mean ± standard deviation over seeds (last column: how many)."
        + other_machines(run for cells in tasks.values() for runs in cells.values() for run in runs),
        "",
        *markdown(tasks),
    ]
    print("\n".join(text))
    if not tasks:
        return
    document = {
        name: [{"arm": arm, "epsilon": epsilon, "runs": runs} for (arm, epsilon), runs in cells.items()]
        for name, cells in tasks.items()
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "series.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (RESULTS / "series.json").write_text(
        json.dumps({"machine": machine, "tasks": document}, indent=1) + "\n", encoding="utf-8"
    )
    draw_picture(tasks, PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[ROOT / "examples" / "sepsis"], help="folders like examples/sepsis"
    )
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--epsilon", nargs="+", type=float, default=[math.inf], help="of each run; inf: no noise")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="CPU time to train a peer")
    parser.add_argument("--budget-s", type=float, default=math.inf, help="begin nothing new after so many seconds")
    parser.add_argument("--again", nargs="+", choices=ARMS, default=[], metavar="ARM", help="forget what is kept")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    torch.set_num_threads(1)  # CPU time of small networks is lost to threads that wait for each other
    epsilons = [None if math.isinf(epsilon) else epsilon for epsilon in arguments.epsilon]
    for folder in arguments.data:
        data: SeriesFolder | None = None
        # All arms with one seed first, so that a run cut short is a whole table of fewer seeds.
        for seed in arguments.seeds:
            judge: Judge | None = None
            for arms, epsilon in batches(arguments.arms, epsilons):
                paths = {arm: KEPT / folder.resolve().name / cell_name(arm, epsilon, seed) for arm in arms}
                for arm in set(arms) & set(arguments.again):
                    paths[arm].unlink(missing_ok=True)
                missing = [arm for arm, path in paths.items() if not path.exists()]
                if not missing or time.perf_counter() - begun > arguments.budget_s:
                    continue
                data = data or load_folder(folder)
                judge = judge or Judge.of(data, seed)
                for arm, cell in measured(data, judge, missing, epsilon, arguments.limit_s):
                    write_cell(paths[arm], {"data": data.facts, **cell})
    publish()


if __name__ == "__main__":
    main()
