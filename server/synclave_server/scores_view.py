"""``synclave scores``: snapshots in, the measures of clinical models at the sites and a page of curves out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_server.snapshots import read_snapshot
from synclave_shared.data.new_folder import new_folder
from synclave_shared.errors import ConfigurationError

if TYPE_CHECKING:
    from synclave_server.evaluation.figure import Drawing
    from synclave_server.evaluation.score_curves import Judgement
    from synclave_server.evaluation.scored_run import OutcomeScores, ScoredRun

__all__ = ["draw_scores", "run_scores"]

FORMAT = "synclave-scores/1"


def run_scores(snapshots: Sequence[str], *, out: Path) -> dict[str, Any]:
    """Read the snapshots, write ``scores.json`` and ``scores.html``; returns the former's content and their paths.

    Args:
        snapshots: folders, each perhaps with ``NAME=`` before it; what exists as it is written has none.
        out: new folder to write to.

    Raises:
        ConfigurationError: if one is of another kind of run, two have one name or different schemas, they are too
            many, or ``out`` exists.
        SnapshotError: if one cannot be used.
    """
    from synclave_server.evaluation.report import page
    from synclave_server.evaluation.score_curves import MEASURES
    from synclave_server.evaluation.score_drawings import score_drawings

    runs = _runs(snapshots)
    judged = {run.name: run.judged() for run in runs}
    schema = runs[0].schema
    document = {
        "format": FORMAT,
        "schema": {
            "name": schema.name,
            "title": schema.title,
            "digest": schema.digest,
            "label": schema.label.name,
            "label_title": schema.label.title,
        },
        "runs": [run.to_json(judged[run.name]) for run in runs],
    }
    drawings: dict[str, Drawing] = {}
    shown = []
    for place, first in enumerate(judged[runs[0].name]):
        together = {name: found[place].together for name, found in judged.items()}
        drawings |= score_drawings(str(place), together)
        shown.append(
            {
                "value": f"{schema.label.title or schema.label.name}: {first.value}",
                "figures": [f"{figure}{place}" for figure in ("roc", "precision", "reliability")],
                "rows": [row for run in runs for row in _rows(run, judged[run.name][place])],
            }
        )
    html = page("scores.html.j2", drawings, document=document, outcomes=shown, titles=list(MEASURES.values()))
    with new_folder(out) as unfinished:
        (unfinished / "scores.html").write_bytes(html.encode())
        (unfinished / "scores.json").write_bytes(json.dumps(document, indent=2).encode() + b"\n")
    return {**document, "report": str((out / "scores.html").resolve()), "scores": str((out / "scores.json").resolve())}


def _runs(snapshots: Sequence[str]) -> list[ScoredRun]:
    from synclave_server.evaluation.score_drawings import MOST_MODELS
    from synclave_server.evaluation.scored_run import ScoredRun

    runs = []
    for text in snapshots:
        name, separator, folder = text.partition("=")
        named = separator and not Path(text).exists()
        runs.append(ScoredRun.of(read_snapshot(Path(folder if named else text)), name if named else None))
    names, schemas = [run.name for run in runs], {run.schema.digest for run in runs}
    if len(set(names)) < len(names) or len(schemas) > 1 or len(names) > MOST_MODELS:
        raise ConfigurationError(
            expected=f"at most {MOST_MODELS} snapshots of one schema, each with a name of its own",
            found=f"{', '.join(names)}, of {len(schemas)} schema(s)",
            remedy="Write --snapshot NAME=DIR to tell them apart.",
        )
    return runs


def _everyone(absent: Sequence[str]) -> str:
    """What is written where a row is of all sites that told."""
    return f"all sites but {', '.join(absent)}" if absent else "all sites"


def _rows(run: ScoredRun, outcome: OutcomeScores) -> Iterator[dict[str, Any]]:
    """Rows of the page's table: all sites together, then each."""
    judged: dict[str, Judgement] = {_everyone(run.absent_sites): outcome.together, **outcome.sites}
    for place, (site, judgement) in enumerate(judged.items()):
        yield {
            "model": run.name,
            "site": site,
            "first": place == 0,
            "last": place == len(judged) - 1,
            "span": len(judged),
            "patients": round(judgement.patients),
            "positive": round(judgement.positive),
            "readings": list(judgement.readings.values()),
        }


def draw_scores(document: Mapping[str, Any], console: Console) -> None:
    """The measures, with their 95 % intervals, as a table of each model and outcome."""
    for run in document["runs"]:
        for outcome in run["outcomes"]:
            title = f"{run['name']}: {document['schema']['label']} = {outcome['value']} (95 %, patients and noise)"
            table = Table(title=escape(title), title_justify="left")
            table.add_column("patients of", overflow="fold")
            measures = outcome["together"]["measures"].values()
            for column in ("patients", *(measure["title"] for measure in measures)):
                table.add_column(column, justify="right")
            for site, judgement in {_everyone(run["absent_sites"]): outcome["together"], **outcome["sites"]}.items():
                numbers = [_number(measure) for measure in judgement["measures"].values()]
                table.add_row(escape(site), f"{judgement['patients']:,}", *numbers)
            console.print(table)
    console.print(f"Open {document['report']}", soft_wrap=True, highlight=False)


def _number(measure: Mapping[str, Any]) -> str:
    if measure["value"] is None:
        return "too noisy"
    low, high = measure["interval"]
    return f"{measure['value']:.3f}\n{low:.2f}-{high:.2f}"
