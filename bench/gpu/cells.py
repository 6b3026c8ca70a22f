"""Cells of the other benchmarks that take hours on two cores, on a machine of many: ``python -m bench.gpu.cells``.

Each cell is a process with one thread, as many at a time as ``--at-once``, the first of the list first; whatever is not
done after ``--deadline-s`` is given up. A cell keeps what it says about quality and nothing about time, since times of
two machines must not stand in one table, and says which machine it is from. Finished cells are packed into ``--out``;
``python -m bench.gpu.cells --merge FILE`` puts those that are missing into ``.peers/results``, from where
``python -m bench.codes --budget-s 0`` and its like make their tables.

A cell is named as its file: ``codes/TABLE/CONTENDER-EPSILON-SEED`` or ``series/DATA/ARM-EPSILON-SEED``; of the latter
all arms of ours come from one fit and are one cell, ``ours``. Of other benchmarks a cell is a share of a seed's cells:
``guidance/DATA/SEED-SHARE``, ``augment/DATA/SEED-SETTING``, ``sampling/TABLE/SEED-CORRUPTION-SHARE``. Those of sampling
train and draw on a GPU where there is one. What the shares of a seed have in common is made by the first of them.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from bench.codes.environments import ENVIRONMENTS

KEPT: Final = ENVIRONMENTS / "results"
EXAMPLES: Final = Path(__file__).parents[2] / "examples"
TIMES: Final = ("fit_s", "patients_per_s", "patients_per_cpu_s")

SHARES: Final = {"guidance": 2, "gaussian": 3, "masked": 1}
"""Processes of a seed."""

CELLS: Final = [
    *(f"codes/diabetes/diffusion-8-{seed}" for seed in range(3)),
    *(f"codes/diabetes/diffusion-pooled-{epsilon}-{seed}" for epsilon in (1, 3) for seed in (1, 2)),
    *(f"series/sepsis/ours-{epsilon}-{seed}" for epsilon in (8, 1) for seed in range(3)),
    *(f"codes/chapters/diffusion-pooled-8-{seed}" for seed in range(3)),
    *(f"codes/diabetes/diffusion-pooled-8-{seed}" for seed in range(3)),
]
"""What was missing and can be had in minutes of a core; the longest first."""


def epsilon_of(name: str) -> tuple[str, float | None, int]:
    """Who, epsilon (None: infinity) and seed, of a cell's name."""
    who, epsilon, seed = name.rsplit("-", 2)
    return who, None if epsilon == "infinity" else float(epsilon), int(seed)


