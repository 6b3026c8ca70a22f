"""Do synthetic patients help beside real ones? ``python -m bench.series.augment`` (an hour on 2 cores; it resumes).

One generator a seed, trained on the patients of all hospitals, and from it patients of three mixes of labels. They are
added to the real training patients of all hospitals, and of a small part of one; ``gain_curves`` of ``synclave
augment`` measures what classifiers gain on held-out patients of the same hospitals. Each fit and each cell is kept in
``.peers/results/series-augment`` (ignored by git). Prints Markdown and writes
bench/results/series-augment.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.codes.environments import ENVIRONMENTS
from bench.series.drawing import Drawing, patients_of
from bench.series.fits import DEEP, Generator, SeriesTask, fit_generator
from bench.series.folder import SeriesFolder, load_folder
from bench.series.report import spread
from synclave_server.augmentation.gains import Addition, gain_curves
from synclave_server.augmentation.mixture import ALPHAS, added_counts, entering, rarest
from synclave_server.evaluation.series.classifiers import QUICK_OF_SERIES, series_classifiers
from synclave_server.evaluation.series.courses import courses
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.plan import SeriesSpec

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
KEPT: Final = ENVIRONMENTS / "results" / "series-augment"
FEW: Final = 500
"""Real patients of a small hospital."""


def generator_of(task: SeriesTask, path: Path) -> Generator:
    """The task's generator, kept in ``path``."""
    if not path.exists():
        fitted = fit_generator(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            spec=fitted.spec.model_dump_json(),
            parameters=fitted.parameters,
            anchor=fitted.anchor.to_vector(),
            shares=fitted.label_shares,
        )
    with np.load(path) as stored:
        return Generator(
            spec=SeriesSpec.model_validate_json(str(stored["spec"])),
            parameters=stored["parameters"],
            anchor=SeriesAnchor.from_vector(stored["anchor"], task.layout),
            label_shares=stored["shares"],
            mechanisms=(),
        )


def mixes(labels: NDArray[np.int64], values: int) -> dict[str, NDArray[np.float64]]:
    """Shares of the added patients by label value [L], by name."""
    return {
        "rarest": np.eye(values)[rarest(labels, values)],
        "even": np.full(values, 1 / values),
        "natural": np.bincount(labels, minlength=values) / len(labels),
    }


def measured(task: SeriesTask, generator: Generator, real: SeriesDataset, held_out: SeriesDataset) -> dict[str, Any]:
    """Curves of each mix; one draw, with the seed of the task."""
    values = task.schema.label.values
    every = {name: added_counts(ALPHAS, len(real), shares) for name, shares in mixes(real.labels, len(values)).items()}
    # The most that any mix asks for is drawn once; each takes the first patients of every label.
    most = np.max([counts[-1] for counts in every.values()], axis=0)
    drawing = Drawing.of(task, generator, int(most.sum()), counts=most.tolist())
    pool = courses(patients_of(task, drawing.rows(), drawing.labels))
    found = {}
    for name, counts in every.items():
        rows = np.sort(np.concatenate([np.flatnonzero(pool.labels == v)[: counts[-1, v]] for v in range(len(values))]))
        chosen = pool.take(rows)
        curves = gain_curves(
            courses(real),
            courses(held_out),
            [Addition(patients=chosen, entering=entering(chosen.labels, counts))],
            ALPHAS,
            values,
            task.seed,
            lambda _: None,
            series_classifiers,
            QUICK_OF_SERIES,
        )
        found[name] = [curve.to_json() for curve in curves]
    return {"real": np.bincount(real.labels, minlength=len(values)).tolist(), "mixes": found}


def settings(data: SeriesFolder, seed: int) -> dict[str, tuple[SeriesDataset, SeriesDataset]]:
    """Real training and held-out patients by name: of all hospitals, and a few of the first."""
    first = sorted(data.sites)[0]
    few = np.sort(np.random.default_rng([seed, 17]).permutation(len(data.sites[first]))[:FEW])
    return {
        "all hospitals": (data.train, data.held_out),
        f"{FEW} of {first}": (data.sites[first].select(few), data.held_out_sites[first]),
    }


def readings(cells: list[dict[str, Any]], mix: str, model: int, kind: str, alpha: int, measure: str) -> list[float]:
    """One number of every seed."""
    return [float(cell["mixes"][mix][model][kind][alpha]["measures"][measure]["mean"]) for cell in cells]


