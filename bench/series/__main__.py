"""Arms of guidance side by side: ``python -m bench.series`` (two hours on 2 cores for everything; it resumes).

One generator a seed and epsilon, and from it the same patients by label only, pushed by the clinical model as a
classifier of the label, and pushed by its influence vector. The report of ``synclave evaluate`` measures all of them on
the same held-out patients, beside other real patients and independent channels. Each cell is kept in
``.peers/results/series`` (ignored by git). Prints Markdown and writes bench/results/series.json and series.md; with
``--data`` series-NAME.json and .md. A folder of nearly all patients: ``python examples/make_examples.py --source FOLDER
--only sepsis --sepsis-out /tmp/sepsis-all``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.codes.environments import ENVIRONMENTS
from bench.series.fits import DELTA, Generator, SeriesTask, fit_generator, fit_target
from synclave_server.evaluation.series.evaluate import evaluate_series
from synclave_server.sampling.labels import LabelAssignment
from synclave_server.sampling.request import SERIES_CORRUPTION, resolve_request
from synclave_server.sampling.series import SeriesGenerator
from synclave_server.sampling.series_rows import unpack_series
from synclave_server.sampling.series_target import SeriesTarget
from synclave_shared.data.modality import load_schema
from synclave_shared.data.series.dataset import SeriesDataset, together
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import recorded

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
KEPT: Final = ENVIRONMENTS / "results" / "series"

ARMS: Final = {
    "label": ("influence", Decimal(0)),
    "classifier": ("classifier", Decimal("0.1")),
    "influence": ("influence", Decimal("0.1")),
}
"""How a clinical model guides, and how far."""

SHOWN: Final = {
    "tstr_logistic_auroc": "TSTR AUROC, logistic",
    "tstr_logistic_auprc": "AUPRC",
    "tstr_boosting_auroc": "TSTR AUROC, boosting",
    "tstr_boosting_auprc": "AUPRC",
    "tstr_recurrent_auroc": "TSTR AUROC, recurrent",
    "tstr_recurrent_auprc": "AUPRC",
    "discriminator_boosting": "discriminator AUROC",
    "correlation_pearson": "channel correlations",
    "autocorrelation_mae": "autocorrelation error",
    "membership_auroc": "membership AUROC",
}


def drawn(
    task: SeriesTask, generator: Generator, target: SeriesTarget | None, arm: str, patients: int
) -> tuple[SeriesDataset, float]:
    """Patients of an arm, and how many came in a second."""
    by, strength = ARMS[arm]
    request = resolve_request(
        patients=patients,
        label_counts=None,
        label_values=task.schema.label.values,
        label_shares=generator.label_shares,
        corruption=SERIES_CORRUPTION,
        anchored=False,
        sampler=None,
        steps=None,
        seed=task.seed,
        guidance=Decimal(0),
        target=None if target is None else "0" * 64,
        target_by=by,  # type: ignore[arg-type]
        target_strength=strength,
    )
    model = SeriesGenerator(
        generator.spec, task.layout, generator.parameters, generator.anchor, target=target, precision="bfloat16"
    )
    numbers = np.arange(patients)
    labels = LabelAssignment(list(request.label_counts.values()), task.seed).of(numbers)
    begun = time.process_time()
    rows = model.features(request, numbers, labels)
    pace = patients / (time.process_time() - begun)
    names = [f"synthetic-{number}" for number in range(patients)]
    return recorded(task.schema, unpack_series(rows, labels, names, task.layout)), pace


def readings(metrics: dict[str, Any], whose: str) -> dict[str, float | None]:
    """What is shown of a report; measures of the label are named by its value as well."""
    found = {key.partition("[")[0]: measure[whose] for key, measure in reversed(metrics["measures"].items())}
    return {key: found.get(key) for key in SHOWN}


def spread(values: list[float | None]) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    text = f"{statistics.mean(found):.3f}"
    return text if len(found) < 2 else f"{text} ± {statistics.stdev(found):.3f}"


def measured(task: SeriesTask, real: SeriesDataset, arms: list[str], kept: dict[str, Path]) -> None:
    """Fit once, draw and measure the arms that are missing."""
    begun = time.process_time()
    generator = fit_generator(task)
    fitted = time.process_time() - begun
    target, composed = fit_target(task, generator)
    for arm in arms:
        synthetic, pace = drawn(task, generator, None if arm == "label" else target, arm, len(real))
        with tempfile.TemporaryDirectory() as folder:
            train = together(list(task.sites.values()))
            metrics = evaluate_series(task.schema, real, synthetic, train, out=Path(folder) / "report", seed=task.seed)
        cell = {
            "synthetic": readings(metrics, "value"),
            "ceiling": readings(metrics, "ceiling"),
            "floor": readings(metrics, "floor"),
            "fit_s": fitted,
            "patients_per_s": pace,
            "composed_epsilon": None if math.isinf(composed) else composed,
        }
        kept[arm].parent.mkdir(parents=True, exist_ok=True)
        kept[arm].write_text(json.dumps(cell), encoding="utf-8")
        print(kept[arm].name, json.dumps(cell), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "sepsis", help="a folder like examples/sepsis")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--epsilon", nargs="+", type=float, default=[1.0, 8.0, math.inf], help="of each run; inf: no noise"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget-s", type=float, default=math.inf, help="begin nothing new after so many seconds")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    schema = load_schema(arguments.data / "schema.toml")
    assert isinstance(schema, SeriesSchema)
    sites = {folder.name: load_series(schema, folder) for folder in sorted((arguments.data / "sites").iterdir())}
    real = together([load_series(schema, folder) for folder in sorted((arguments.data / "held-out").iterdir())])
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines: list[str] = []
    runs: list[dict[str, Any]] = []
    ends: dict[str, list[dict[str, float | None]]] = {"ceiling": [], "floor": []}
    for epsilon in arguments.epsilon:
        for seed in arguments.seeds:
            named = "infinity" if math.isinf(epsilon) else f"{epsilon:g}"
            kept = {arm: KEPT / f"{arguments.data.name}-{named}-{seed}-{arm}.json" for arm in arguments.arms}
            missing = [arm for arm, path in kept.items() if not path.exists()]
            if missing and time.perf_counter() - begun < arguments.budget_s:
                task = SeriesTask(
                    sites=sites, schema=schema, epsilon=None if math.isinf(epsilon) else epsilon, seed=seed
                )
                measured(task, real, missing, kept)
        for arm in arguments.arms:
            paths = [KEPT / f"{arguments.data.name}-{named}-{seed}-{arm}.json" for seed in arguments.seeds]
            cells = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
            if not cells:
                continue
            for end, values in ends.items():
                values += [cell[end] for cell in cells]
            columns = [spread([cell["synthetic"].get(key) for cell in cells]) for key in SHOWN]
            composed = spread([cell["composed_epsilon"] for cell in cells if arm != "label"])
            pace = spread([cell["patients_per_s"] for cell in cells])
            lines.append(f"| {named} | {composed} | {arm} | {' | '.join(columns)} | {pace} | {len(cells)} |")
            runs.append({"epsilon": named, "arm": arm, "cells": cells})
    for end, title in (("ceiling", "other real patients"), ("floor", "independent channels")):
        columns = [spread([one.get(key) for one in ends[end]]) for key in SHOWN]
        lines.insert(0, f"|  |  | {title} | {' | '.join(columns)} | - | {len(ends[end])} |")
    patients = ", ".join(f"{name} {len(data)}" for name, data in sites.items())
    text = [
        f"Machine: {machine}; data {arguments.data.name}: {patients}; {len(real)} held out; delta {DELTA:g}; mean ±"
        " standard deviation over seeds (last column: how many).",
        "",
        f"| epsilon | all three runs | arm | {' | '.join(SHOWN.values())} | patients / s of a core | seeds |",
        f"|---|---|---|{'---|' * (len(SHOWN) + 2)}",
        *lines,
    ]
    RESULTS.mkdir(exist_ok=True)
    # Other data than the example's have figures of their own.
    name = "series" if arguments.data.name == "sepsis" else f"series-{arguments.data.name}"
    (RESULTS / f"{name}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n", encoding="utf-8"
    )
    print("\n".join(text))


if __name__ == "__main__":
    main()