def of_codes(table_name: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from bench.codes.__main__ import measured
    from bench.codes.tables import load_table

    who, epsilon, seed = epsilon_of(name)
    yield name, measured(load_table(table_name), who, epsilon, seed, 0)


def of_series(data_name: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from bench.series.__main__ import measured
    from bench.series.arms import OURS
    from bench.series.folder import load_folder
    from bench.series.measures import Judge
    from bench.series.report import cell_name

    _, epsilon, seed = epsilon_of(name)
    data = load_folder(EXAMPLES / data_name)
    for arm, cell in measured(data, Judge.of(data, seed), list(OURS), epsilon, 0.0):
        yield Path(cell_name(arm, epsilon, seed)).stem, {"data": data.facts, **cell}


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Within: no other process makes this."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def of_guidance(data_name: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from bench.series.ablation import KEPT, Seed
    from bench.series.fits import SeriesTask
    from bench.series.folder import load_folder
    from bench.series.guidance import cells_of, file_of

    number, share = map(int, name.split("-"))
    data = load_folder(EXAMPLES / data_name)
    seed = Seed(SeriesTask(sites=data.sites, schema=data.schema, epsilon=None, seed=number), data.held_out)
    KEPT.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(f"guidance-{number}"):
        _ = seed.pool
    timeless = [cell for cell in cells_of() if cell[0] != "pace"]
    for question, row, answer in timeless[share :: SHARES["guidance"]]:
        yield file_of(number, question, row), answer(seed)


def of_augment(data_name: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from bench.series.augment import KEPT, generator_of, measured, settings
    from bench.series.fits import SeriesTask
    from bench.series.folder import load_folder

    number, place = map(int, name.split("-"))
    data = load_folder(EXAMPLES / data_name)
    task = SeriesTask(sites=data.sites, schema=data.schema, epsilon=None, seed=number)
    setting, (real, held_out) = list(settings(data, number).items())[place]
    with one_at_a_time(f"augment-{number}"):
        generator = generator_of(task, KEPT / f"{data.name}-infinity-{number}.npz")
    yield f"{data.name}-infinity-{number}-{setting.replace(' ', '-')}", measured(task, generator, real, held_out)


def of_sampling(table_name: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from bench.codes.denoiser import TOWER, drawer, trained_tower
    from bench.codes.measures import Judge, table_of
    from bench.codes.tables import load_table
    from bench.sampling.__main__ import file_of, variants
    from synclave_shared.diffusion.discrete import REVEALERS

    number, corruption, share = name.split("-")
    torch.compiler.set_stance("force_eager")  # each variant would be compiled by itself
    seed = int(number)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = load_table(table_name)
    judge = Judge.of(table.train, table.test, table.schema, seed)
    spec = TOWER.model_copy(update={"corruption": corruption})
    with one_at_a_time(f"tower-{seed}-{corruption}"):
        model, anchor = trained_tower(table.train, table.schema, spec, seed, device)
    mine = [one for one in variants() if (one[0] in REVEALERS) == (corruption == "masked")]
    for variant in sorted(mine, key=lambda one: one[1], reverse=True)[int(share) :: SHARES[corruption]]:
        sampler, steps, calibrated = variant
        draw = drawer(
            spec, table.schema, model, anchor, sampler=sampler, steps=steps, calibrated=calibrated, device=device
        )
        yield file_of(variant, seed), {"measures": judge.score(table_of(draw(judge.patients, seed)))}


Cells = Callable[[str, str], Iterator[tuple[str, dict[str, Any]]]]
KINDS: Final[dict[str, Cells]] = {
    "codes": of_codes,
    "series": of_series,
    "guidance": of_guidance,
    "augment": of_augment,
    "sampling": of_sampling,
}


def folder_of(kind: str, group: str) -> Path:
    """Where a benchmark keeps its cells."""
    folders = {"codes": group, "series": f"series/{group}", "sampling": "sampling"}
    return KEPT / folders.get(kind, f"series-{kind}")


def measure(cell: str) -> None:
    """One cell, or a share of cells, in this process."""
    torch.set_num_threads(1)
    kind, group, name = cell.split("/")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    if kind == "sampling" and torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    for own, found in KINDS[kind](group, name):
        kept = {key: value for key, value in found.items() if key not in TIMES}
        path = folder_of(kind, group) / f"{own}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(kept | {"machine": machine}, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def run(cells: list[str], at_once: int, deadline_s: float, out: Path) -> None:
    """All of them, as far as the time goes."""
    begun, waiting = time.perf_counter(), list(cells)
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    out.mkdir(parents=True, exist_ok=True)
    log = (out / "cells.log").open("w", encoding="utf-8")

    def tell(text: str) -> None:
        print(f"{time.perf_counter() - begun:6.1f} s  {text}", file=log, flush=True)

    while (waiting or running) and time.perf_counter() - begun < deadline_s:
        while waiting and len(running) < at_once:
            cell = waiting.pop(0)
            command = ["nice", "-n", "19", sys.executable, "-W", "ignore", "-m", "bench.gpu.cells", "--one", cell]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            running[cell] = process, time.perf_counter()
        for cell, (process, started) in list(running.items()):
            if process.poll() is not None:
                tell(f"{cell}: exit {process.returncode} after {time.perf_counter() - started:.0f} s")
                del running[cell]
                pack(out)
        time.sleep(0.5)
    for cell, (process, started) in running.items():
        tell(f"{cell}: given up after {time.perf_counter() - started:.0f} s")
        os.killpg(process.pid, signal.SIGKILL)
    for cell in waiting:
        tell(f"{cell}: not begun")
    log.close()
    pack(out)


def pack(out: Path) -> None:
    """All finished cells, as one file."""
    part = out / "cells.tar.gz.part"
    with tarfile.open(part, "w:gz") as archive:
        for path in sorted(path for path in KEPT.rglob("*.json") if '"machine"' in path.read_text(encoding="utf-8")):
            archive.add(path, arcname=str(path.relative_to(KEPT)))
    part.replace(out / "cells.tar.gz")


def merge(file: Path) -> None:
    """Put cells that are missing here into place; those that are there stay."""
    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            path = KEPT / member.name
            stream = archive.extractfile(member)
            if not path.resolve().is_relative_to(KEPT.resolve()) or stream is None or path.exists():
                print(f"left: {member.name}")
                continue
            cell = json.loads(stream.read())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
            print(f"new: {member.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="CELL")
    parser.add_argument("--at-once", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--deadline-s", type=float, default=math.inf)
    parser.add_argument("--out", type=Path, default=Path("cells"), help="a folder for cells.tar.gz and cells.log")
    parser.add_argument("--one", metavar="CELL", help=argparse.SUPPRESS)
    parser.add_argument("--merge", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one)
    elif arguments.merge:
        merge(arguments.merge)
    else:
        run(arguments.cells, arguments.at_once, arguments.deadline_s, arguments.out)


if __name__ == "__main__":
    main()