ADDED: Final = {
    ("rarest", "synthetic"): "synthetic, rarest label",
    ("even", "synthetic"): "synthetic, labels even",
    ("natural", "synthetic"): "synthetic, labels as they are",
    ("rarest", "repeated"): "real ones again, rarest label",
    ("even", "repeated"): "real ones again, labels even",
    ("natural", "repeated"): "real ones again, labels as they are",
}
"""Mix and kind of added patients, with their names in the tables."""


def tables(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """AUPRC by alpha, then everything at the largest one; gains are means over seeds of differences within a seed."""
    lines = [
        f"| real patients (with the label) | classifier | added | alpha 0 | {' | '.join(f'{a:g}' for a in ALPHAS)} |",
        f"|---|---|---|{'---|' * (len(ALPHAS) + 1)}",
    ]
    after = [
        "| real patients | classifier | added at alpha 1 | AUROC | gain in AUPRC | in AUROC | Brier score"
        " | calibration error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, of_setting in cells.items():
        total = sum(of_setting[0]["real"])
        who = f"{name}: {total} ({statistics.mean(min(cell['real']) for cell in of_setting):.0f})"
        for place, key in enumerate(QUICK_OF_SERIES):
            for (mix, kind), what in ADDED.items():
                at = [spread(readings(of_setting, mix, place, kind, a, "auprc")) for a in range(len(ALPHAS) + 1)]
                lines.append(f"| {who} | {key} | {what} | {' | '.join(at)} |")
            rows = [
                ("natural", "synthetic", 0, "nothing"),
                *((*pair, len(ALPHAS), what) for pair, what in ADDED.items()),
            ]
            for mix, kind, alpha, what in rows:
                found = {
                    m: readings(of_setting, mix, place, kind, alpha, m) for m in ("auroc", "auprc", "brier", "ece")
                }
                gains = ["-", "-"]
                if alpha:
                    for position, measure in enumerate(("auprc", "auroc")):
                        alone = readings(of_setting, mix, place, kind, 0, measure)
                        gains[position] = spread(
                            [a - b for a, b in zip(found[measure], alone, strict=True)], signed=True
                        )
                after.append(
                    f"| {name} | {key} | {what} | {spread(found['auroc'])} | {' | '.join(gains)}"
                    f" | {spread(found['brier'])} | {spread(found['ece'])} |"
                )
    return [*lines, "", *after]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "sepsis", help="a folder like examples/sepsis")
    parser.add_argument("--epsilon", type=float, default=math.inf, help="of the generator; inf: no noise")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    data = load_folder(arguments.data)
    named = "infinity" if math.isinf(arguments.epsilon) else f"{arguments.epsilon:g}"
    cells: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        epsilon = None if math.isinf(arguments.epsilon) else arguments.epsilon
        task = SeriesTask(sites=data.sites, schema=data.schema, epsilon=epsilon, seed=seed)
        for name, (real, others) in settings(data, seed).items():
            path = KEPT / f"{data.name}-{named}-{seed}-{name.replace(' ', '-')}.json"
            if not path.exists():
                generator = generator_of(task, KEPT / f"{data.name}-{named}-{seed}.npz")
                cell = measured(task, generator, real, others)
                path.write_text(json.dumps(cell), encoding="utf-8")
                print(path.name, flush=True)
            cells.setdefault(name, []).append(json.loads(path.read_text(encoding="utf-8")))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    patients = ", ".join(f"{name} {len(dataset)}" for name, dataset in data.sites.items())
    text = [
        f"Machine: {machine}; data {data.name}: {patients}; tested on"
        f" {len(data.held_out)} held-out patients, or the {len(data.held_out_sites[min(data.sites)])} of the one"
        f" hospital; generator at epsilon {named} (width {DEEP.width}); mean ± standard deviation over"
        f" seeds ({', '.join(map(str, arguments.seeds))}), each with a generator, a draw and classifiers of its own.",
        "",
        *tables(cells),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "series-augment.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (RESULTS / "series-augment.json").write_text(
        json.dumps({"machine": machine, "epsilon": named, "cells": cells}, indent=1) + "\n", encoding="utf-8"
    )
    print("\n".join(text))


if __name__ == "__main__":
    main()
