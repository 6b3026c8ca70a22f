"""What verifying and growing a long ledger costs: ``python -m bench.ledger`` (about 7 minutes on one core).

Makes a ledger of a million entries (eight sites, thousands of rounds, every signature valid), verifies it in a process
of its own that may use one core, and lets a coordinator that opened it go on: per round, the sites' entries and the
coordinator's are appended, every site is shown them, and the co-signatures are kept. What a site takes to check, copy
and co-sign a round is measured at a vault whose copy is as long.
Writes bench/results/ledger.json and .md, which docs/benchmarks.md quotes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.ledger.witnessing import witnessing_seconds
from bench.ledger.writing import SITES, Run, make_plan, write_ledger
from synclave_shared.ledger import durable
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.ledger.witness import cosign, present

RESULTS = Path(__file__).parents[1] / "results"
ROUNDS = 30
FIRST_ROUND = 8001
"""Rounds of the first plan that the ledger does not have yet."""


def measure_verification(folder: Path) -> dict[str, Any]:
    """Verify a ledger in this process, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    wall, cpu = time.perf_counter(), time.process_time()
    report = verify_ledger(folder)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        raise SystemExit(f"the ledger is not valid: {errors[0]}")
    return {
        "entries": report.size,
        "cpu_s": cpu,
        "wall_s": wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "epsilon": next(iter(report.sites.values())).epsilon,
    }


def measure_rounds(folder: Path, run: Run) -> dict[str, Any]:
    """What a coordinator does per round: append what sites and it itself say, show it, and keep the co-signatures."""
    plan, coordinator = make_plan(0), run.keys["coordinator"]
    started = time.perf_counter()
    ledger = Ledger.open(folder, coordinator)
    opened_s = time.perf_counter() - started
    whole, computed, waited, flushes = [], [], [], []
    for number in range(FIRST_ROUND, FIRST_ROUND + ROUNDS):
        from_sites, own = list(run.spends(plan, number)), list(run.result(plan, number))
        seen = ledger.size
        # What a site does with it is measured apart (bench.ledger.witnessing), but for its signature.
        now = datetime.now(UTC)
        lines = [(seen, site, cosign(ledger.checkpoint(), site, run.keys[site], now)) for site in SITES]
        with counted_waits() as waits:
            begun, cpu = time.perf_counter(), time.process_time()
            refused = ledger.update(from_sites, lines)
            ledger.append(own)
            for _ in SITES:
                present(ledger, seen)
            whole.append(time.perf_counter() - begun)
            computed.append(time.process_time() - cpu)
        flushes.append(waits.flushes)
        waited.append(waits.seconds)
        if refused:
            raise SystemExit("a co-signature is not valid")
    return {
        "entries": ledger.size,
        "open_s": opened_s,
        "coordinator_ms": 1000 * statistics.median(whole),
        "slowest_ms": 1000 * max(whole),
        "cpu_ms": 1000 * statistics.median(computed),
        "waited_ms": 1000 * statistics.median(waited),
        "flushes": statistics.median(flushes),
        "flush_ms": flush_ms(folder),
    }


@dataclass
class Waits:
    """What was made durable: how many files and folders, and the seconds that were waited for it."""

    flushes: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def counted_waits() -> Iterator[Waits]:
    """Count what the ledger makes durable."""
    real, waits = durable._flush, Waits()

    def flush(paths: Iterable[Path]) -> None:
        waiting, begun = list(paths), time.perf_counter()
        real(waiting)
        waits.flushes += len(waiting)
        waits.seconds += time.perf_counter() - begun

    durable._flush = flush
    try:
        yield waits
    finally:
        durable._flush = real


def flush_ms(folder: Path) -> float:
    """Median time that this disk takes to make a small file durable."""
    times = []
    for _ in range(50):
        with (folder / "flushed").open("wb") as file:
            file.write(b"x" * 20_000)
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    (folder / "flushed").unlink()
    return 1000 * statistics.median(times)


def table(results: dict[str, Any]) -> str:
    """The page that the documents quote."""
    checked = results["verify"]
    lines = [
        f"Machine: {results['machine']}. {len(SITES)} sites; a round is {2 * len(SITES) + 2} entries.",
        "",
        "| entries | verified on one core in | entries per second | peak memory |",
        "|---|---|---|---|",
        f"| {checked['entries']:,} | {checked['cpu_s']:.1f} s | {checked['entries'] / checked['cpu_s']:,.0f} |"
        f" {checked['peak_mb']:.0f} MB |",
        "",
        "A round at the coordinator: sites' entries and co-signatures kept, its own entries kept, all shown to every"
        " site. A round at a site: what is new checked, copied and co-signed, in one transaction of its journal. What"
        " is neither CPU time nor waiting for the disk is waiting for a CPU: other work ran on this machine.",
        "",
        "| entries before | coordinator: opened in | a round: median, slowest | of it CPU time | of it waiting for the"
        " disk | flushes | one flush alone | a site: a round: median, slowest | of it CPU time | flushes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size, each in results["rounds"].items():
        site = "- | - | -"
        if "site_ms" in each:
            site = f"{each['site_ms']:.0f} ms, {each['slowest_site_ms']:.0f} ms | {each['site_cpu_ms']:.0f} ms | 1"
        lines.append(
            f"| {int(size):,} | {each['open_s']:.1f} s | {each['coordinator_ms']:.0f} ms, {each['slowest_ms']:.0f} ms |"
            f" {each['cpu_ms']:.0f} ms | {each['waited_ms']:.0f} ms | {each['flushes']:.0f} |"
            f" {each['flush_ms']:.1f} ms | {site} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries to verify (default: 1,000,000)")
    parser.add_argument("--out", type=Path, default=RESULTS / "ledger.json", help="where to write the results")
    parser.add_argument("--verify", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.verify:
        print(json.dumps(measure_verification(arguments.verify)))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        rounds = {}
        for size in (arguments.entries // 100, arguments.entries // 8, arguments.entries):
            folder = Path(name) / str(size)
            run, made = write_ledger(folder, size)
            if size == arguments.entries:
                command = [sys.executable, "-m", "bench.ledger", "--verify", str(folder)]
                checked = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rounds[str(made)] = measure_rounds(folder, run)
            if size < arguments.entries:
                at_site, computed = zip(*witnessing_seconds(made), strict=True)
                rounds[str(made)] |= {
                    "site_ms": 1000 * statistics.median(at_site),
                    "slowest_site_ms": 1000 * max(at_site),
                    "site_cpu_ms": 1000 * statistics.median(computed),
                }
    cpu = next((line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")), "")
    results = {
        "machine": f"{os.cpu_count()} cores ({cpu}), {platform.machine()}, Python {platform.python_version()},"
        f" load average {load:.0f} at the start",
        "verify": checked,
        "rounds": rounds,
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(table(results), encoding="utf-8")
    print(table(results))


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
