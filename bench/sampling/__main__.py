"""Quality against network calls, for every sampler: ``python -m bench.sampling`` (an hour on 2 cores).

One model for all: the tower that ``bench.codes`` trains without noise on ``examples/diabetes``, once for continuous and
once for masked corruption, three seeds each; the truth is ancestral sampling in 1,000 steps. Beside them the Gaussian
reference: an EHRDiff-style EDM network of the same data, by Heun's method. Prints a Markdown table, and writes
bench/results/sampling.json and sampling.md and docs/images/sampling.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.codes.denoiser import TOWER, drawer, trained_tower
from bench.codes.edm import fit_edm
from bench.codes.measures import Judge, table_of
from bench.codes.tables import load_table
from synclave_shared.diffusion.discrete import REVEALERS
from synclave_shared.diffusion.samplers import CATALOGUE, evaluations

RESULTS = Path(__file__).parents[1] / "results"
PLOT = Path(__file__).parents[2] / "docs" / "images" / "sampling.png"
KEPT = Path(__file__).parents[2] / ".peers" / "results" / "sampling"

SHOWN = {
    "log_r2": "log R²",
    "rare_mass": "rare codes, synthetic / real",
    "correlation": "correlations, Pearson",
    "discriminator": "discriminator AUROC",
    "tstr_boosting": "TSTR AUROC, boosting",
}
STEPS = {"heun": [3, 5, 10, 32], "ancestral": [10, 50, 200, 1000], "parallel": [10], "anderson": [10]}
USUAL = [5, 10, 20, 50]
MASKED = {"masked": [5, 10, 20, 100], "masked-cosine": [10]}
OTHERS = [10]

PACE = "patients_per_cpu_s"
PACED = 2_000
"""Patients of a pace that is taken by itself."""


def variants() -> list[tuple[str, int, bool]]:
    """(sampler, steps, calibrated) of every line."""
    found = [(name, steps, True) for name in CATALOGUE for steps in STEPS.get(name, USUAL)]
    found += [("unipc", 10, False), ("ancestral", 1000, False)]
    return found + [(name, steps, True) for name in REVEALERS for steps in MASKED.get(name, OTHERS)]


def file_of(variant: tuple[str, int, bool], seed: int) -> str:
    """Name of a kept cell."""
    name, steps, calibrated = variant
    return f"{name}-{steps}-{'calibrated' if calibrated else 'plain'}-{seed}"


def measured(variant: tuple[str, int, bool], seed: int, judge: Judge, table: Any, in_time: bool) -> dict[str, Any]:
    """One cell, kept on disk; what it lacks is measured ``in_time`` only."""
    name, steps, calibrated = variant
    path = KEPT / f"{file_of(variant, seed)}.json"
    cell = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if PACE not in cell and in_time:
        spec = TOWER.model_copy(update={"corruption": "masked" if name in REVEALERS else "gaussian"})
        model, anchor = trained_tower(table.train, table.schema, spec, seed)
        draw = drawer(spec, table.schema, model, anchor, sampler=name, steps=steps, calibrated=calibrated)
        draw(1, seed)  # the trial that calibrates is not part of the pace
        # Where the measures are there already, only the pace is missing.
        patients = PACED if "measures" in cell else judge.patients
        begun = time.process_time()
        synthetic = draw(patients, seed)
        pace = patients / (time.process_time() - begun)
        cell = {**cell, "measures": cell.get("measures") or judge.score(table_of(synthetic)), PACE: pace}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cell), encoding="utf-8")
        print(path.name, json.dumps(cell), flush=True)
    return cell


def calls_of(variant: tuple[str, int, bool]) -> int:
    """Calls of the network for one patient."""
    name, steps, _ = variant
    return steps if name in REVEALERS else evaluations(name, steps)


def spread(values: list[float], digits: int = 3) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def line(title: str, calls: int | str, cells: list[dict[str, Any]]) -> str:
    """A line of the table."""
    columns = [spread([cell["measures"][key] for cell in cells]) for key in SHOWN]
    pace = [cell[PACE] for cell in cells if PACE in cell]
    return f"| {title} | {calls} | {' | '.join(columns)} | {spread(pace, 0) if pace else '-'} | {len(cells)} |"


def draw_plot(lines: list[tuple[str, int, list[dict[str, Any]]]], ceiling: dict[str, Any]) -> None:
    """Correlation and discriminator against calls."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("correlation", "discriminator"), strict=True):
        for name in dict.fromkeys(title for title, _, _ in lines):
            points = sorted(
                (calls, statistics.mean(cell["measures"][key] for cell in cells))
                for title, calls, cells in lines
                if title == name
            )
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=name)
        axes.axhline(ceiling[key], color="black", linewidth=0.8, linestyle="--", label="other real patients")
        most = max(calls for _, calls, _ in lines)
        ticks = [calls for calls in (5, 10, 20, 50, 100, 200, 500, 1000) if calls <= 1.5 * most]
        axes.set(xscale="log", xlabel="network calls", ylabel=SHOWN[key])
        axes.set_xticks(ticks, labels=[str(calls) for calls in ticks])
        axes.minorticks_off()
    figure.axes[1].legend(fontsize=6)
    figure.savefig(PLOT, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="samplers")
    parser.add_argument("--most-steps", type=int, default=10_000)
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="begin nothing new after so many seconds")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    table = load_table("diabetes")
    judges = {seed: Judge.of(table.train, table.test, table.schema, seed) for seed in arguments.seeds}
    kept: dict[tuple[str, int, bool], list[dict[str, Any]]] = {}
    for seed, judge in judges.items():
        for variant in sorted(variants(), key=lambda one: one[1]):
            name, steps, _ = variant
            if steps > arguments.most_steps or (arguments.only and name not in arguments.only):
                continue
            in_time = time.perf_counter() - begun < arguments.budget_s
            if in_time or (KEPT / f"{file_of(variant, seed)}.json").exists():
                kept.setdefault(variant, []).append(measured(variant, seed, judge, table, in_time))
    reference = []
    for seed, judge in judges.items():
        path = KEPT / f"edm-{seed}.json"
        if not path.exists() and not arguments.only and time.perf_counter() - begun < arguments.budget_s:
            draw = fit_edm(table.task(epsilon=None, delta=1e-5, seed=seed))
            started = time.process_time()
            synthetic = draw(judge.patients, seed)
            pace = judge.patients / (time.process_time() - started)
            path.write_text(json.dumps({"measures": judge.score(table_of(synthetic)), PACE: pace}))
        if path.exists():
            reference.append(json.loads(path.read_text(encoding="utf-8")))
    ceiling = [judge.score(judge.other) for judge in judges.values()]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    text = [
        f"Machine: {machine}; seeds {', '.join(map(str, arguments.seeds))} (last column: how many ran); mean ± standard"
        " deviation over seeds, each with a model of its own; no noise.",
        "",
        f"| sampler | calls | {' | '.join(SHOWN.values())} | patients / CPU s | runs |",
        f"|---|---|{'---|' * (len(SHOWN) + 2)}",
        line("other real patients", "", [{"measures": one} for one in ceiling]),
    ]
    lines = []
    for variant in sorted(kept, key=lambda one: (one[0] in REVEALERS, one[0], one[1])):
        title = variant[0] + ("" if variant[2] else ", uncalibrated")
        lines.append((title, calls_of(variant), kept[variant]))
        text.append(line(*lines[-1]))
    if reference:
        text.append(line("Gaussian EDM, Heun", 63, reference))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sampling.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (RESULTS / "sampling.json").write_text(
        json.dumps(
            {"machine": machine, "runs": [{"sampler": t, "calls": c, "cells": k} for t, c, k in lines]}, indent=1
        )
        + "\n",
        encoding="utf-8",
    )
    draw_plot(lines, ceiling[0])
    print("\n".join(text))


if __name__ == "__main__":
    main()
