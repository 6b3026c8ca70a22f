"""Tables and picture of all cells that are kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from bench.machines import mixed
from bench.series.arms import ARMS
from bench.series.measures import MEASURES, MODELS

__all__ = ["REAL", "Line", "cell_name", "draw_picture", "kept_cells", "markdown", "spread"]

REAL: Final = {"ceiling": "other real patients (ceiling)", "floor": "independent channels (floor)"}
TITLES: Final = {**REAL, **ARMS}

Line = tuple[str, str]
"""Arm and epsilon, as in a cell's file name."""
Cells = Mapping[Line, Sequence[Mapping[str, Any]]]
"""The seeds of every line."""


def cell_name(arm: str, epsilon: float | None, seed: int) -> str:
    """Of its file."""
    return f"{arm}-{'infinity' if epsilon is None else f'{epsilon:g}'}-{seed}.json"


def kept_cells(folder: Path) -> dict[Line, list[dict[str, Any]]]:
    """Of one data set: real patients first, then private arms, then those without noise, peers before ours."""
    found: dict[Line, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        arm, epsilon, _ = path.stem.split("-")
        if arm in TITLES:
            found.setdefault((arm, epsilon), []).append(json.loads(path.read_text(encoding="utf-8")))
    return {line: found[line] for line in sorted(found, key=place)}


def place(line: Line) -> tuple[bool, float, int]:
    """Sorts lines: real patients, then private arms, then those without noise."""
    arm, epsilon = line
    return arm not in REAL, float(epsilon), list(TITLES).index(arm)


def spread(values: Iterable[float | None], digits: int = 3, *, signed: bool = False) -> str:
    """Mean, and the standard deviation over seeds if there are several."""
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    text = f"{statistics.mean(found):{'+' if signed else ''}.{digits}f}"
    return text if len(found) < 2 else f"{text} ± {statistics.stdev(found):.{digits}f}"


def utility(cell: Mapping[str, Any], area: str) -> float | None:
    """AUROC or AUPRC on held-out patients, mean of the downstream models."""
    values = [cell["measures"].get(f"tstr_{key}_{area}") for key in MODELS]
    return None if None in values else statistics.mean(values)


def titled(line: Line) -> str:
    arm, epsilon = line
    return TITLES[arm] if arm in REAL or epsilon == "infinity" else f"{TITLES[arm]}, epsilon {epsilon}"


def lines_of(tasks: Mapping[str, Cells]) -> list[Line]:
    """All lines of all tasks, in the order of one task's."""
    return sorted({line for cells in tasks.values() for line in cells}, key=place)


def markdown(tasks: Mapping[str, Cells]) -> list[str]:
    """A summary of all tasks, then a table of each."""
    text = [
        "AUROC / AUPRC on held-out patients, mean of the downstream models (logistic regression, boosting, recurrent"
        " network), mean over seeds:",
        "",
        f"| trained on | {' | '.join(tasks)} |",
        f"|---|{'---|' * len(tasks)}",
    ]
    for line in lines_of(tasks):
        columns = []
        for cells in tasks.values():
            areas = [spread(utility(cell, area) for cell in cells.get(line, ())) for area in ("auroc", "auprc")]
            columns.append("-" if areas[0] == "-" else " / ".join(area.partition(" ")[0] for area in areas))
        text.append(f"| {titled(line)} | {' | '.join(columns)} |")
    for name, cells in tasks.items():
        text += ["", *table(name, cells)]
    return text


def table(name: str, cells: Cells) -> list[str]:
    """All measures of one task."""
    facts = next(iter(cells.values()))[0]["data"]
    sites = ", ".join(f"{site} {patients}" for site, patients in facts["sites"].items())
    text = [
        f"Data `{name}`, {facts['label']}: {sites}; {facts['held_out']} held out, {facts['positive']} of them yes;"
        f" {facts['channels']} channels at {facts['steps']} steps.",
        "",
        f"| epsilon, all runs | trained on | {' | '.join(MEASURES.values())} | fit, CPU s | patients / CPU s | seeds |",
        f"|---|---|{'---|' * (len(MEASURES) + 3)}",
    ]
    for line, runs in cells.items():
        measures = [spread(run["measures"].get(key) for run in runs) for key in MEASURES]
        composed = spread(run.get("composed_epsilon") for run in runs)
        epsilon = "" if line[0] in REAL else line[1] if composed == "-" else composed
        steps = [run["steps"] for run in runs if run.get("steps") is not None]
        trained = f" ({statistics.mean(steps):.0f} steps)" if steps else ""
        fit_s = spread((run.get("fit_s") for run in runs), 0)
        pace = spread((run.get("patients_per_cpu_s") for run in runs), 0)
        title = f"{titled(line)}{trained}{mixed(runs)}"
        text.append(f"| {epsilon} | {title} | {' | '.join(measures)} | {fit_s} | {pace} | {len(runs)} |")
    return text


def draw_picture(tasks: Mapping[str, Cells], path: Path) -> None:
    """What synthetic patients teach, between floor and ceiling: a panel for each task and area, a dot for each seed."""
    lines = [line for line in lines_of(tasks) if line[0] not in REAL]
    figure = Figure(figsize=(3 + 2.2 * len(tasks), 1.6 + 0.5 * max(len(lines), 2)), layout="constrained")
    panels = figure.subplots(2, len(tasks), squeeze=False, sharey=True)
    heights = {line: len(lines) - number for number, line in enumerate(lines)}
    for row, area in zip(panels, ("auroc", "auprc"), strict=True):
        for axes, (name, cells) in zip(row, tasks.items(), strict=True):
            for line, runs in cells.items():
                values = [value for run in runs if (value := utility(run, area)) is not None]
                if not values:
                    continue
                if line[0] in REAL:
                    style = "-" if line[0] == "ceiling" else ":"
                    axes.axvline(statistics.mean(values), color="black", linewidth=0.8, linestyle=style)
                    continue
                colour = "tab:blue" if TITLES[line[0]].endswith("(ours)") else "tab:orange"
                axes.plot(values, [heights[line]] * len(values), "o", color=colour, markersize=3, alpha=0.5)
                axes.plot([statistics.mean(values)], [heights[line]], "|", color=colour, markersize=12)
            axes.set_xlabel(area.upper(), fontsize=7)
            axes.tick_params(labelsize=6)
            if area == "auroc":
                axes.set_title(name, fontsize=8)
        row[0].set_yticks(list(heights.values()), labels=[titled(line) for line in heights], fontsize=6)
        row[0].set_ylim(0.4, max(len(lines), 1) + 0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
