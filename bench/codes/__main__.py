"""Generators of code tables side by side: ``python -m bench.codes`` (hours for everything; it resumes).

Every contender fits on the same training patients and draws as many patients as are held out; the same judge measures
all of them, beside other real patients (ceiling) and real columns made independent within each label (floor). Each
fit is kept in ``.peers/results`` (ignored by git) by table, contender, epsilon and seed, so a run that was stopped, or
limited by ``--budget-s``, goes on where it was; ``--again NAME`` forgets a contender. Prints Markdown and writes
bench/results/codes.json and codes.md, which docs/benchmarks.md quotes. Peers: ``python -m bench.codes.environments``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from bench.codes.contenders import CONTENDERS
from bench.codes.environments import ENVIRONMENTS
from bench.codes.measures import MEASURES, Judge, table_of
from bench.codes.peers import PEERS, PeerFailure, run_peer
from bench.codes.tables import TABLES, BenchTable, load_table
from bench.machines import mixed, other_machines

RESULTS = Path(__file__).parents[1] / "results"
KEPT = ENVIRONMENTS / "results"
DELTA = 1e-5
REAL = {"ceiling": "other real patients (ceiling)", "floor": "real columns, independent (floor)"}


def measured(table: BenchTable, name: str, epsilon: float | None, seed: int, limit_s: int) -> dict[str, Any]:
    """One cell: the measures, CPU seconds to fit, patients a CPU second; or the reason why there are none."""
    judge = Judge.of(table.train, table.test, table.schema, seed)
    if name in REAL:
        return {"measures": judge.score(judge.other if name == "ceiling" else judge.independent())}
    report: dict[str, Any]
    if name in PEERS:
        try:
            synthetic, report = run_peer(
                name,
                table.train,
                table.schema,
                judge.patients,
                epsilon=epsilon,
                delta=DELTA,
                seed=seed,
                limit_s=limit_s,
            )
        except PeerFailure as failure:
            return {"failure": str(failure), "final": failure.final, "limit_s": limit_s}
    else:
        begun = time.process_time()
        sampler = CONTENDERS[name].fit(table.task(epsilon=epsilon, delta=DELTA, seed=seed))
        fitted = time.process_time()
        synthetic = sampler(judge.patients, seed)
        report = {"fit_s": fitted - begun, "sample_s": time.process_time() - fitted}
    return {
        "measures": judge.score(table_of(synthetic)),
        "patients_per_s": judge.patients / report.pop("sample_s"),
        **report,
    }


def spread(values: list[float | None], digits: int = 3) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    text = f"{statistics.mean(found):.{digits}f}"
    return text if len(found) < 2 else f"{text} ± {statistics.stdev(found):.{digits}f}"


def cells(names: list[str], epsilons: list[float | None]) -> list[tuple[str, float | None]]:
    """Which contender meets which epsilon: who knows no privacy stands with infinity only."""
    chosen: list[tuple[str, float | None]] = [(name, None) for name in REAL]
    for epsilon in epsilons:
        for name in names:
            private = (CONTENDERS.get(name) or PEERS[name]).private
            # A private peer has no setting for "no noise".
            if (epsilon is None and not (private and name in PEERS)) or (epsilon is not None and private):
                chosen.append((name, epsilon))
    return chosen


def file_of(table: str, name: str, epsilon: float | None, seed: int) -> Path:
    return KEPT / table / f"{name}-{'infinity' if epsilon is None else f'{epsilon:g}'}-{seed}.json"


def markdown(table: BenchTable, kept: dict[tuple[str, float | None], list[dict[str, Any]]]) -> list[str]:
    """The lines of one table."""
    ceiling = [cell["measures"] for cell in kept.get(("ceiling", None), [])]
    lines = [
        f"Table `{table.name}`: {table.schema.width} columns, {len(table.train)} patients of "
        f"{len(set(table.site_of_patient.tolist()))} sites, {len(table.test)} held out.",
        "",
        f"| epsilon | generator | {' | '.join(MEASURES.values())} | fit, CPU s | patients / CPU s |",
        f"|---|---|{'---|' * (len(MEASURES) + 2)}",
    ]
    for (name, epsilon), runs in kept.items():
        title = REAL.get(name) or (CONTENDERS.get(name) or PEERS[name]).title
        shown = "" if name in REAL else "infinity" if epsilon is None else f"{epsilon:g}"
        good = [cell for cell in runs if "measures" in cell]
        if not good:
            lines.append(f"| {shown} | {title} | {runs[0]['failure']} |{' |' * (len(MEASURES) + 1)}")
            continue
        epochs = {cell["epochs"] for cell in good if cell.get("epochs")}
        columns = []
        for key in MEASURES:
            text = spread([cell["measures"][key] for cell in good])
            if key == "correlation" or key.startswith("tstr"):
                top = statistics.mean([one[key] for one in ceiling if one[key] is not None] or [math.nan])
                mean = statistics.mean([cell["measures"][key] or math.nan for cell in good])
                text += f" ({mean / top:.1%})" if math.isfinite(mean / top) else ""
            columns.append(text)
        columns.append(spread([cell.get("fit_s") for cell in good], 1))
        columns.append(spread([cell.get("patients_per_s") for cell in good], 0))
        failed = f"; {len(runs) - len(good)} of {len(runs)} runs failed" if len(good) < len(runs) else ""
        trained = f" ({'/'.join(str(n) for n in sorted(epochs))} epochs)" if epochs else ""
        lines.append(f"| {shown} | {title}{trained}{failed}{mixed(good)} | {' | '.join(columns)} |")
    return [*lines, ""]


def main() -> None:
    names = [*CONTENDERS, *PEERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--epsilon", nargs="+", type=float, default=[1.0, 3.0, 8.0, math.inf], help="inf: no noise")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit-s", type=int, default=600, help="CPU time for one peer's fit and draw")
    parser.add_argument("--budget-s", type=float, default=math.inf, help="begin nothing new after so many seconds")
    parser.add_argument("--again", nargs="+", choices=names, default=[], metavar="NAME", help="forget what is kept")
    parser.add_argument("--data", type=Path, help="a folder like examples/diabetes in its place")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    epsilons = [None if math.isinf(epsilon) else epsilon for epsilon in arguments.epsilon]
    # What is kept is kept by name: the example's results must not stand in for other data.
    prefix = "" if arguments.data is None else f"{arguments.data.resolve().name}-"
    text: list[str] = []
    document: dict[str, Any] = {}
    for table_name in arguments.tables:
        table = load_table(table_name, arguments.data)
        kept: dict[tuple[str, float | None], list[dict[str, Any]]] = {}
        # All contenders with one seed first, so that a run cut short is a whole table of fewer seeds.
        chosen = cells(arguments.contenders, epsilons)
        for seed in arguments.seeds:
            for name, epsilon in chosen:
                path = file_of(prefix + table_name, name, epsilon, seed)
                if name in arguments.again:
                    path.unlink(missing_ok=True)
                cell = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
                # Who was too slow, or failed, may try again under a higher limit.
                due = cell is None or cell.get("limit_s", math.inf) < arguments.limit_s
                if due and time.perf_counter() - begun <= arguments.budget_s:
                    cell = measured(table, name, epsilon, seed, arguments.limit_s)
                    print(f"{path.relative_to(KEPT)}: {json.dumps(cell)}", flush=True)
                    if cell.pop("final", True):
                        path.parent.mkdir(parents=True, exist_ok=True)
                        partial = path.with_suffix(".partial")
                        partial.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
                        partial.replace(path)
                if cell is not None:
                    kept.setdefault((name, epsilon), []).append(cell)
        kept = {key: kept[key] for key in chosen if key in kept}
        text += markdown(table, kept)
        document[table_name] = [
            {"contender": name, "epsilon": epsilon, "runs": runs} for (name, epsilon), runs in kept.items()
        ]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    head = (
        f"Machine: {machine}. Seeds {', '.join(map(str, arguments.seeds))}; mean ± standard deviation over runs; delta "
        f"{DELTA:g}, unit one patient; at most {arguments.limit_s} s of CPU time for a peer. In brackets: "
        "share of the ceiling."
    ) + other_machines(run for rows in document.values() for row in rows for run in row["runs"])
    if not prefix:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "codes.json").write_text(
            json.dumps({"machine": machine, "tables": document}, indent=1) + "\n", encoding="utf-8"
        )
        (RESULTS / "codes.md").write_text("\n".join([head, "", *text]), encoding="utf-8")
    print("\n".join([head, "", *text]))


if __name__ == "__main__":
    main()
