"""The two backbones side by side: ``python -m bench.series.backbones`` (six minutes of one core).

Both are trained without noise on the patients of both hospitals of ``examples/sepsis``, the U-Net for as many steps as
take the CPU time of the transformer's, and are judged on the same held-out patients under the same noise. Then what a
private step costs beside a plain one. All times are CPU time of one thread, medians over turns in which both backbones
meet the same neighbours. Prints Markdown and writes bench/results/backbones.json and .md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bench.private_step.__main__ import step_of
from bench.private_step.models import Workload
from bench.series.fits import SeriesTask, fit_generator
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.series import SeriesBatch, SeriesLoss
from synclave_shared.data.modality import load_schema
from synclave_shared.data.series.dataset import SeriesDataset, together
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor, usual_anchor
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import SeriesSpec

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
DATA: Final = ROOT / "examples" / "sepsis"

BACKBONES: Final = {
    "transformer": SeriesSpec(width=96, backbone="transformer"),
    "unet": SeriesSpec(width=96, backbone="unet"),
}
FITTED_AT_ONCE, CLIPPED_AT_ONCE = 128, 64
"""Patients of a step without noise, which has one noise level, and of a private step, which has the plan's."""
TURNS: Final = 7
FURTHEST: Final = 0.02
"""Of the parameters from those of the untrained network, whose zeros would spare work."""

STREAMS: Final = PatientStreams(SecretRandomness(bytes(32)))


def seen(spec: SeriesSpec, layout: SeriesLayout, anchor: SeriesAnchor, data: SeriesDataset) -> SeriesBatch:
    """All patients, with noise that is the same in every call."""
    return SeriesLoss.of(spec, layout, anchor).draw(data, np.arange(len(data)), len(data), STREAMS, 0)


def loss_on(
    data: SeriesDataset, spec: SeriesSpec, layout: SeriesLayout, anchor: SeriesAnchor, parameters: np.ndarray
) -> float:
    """Mean loss of patients."""
    network, loss = build_series_denoiser(layout, spec), SeriesLoss.of(spec, layout, anchor)
    load_parameter_vector(network, parameters)
    with torch.no_grad():
        return float(loss(network, seen(spec, layout, anchor, data)).mean())


def workload(spec: SeriesSpec, layout: SeriesLayout, data: SeriesDataset) -> Workload:
    """A network that is on its way, and patients."""
    network, anchor = build_series_denoiser(layout, spec), usual_anchor(layout)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(FURTHEST * torch.randn(parameter.shape))
    loss = SeriesLoss.of(spec, layout, anchor)
    return Workload(title=spec.backbone, network=network, loss=loss, batch=seen(spec, layout, anchor, data))


def cpu_seconds(step: Callable[[], None]) -> float:
    """Of the second of two steps in a row: the one before may have left memory and caches in another state."""
    step()
    begun = time.process_time()
    step()
    return time.process_time() - begun


def paces(layout: SeriesLayout, patients: SeriesDataset) -> dict[str, dict[str, list[float]]]:
    """Seconds by backbone of a step without noise (``fit``), of a ``plain`` one of a private step's rows, and of it."""
    torch.manual_seed(0)
    cpu, steps = torch.device("cpu"), {}
    few, fewer = (patients.select(np.arange(count)) for count in (FITTED_AT_ONCE, CLIPPED_AT_ONCE))
    for name, spec in BACKBONES.items():
        fit = workload(spec.model_copy(update={"noise_levels": 1}), layout, few)
        private = workload(spec, layout, fewer)
        steps[name, "fit"] = step_of(fit, "plain", cpu, "bfloat16")
        steps[name, "plain"] = step_of(private, "plain", cpu, "float32")
        steps[name, "private"] = step_of(private, "book-keeping", cpu, "float32")
    turns = [{key: cpu_seconds(step) for key, step in steps.items()} for _ in range(TURNS)]
    return {
        name: {kind: [turn[name, kind] for turn in turns] for kind in ("fit", "plain", "private")} for name in BACKBONES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=200, help="of the transformer's training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    schema = load_schema(DATA / "schema.toml")
    assert isinstance(schema, SeriesSchema)
    layout = SeriesLayout.of(schema)
    sites = {folder.name: load_series(schema, folder) for folder in sorted((DATA / "sites").iterdir())}
    held_out = together([load_series(schema, folder) for folder in sorted((DATA / "held-out").iterdir())])
    took = paces(layout, together(list(sites.values())))
    lines, found = [], {}
    untrained = 0.0
    for name, spec in BACKBONES.items():
        steps = round(
            arguments.steps * statistics.median(took["transformer"]["fit"]) / statistics.median(took[name]["fit"])
        )
        losses = []
        for seed in arguments.seeds:
            fitted = fit_generator(SeriesTask(sites=sites, schema=schema, epsilon=None, seed=seed), spec, steps)
            losses.append(loss_on(held_out, spec, layout, fitted.anchor, fitted.parameters))
            if not untrained:
                beginning = parameter_vector(build_series_denoiser(layout, spec))
                untrained = loss_on(held_out, spec, layout, fitted.anchor, beginning)
        plain, private = took[name]["plain"], took[name]["private"]
        ratio = statistics.median(b / a for a, b in zip(plain, private, strict=True))
        size = spec.parameter_count(layout.steps, layout.channels, layout.fields, layout.label_values)
        found[name] = {"parameters": size, "steps": steps, "losses": losses, "seconds": took[name]}
        lines.append(
            f"| `{name}` | {size:,} | {steps} | {', '.join(f'{loss:.3f}' for loss in losses)}"
            f" | {1000 * statistics.median(plain):.0f} ms | {ratio:.2f} |"
        )
        print(lines[-1], flush=True)
    machine = f"one thread, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    text = [
        f"Machine: {machine}. Width {BACKBONES['unet'].width}, {BACKBONES['unet'].blocks} blocks; "
        f"independent channels, which both begin with: {untrained:.3f}.",
        "",
        "| `backbone` | parameters | steps | held-out loss, by seed | plain step | private / plain |",
        "|---|---|---|---|---|---|",
        *lines,
    ]
    (RESULTS / "backbones.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (RESULTS / "backbones.json").write_text(
        json.dumps({"machine": machine, "untrained": untrained, "backbones": found}, indent=1) + "\n", encoding="utf-8"
    )
    print("\n".join(text))


if __name__ == "__main__":
    main()
