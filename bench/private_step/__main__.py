"""What a private step costs beside a plain one: ``python -m bench.private_step`` (about 10 minutes on 2 cores).

Per network and way to clip (book-keeping; Opacus' ghost clipping; its hooks), in one process and in turns: a plain
forward and backward pass and the clipped sum, on the same random rows (seed 0). A ratio is the median over turns of
time private / time plain in the same turn, with its quartiles; memory is the peak while stepping, above what the
process held before the network was built, each way in a process of its own. Freed memory is kept, as in training,
plain and private. With a CUDA device there is a second table for it, in float32 and bfloat16. Writes
bench/results/private_step.json and .md, which docs/benchmarks.md quotes.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.private_step import models
from synclave_client.performance import Performance
from synclave_client.training.allocator import freed_memory_kept
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_shared.errors import ClippingError

RESULTS = Path(__file__).parents[1] / "results"

WORKLOADS: dict[str, Callable[[], models.Workload]] = {
    "codes": models.code_denoiser,
    "mlp": models.mlp,
    "mlp-levels": lambda: models.mlp(patients=64, levels=8),
    "series": models.series_transformer,
    "unet": models.unet,
    "bert": models.bert,
    "bert-masked": models.bert_masked_positions,
    "bert-lora": models.bert_lora,
}
WAYS = ("plain", "book-keeping", "ghost", "hooks")
LONG_STEP_S = 2.0
"""A step of this length is measured at once: what came before it no longer matters."""

STOCK = {"bert-masked": "bert", "bert-lora": "bert"}
"""Networks whose step is also compared with the plain step of another one."""


def step_of(work: models.Workload, way: str, device: torch.device, precision: str) -> Callable[[], None]:
    """A function that makes one gradient: plain, or clipped per patient."""
    network: nn.Module = work.network if way in ("plain", "book-keeping") else work.opacus_network or work.network
    network.to(device)
    batch = models.moved(work.batch, device)
    if way == "plain":
        parameters = [value for value in network.parameters() if value.requires_grad]

        def plain() -> None:
            for value in parameters:
                value.grad = None
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                total = work.loss(network, batch).sum()
            total.backward()

        return plain
    settings = Performance.model_validate({"clipping": way, "precision": precision})
    gradients = PatientGradients(network, work.loss, 1.0, settings)

    def private() -> None:
        gradients.clipped_sum([batch])

    return private


def seconds(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def time_pair(name: str, way: str, device: torch.device, precision: str, patience_s: float) -> dict[str, Any]:
    """Seconds of plain and private steps in turns, each the second of two in a row; or why the way cannot clip."""
    torch.manual_seed(0)
    work = WORKLOADS[name]()
    trained = sum(value.numel() for value in work.network.parameters() if value.requires_grad)
    entry: dict[str, Any] = {"title": work.title, "parameters": trained, "turns": []}
    plain = step_of(work, "plain", device, precision)
    try:
        private = step_of(work, way, device, precision)
        private()
    except ClippingError as error:
        return {**entry, "refused": error.found}
    return {**entry, "turns": turns_of({"plain": plain, "private": private}, device, patience_s)}


def turns_of(
    steps: Mapping[str, Callable[[], object]], device: torch.device, patience_s: float
) -> list[dict[str, float]]:
    """Seconds of these steps in turns, at least three turns, each the second of two in a row."""
    found: list[dict[str, float]] = []
    begun = time.perf_counter()
    while len(found) < 3 or (time.perf_counter() - begun < patience_s and len(found) < 40):
        turn = {}
        for kind, step in steps.items():
            # The one before may have left memory and caches in another state.
            first = seconds(step, device)
            turn[kind] = seconds(step, device) if first < LONG_STEP_S else first
        found.append(turn)
    return found


def peak_memory(name: str, way: str, device: torch.device, precision: str) -> int:
    """Bytes at the peak of three steps, above what was held before the network was built."""
    torch.ones(300, 300) @ torch.ones(300, 300)
    if way in ("ghost", "hooks"):
        importlib.import_module("synclave_client.training.private.opacus_engines")
    if name.startswith("bert"):
        models.bert(2, 8, 64, 64, 1)
        models.bert_lora(2, 8, 64, 64, 1)
    gc.collect()
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
    step = step_of(WORKLOADS[name](), way, device, precision)
    for _ in range(3):
        step()
    after = torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")
    return after - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def noise(patience_s: float) -> dict[str, float]:
    """Seconds of secret noise for the MLP's parameters, of torch's noise, and of steps of 256 and 2,048 patients."""
    torch.manual_seed(0)
    work, cpu = models.mlp(), torch.device("cpu")
    gradients = PatientGradients(work.network, work.loss, 1.0)
    parameters = sum(value.numel() for value in work.network.parameters())
    vector, other = np.zeros(parameters), torch.zeros(parameters)
    randomness = SecretRandomness.from_os()
    steps: dict[str, Callable[[], object]] = {
        "seconds": lambda: randomness.add_normal(vector, 1.0),
        "torch_float32_seconds": lambda: other.normal_(),
        "sum_of_256_seconds": lambda: gradients.clipped_sum([work.batch]),
        "sum_of_2048_seconds": lambda: gradients.clipped_sum([work.batch] * 8),
    }
    found: dict[str, list[float]] = {name: [] for name in steps}
    begun = time.perf_counter()
    while len(found["seconds"]) < 4 or time.perf_counter() - begun < patience_s:
        for name, step in steps.items():
            found[name].append(seconds(step, cpu))
    return {"parameters": parameters, **{name: statistics.median(own[1:]) for name, own in found.items()}}


def child(arguments: list[str]) -> Any:
    """Run this module in a process of its own and read its one line of JSON."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.private_step", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(device: str, precision: str, names: list[str], patience_s: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        print(f"{name} on {device}, {precision} ...", file=sys.stderr, flush=True)
        common = ["--device", device, "--precision", precision, "--patience", str(patience_s)]
        pairs = {way: child(["--time", name, "--way", way, *common]) for way in WAYS[1:]}
        memory = {
            way: child(["--memory", name, "--way", way, *common])
            for way in WAYS
            if way == "plain" or "refused" not in pairs[way]
        }
        found[name] = {"pairs": pairs, "memory_bytes": memory}
    return found


def ratios(pair: dict[str, Any]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of time over that of the plain step in the same turn."""
    own = sorted(turn["private"] / turn["plain"] for turn in pair["turns"])
    low, middle, high = statistics.quantiles(own, n=4)
    return low, middle, high


def median_s(entry: dict[str, Any], kind: str) -> float:
    return statistics.median(turn[kind] for turn in entry["pairs"]["book-keeping"]["turns"])


def table(found: dict[str, Any]) -> list[str]:
    lines = [
        "| network (trainable parameters) | plain step | book-keeping: time, memory | ghost | hooks |",
        "|---|---|---|---|---|",
    ]
    for entry in found.values():
        cells = []
        plain = entry["memory_bytes"]["plain"]
        for way, pair in entry["pairs"].items():
            if "refused" in pair:
                cells.append("cannot")
                continue
            low, middle, high = ratios(pair)
            memory = entry["memory_bytes"][way] / plain
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f}), {memory:.2f}")
        own = entry["pairs"]["book-keeping"]
        step = f"{1e3 * median_s(entry, 'plain'):.0f} ms, {plain / 2**20:.0f} MiB"
        lines.append(f"| {own['title']} ({own['parameters'] / 1e6:.1f} M) | {step} | {' | '.join(cells)} |")
    return lines


def report(document: dict[str, Any]) -> str:
    lines = [f"Machine: {document['machine']}. Ratios to the plain step: median (quartiles) of time, then peak memory."]
    for kind, found in document["tables"].items():
        lines += ["", f"On {kind}:", "", *table(found)]
        for name, stock in STOCK.items():
            if name in found and stock in found:
                title = found[name]["pairs"]["book-keeping"]["title"]
                share = median_s(found[name], "private") / median_s(found[stock], "plain")
                lines += ["", f"{title}: a private step takes {share:.2f} of the stock plain step."]
    own = document["noise"]
    each = 1e9 * own["seconds"] / own["parameters"]
    small, large = (own["seconds"] / (own[f"sum_of_{n}_seconds"] + own["seconds"]) for n in (256, 2048))
    lines += [
        "",
        f"Secret noise for {own['parameters'] / 1e6:.1f} M parameters: {1e3 * own['seconds']:.1f} ms, {each:.1f} ns"
        f" each (torch's float32 noise, which is not secret: {1e3 * own['torch_float32_seconds']:.1f} ms). That is"
        f" {small:.0%} of a step (clipped sum and noise) of 256 patients of the MLP, and {large:.0%} of one of 2,048.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument(
        "--patience", type=float, default=8.0, help="seconds of turns per network and way (at least 3 turns)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where private_step.json and .md are written")
    for internal in ("--time", "--memory", "--way"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.time or arguments.memory:
        # As in training; plain and private steps alike.
        with freed_memory_kept():
            found: Any = (
                time_pair(arguments.time, arguments.way, device, arguments.precision, arguments.patience)
                if arguments.time
                else peak_memory(arguments.memory, arguments.way, device, arguments.precision)
            )
        print(json.dumps(found))
        return
    document: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch"
        f" {torch.__version__}, {torch.get_num_threads()} threads",
        "tables": {"the CPU, float32": measure("cpu", "float32", arguments.only, arguments.patience)},
        "noise": noise(arguments.patience),
    }
    if torch.cuda.is_available():
        for precision in ("float32", "bfloat16"):
            kind = f"{torch.cuda.get_device_name()}, {precision}"
            document["tables"][kind] = measure("cuda", precision, arguments.only, arguments.patience)
    text = report(document)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "private_step.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
    (arguments.out / "private_step.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
