"""``synclave demo``: the main job from beginning to end, on real data that come with Synclave.

Nothing here is a shortcut: the sites are set up by ``synclave-site init``, the training is a deployed federation, and
the synthetic patients, the report and the audit are made by the same functions that the other commands call.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from synclave_server.evaluate_view import draw_headline, draw_sites, run_evaluation
from synclave_server.examples import Example, find_example
from synclave_server.plan_view import budget_of, cost_document
from synclave_server.planning import PlanFile, PrivacyTarget, resolve_privacy
from synclave_server.preparation import coordinator_key, prepare_run, read_draft, require_valid
from synclave_server.progress_view import Steps, training_view
from synclave_server.sites import set_up_sites, socket_folder
from synclave_shared.canonical import decimal_text
from synclave_shared.data.modality import AnySchema
from synclave_shared.data.notes.reading import load_notes
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.tables import load_patients
from synclave_shared.errors import ConfigurationError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import verify_ledger

__all__ = ["draw_demo", "run_demo"]

EXAMPLES: Final = {"codes": "diabetes", "series": "sepsis", "notes": "notes"}
"""The embedded example of each modality."""

LARGEST_COHORT: Final = 10_000
"""Synthetic patients of the demo: as many as held-out ones, at most this many, so that it stays under four minutes."""


def _new_folder(out: Path | None) -> Path:
    folder = out or Path("synclave-demo") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            expected="a new or empty folder for the demo",
            found=f"{folder}, which is not empty",
            remedy="Choose another --out, or leave it away for a new folder by time.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _held_out_patients(schema: AnySchema, example: Example) -> int:
    if isinstance(schema, SeriesSchema):
        return sum(len(load_series(schema, path)) for path in example.test)
    if isinstance(schema, NotesSchema):
        return sum(len(load_notes(schema, path)) for path in example.test)
    assert isinstance(schema, Schema)  # noqa: S101 - the demo knows these three
    return sum(len(load_patients(schema, path)) for path in example.test)


def _adapted(plan_file: PlanFile, epsilon: Decimal | None, rounds: int | None) -> PlanFile:
    """The example's plan with another target or number of rounds."""
    privacy, federation = plan_file.privacy, plan_file.federation
    if epsilon is not None:
        privacy = privacy.model_copy(update={"epsilon": epsilon, "noise_multiplier": None})
    if rounds is not None:
        federation = federation.model_copy(update={"rounds": rounds})
    return plan_file.model_copy(update={"privacy": privacy, "federation": federation})


