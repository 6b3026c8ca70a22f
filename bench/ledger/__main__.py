"""What verifying and growing a long ledger costs: ``python -m bench.ledger`` (about 5 minutes on one core).

Makes a ledger of a million entries (eight sites, thousands of rounds, every signature valid), verifies it in a process
of its own that may use one core, and lets a coordinator that opened it go on: per round, the sites' entries and the
coordinator's are appended, and every site is shown proofs of consistency and inclusion, checks them and co-signs.
Writes bench/results/ledger.json and .md, which docs/benchmarks.md quotes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.ledger.writing import SITES, Run, make_plan, write_ledger
from synclave_shared.ledger.checkpoint import open_checkpoint
from synclave_shared.ledger.merkle import leaf_hash, verify_consistency, verify_inclusion
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.ledger.witness import cosign

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
    """Append rounds to a ledger and let every site witness them."""
    plan, coordinator = make_plan(0), run.keys["coordinator"]
    started = time.perf_counter()
    ledger = Ledger.open(folder, coordinator)
    opened_s = time.perf_counter() - started
    at_coordinator, whole, computed = [], [], []
    for number in range(FIRST_ROUND, FIRST_ROUND + ROUNDS):
        from_sites, own = list(run.spends(plan, number)), list(run.result(plan, number))
        seen_size, seen_root = ledger.size, bytes.fromhex(ledger.root)
        begun, cpu = time.perf_counter(), time.process_time()
        ledger.append(from_sites)
        ledger.append(own)
        lines, at_sites = [], 0.0
        for place, site in enumerate(SITES):
            consistency = ledger.consistency_proof(seen_size)
            shown = [seen_size + 2 * place, seen_size + 2 * place + 1]
            inclusions = [ledger.inclusion_proof(index) for index in shown]
            note = ledger.checkpoint()
            at_site = time.perf_counter()
            checkpoint = open_checkpoint(note, origin=ledger.origin, operator_key=coordinator.public_text).checkpoint
            size, root = checkpoint.size, checkpoint.root
            sound = verify_consistency(seen_size, size, nodes(consistency), seen_root, root) and all(
                verify_inclusion(leaf_hash(from_sites[index - seen_size]), index, size, nodes(proof), root)
                for index, proof in zip(shown, inclusions, strict=True)
            )
            if not sound:
                raise SystemExit("a proof does not hold")
            lines.append((size, site, cosign(note, site, run.keys[site], datetime.now(UTC))))
            at_sites += time.perf_counter() - at_site
        if ledger.add_cosignatures(lines):
            raise SystemExit("a co-signature is not valid")
        whole.append(time.perf_counter() - begun)
        computed.append(time.process_time() - cpu)
        at_coordinator.append(whole[-1] - at_sites)
    return {
        "entries": ledger.size,
        "open_s": opened_s,
        "round_ms": 1000 * statistics.median(whole),
        "coordinator_ms": 1000 * statistics.median(at_coordinator),
        "cpu_ms": 1000 * statistics.median(computed),
        "slowest_round_ms": 1000 * max(whole),
        "flush_ms": flush_ms(folder),
    }


def nodes(proof: Sequence[str]) -> list[bytes]:
    """The hashes of a proof."""
    return [bytes.fromhex(node) for node in proof]


def flush_ms(folder: Path) -> float:
    """Median time that this disk takes to make a small file durable: a round waits for about a dozen."""
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
        "| entries before | opened in | append a round and have it witnessed: median, slowest | coordinator's part |"
        " CPU time of it all | one flush to disk |",
        "|---|---|---|---|---|---|",
    ]
    for size, each in results["rounds"].items():
        lines.append(
            f"| {int(size):,} | {each['open_s']:.1f} s | {each['round_ms']:.0f} ms, {each['slowest_round_ms']:.0f} ms |"
            f" {each['coordinator_ms']:.0f} ms | {each['cpu_ms']:.0f} ms | {each['flush_ms']:.1f} ms |"
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
