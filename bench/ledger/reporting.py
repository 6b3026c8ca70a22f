"""What the report on a long ledger costs: ``python -m bench.ledger.reporting`` (about 5 minutes on one core).

Makes the ledger of ``bench.ledger`` (a million entries, eight sites), or takes one made before (``--ledger``), and
measures in one process what ``synclave-audit report`` does: verify and read it, compute all that the page says, write
the files. Writes bench/results/ledger-report.json and .md, which docs/benchmarks.md quotes.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.ledger.writing import write_ledger
from synclave_shared.audit.ledgers import read_ledgers
from synclave_shared.audit.report.facts import gather
from synclave_shared.audit.report.page import write_report

RESULTS = Path(__file__).parents[1] / "results"


def measure(folder: Path, out: Path) -> dict[str, Any]:
    """CPU time of each step, peak memory, and the sizes of the files."""
    started = time.process_time()
    ledgers = read_ledgers([folder])
    read = time.process_time()
    if not ledgers.valid:
        raise SystemExit(f"the ledger is not valid: {ledgers.all_findings()[0]}")
    facts = gather(ledgers)
    gathered = time.process_time()
    files = write_report(facts, out)
    return {
        "entries": ledgers.readings[0].report.size,
        "read_s": read - started,
        "computed_s": gathered - read,
        "written_s": time.process_time() - gathered,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "files_mb": {path.name: path.stat().st_size / 1e6 for path in files},
    }


def table(found: dict[str, Any]) -> str:
    """The lines that the documents quote."""
    page, numbers = found["files_mb"]["index.html"], found["files_mb"]["report.json"]
    return (
        "| entries | verified and read | computed | written | peak memory | index.html | report.json |\n"
        "|---|---|---|---|---|---|---|\n"
        f"| {found['entries']:,} | {found['read_s']:.1f} s | {found['computed_s']:.1f} s | {found['written_s']:.1f} s |"
        f" {found['peak_mb']:.0f} MB | {page:.1f} MB | {numbers:.1f} MB |\n"
    )


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries of the ledger (default: 1,000,000)")
    parser.add_argument("--ledger", type=Path, help="a ledger made before, instead of a new one")
    parser.add_argument("--out", type=Path, default=RESULTS / "ledger-report.json", help="where to write the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.ledger or Path(name) / "ledger"
        if arguments.ledger is None:
            write_ledger(folder, arguments.entries)
        found = measure(folder, Path(name) / "report")
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