def run_demo(
    modality: str, *, out: Path | None, epsilon: Decimal | None, rounds: int | None, seed: int, console: Console
) -> dict[str, Any]:
    """Train, sample, evaluate and audit; returns paths and figures.

    Args:
        modality: a key of :data:`EXAMPLES`.
        out: new folder for everything; None makes one named by the time.
        epsilon: budget and target of every site; None takes the plan's.
        rounds: training rounds; None takes the plan's.
        seed: of sampling and evaluation. The hospitals' noise has no seed.
        console: where to show progress.

    Raises:
        SynclaveError: whatever went wrong; the folder keeps the logs.
    """
    from synclave_server.federation.deployment import run_deployed
    from synclave_server.sampling.engine import sample

    started = time.monotonic()
    example = find_example(EXAMPLES[modality])
    folder = _new_folder(out)
    console.print(
        f"[bold]Synclave demo[/bold]: {len(example.sites)} hospitals on this machine; all goes to {folder}",
        soft_wrap=True,
    )
    steps = Steps(console, 6)
    with socket_folder(folder) as sockets:
        with steps.step("The plan: what it will cost each hospital, before anything is signed"):
            draft = read_draft(example.plan)
            target = _adapted(draft.plan_file, epsilon, rounds)
            privacy = resolve_privacy(target)
            cost = cost_document(privacy, target.federation)
            # The plan now states its noise: it is not calibrated a second time.
            settled = PrivacyTarget.model_validate(privacy.model_dump(exclude={"unit", "adjacency"}))
            draft = replace(draft, plan_file=target.model_copy(update={"privacy": settled}))
            budget = budget_of(target.privacy.epsilon, cost["epsilon"])
            steps.note(
                f"epsilon {cost['epsilon']:.4f} at delta {cost['delta']} per {cost['unit']}, noise multiplier"
                f" {cost['noise_multiplier']}, {cost['steps']} steps in {cost['rounds']} rounds"
            )
        with steps.step("The hospitals: settings, keys, policies and budgets"):
            home = folder / "coordinator"
            key_name = coordinator_key(home, create=True)
            sites = set_up_sites(
                folder / "sites",
                example.sites,
                schema_file=example.schema,
                coordinator_key=SigningKey.named(key_name).public_text,
                dataset=EXAMPLES[modality],
                epsilon=budget,
                delta=privacy.delta,
                socket_folder=sockets,
            )
            plan, run = prepare_run(
                draft, key_name=key_name, site_keys={site.name: site.public_key for site in sites}, out=folder / "run"
            )
            steps.note(", ".join(site.name for site in sites))
        with (
            steps.step("The training: a SuperLink, and a vault and a gateway at each hospital"),
            training_view(console) as view,
        ):
            run_deployed(run, key_name, [site.settings for site in sites], view)
        with steps.step("The synthetic patients"):
            cohort = folder / ("synthetic" if isinstance(draft.schema, SeriesSchema) else "synthetic.parquet")
            asked = min(_held_out_patients(draft.schema, example), LARGEST_COHORT)
            provenance = sample(run.snapshot, asked, out=cohort, seed=seed)
            shown = ", ".join(f"{count} {value}" for value, count in provenance.request.label_counts.items())
            steps.note(f"{asked} patients; {draft.schema.label.title}: {shown}")
        with steps.step("The report: synthetic beside held-out real patients"):
            # These data are public. Where they are not, training patients are compared inside their hospital only.
            evaluation = run_evaluation(
                draft.schema_path,
                example.test,
                cohort,
                list(example.sites.values()),
                run.path,
                out=folder / "report",
                seed=seed,
                targets=(),
                sites=example.held_out,
                console=console,
            )
        with steps.step("The audit: every hospital's budget recomputed from the ledger alone"):
            audit = verify_ledger(run.ledger)
            require_valid(audit, run.ledger)
            steps.note(f"{audit.size} entries, tree, signatures and witnesses verified")
    return {
        "out": str(folder),
        "report": evaluation["report"],
        "metrics": evaluation["metrics"],
        "synthetic": str(cohort),
        "snapshot": str(run.snapshot),
        "ledger": str(run.ledger),
        "plan_digest": plan.digest,
        "patients": asked,
        "sites": {
            name: {"epsilon": site.epsilon, "delta": decimal_text(plan.privacy.delta), "budget": decimal_text(budget)}
            for name, site in sorted(audit.sites.items())
        },
        "note": _first_note(draft.schema, cohort),
        "measures": evaluation["measures"],
        "site_spread": evaluation["site_spread"],
        "seconds": round(time.monotonic() - started, 1),
    }


def _first_note(schema: AnySchema, cohort: Path) -> str | None:
    """What the first synthetic patient's note says; None where patients have no notes."""
    if not isinstance(schema, NotesSchema):
        return None
    return load_notes(schema, cohort, "synthetic").notes[0][0].text


def draw_demo(document: dict[str, Any], console: Console) -> None:
    """What came out, and what to open."""
    spent = Table(title="What each hospital spent, recomputed by the auditor", title_justify="left")
    for heading in ("hospital", "epsilon", "budget", "delta"):
        spent.add_column(heading, justify="left" if heading == "hospital" else "right")
    for name, site in document["sites"].items():
        spent.add_row(escape(name), f"{site['epsilon']:.4f}", site["budget"], str(site["delta"]))
    console.print()
    console.print(spent)
    if document["note"] is not None:
        console.print(Panel(Text(document["note"].strip()), title="A synthetic note", title_align="left"))
    draw_headline(document["measures"], console)
    draw_sites(document["site_spread"], console)
    console.print(f"\nDone in {document['seconds']:.0f} s. Open:")
    for what, key in (("the report", "report"), ("the synthetic patients", "synthetic"), ("the ledger", "ledger")):
        console.print(f"  {what:<23}{document[key]}", soft_wrap=True, highlight=False)
    console.print(f"Check it yourself: synclave-audit verify {document['ledger']}", soft_wrap=True, highlight=False)
