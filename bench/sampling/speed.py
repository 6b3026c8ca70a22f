"""How fast patients are drawn: ``python -m bench.sampling.speed`` (about a minute; with a GPU, on it).

Per width of the table, sampler and precision: tiles of random couplings (seed 0), one thread, one device, the fastest
of three turns, without storing and without Parquet; then the share of a tile's time that goes into random numbers and
the final draw, and the share that the network's matrix products would take by themselves in that precision. On a CPU
the time is that of the core, so that other work on the machine does not count. ``--widths 1782,20000`` for other
tables. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import torch

from synclave_server.sampling.generator import START, PatientGenerator
from synclave_server.sampling.philox import PatientRandomness
from synclave_server.sampling.request import SampleRequest
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import ModelSpec


def fastest(work: Callable[[], object], device: str, turns: int = 3) -> float:
    """Seconds of the fastest of some turns, after one that does not count."""
    clock = time.thread_time if device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(turns + 1):
        started = clock()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    return min(seconds[1:])


def row(width: int, sampler: str, precision: str, device: str) -> str:
    """One line of the table."""
    layout = CodeLayout(width=width, categories=((0, 4), (4, 20)), label_values=2)
    couplings = np.random.default_rng(0).normal(0, 0.1 / width**0.5, width * (width + 1) // 2).astype(np.float32)
    anchor = np.full((2, width), -3, np.float32)
    spec = ModelSpec.model_validate({"noise_levels": 3})
    request = SampleRequest.model_validate(
        {
            "label_counts": {"no": 1, "yes": 1},
            "sampler": sampler,
            "steps": 8,
            "seed": "0",
            "guidance": Decimal(0),
            "precision": precision,
        }
    )
    generator = PatientGenerator(spec, layout, couplings, anchor, device, request.precision)
    numbers = np.arange(4 * generator.tile)
    tile_s = fastest(lambda: generator.features(request, numbers, numbers % 2), device) / 4
    patients = torch.arange(generator.tile, device=device)
    randomness, purpose = PatientRandomness(0), torch.tensor(START, device=device)
    rows = torch.full((generator.tile, width), 0.05, device=device)
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = rows.to(kind), torch.ones((width, width), dtype=kind, device=device)
    with torch.inference_mode():
        random_s = fastest(lambda: generator._normal(randomness, patients, purpose), device)
        random_s += fastest(lambda: generator._draw(randomness, patients, rows), device)
        product_s = fastest(lambda: left @ right, device)
    calls = request.network_calls
    return (
        f"| {width} | {sampler} | {precision} | {calls} | {generator.tile / tile_s:,.0f} | {random_s / tile_s:.0%} |"
        f" {calls * product_s / tile_s:.0%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="619,1782", help="columns of the tables")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name(options.device) if options.device != "cpu" else "CPU, one core"
    print(f"Device: {name}; torch {torch.__version__}.\n")
    print("| columns | sampler | precision | network calls | patients/s | random numbers, draw | matrix products |")
    print("|---|---|---|---|---|---|---|")
    for width in (int(text) for text in options.widths.split(",")):
        for sampler in ("ddim", "heun"):
            for precision in ("float32", "bfloat16"):
                print(row(width, sampler, precision, options.device), flush=True)


if __name__ == "__main__":
    main()
