"""``synclave simulate``: a user's plan and data folders, trained on this machine in Flower's simulation engine."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console

from synclave_server.plan_view import budget_of, cost_document
from synclave_server.planning import resolve_privacy
from synclave_server.preparation import Draft, coordinator_key, prepare_run, read_draft, require_valid
from synclave_server.progress_view import Steps, training_view
from synclave_server.sites import set_up_sites, socket_folder
from synclave_shared.data.modality import check_folder
from synclave_shared.errors import ConfigurationError, DataError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import verify_ledger

__all__ = ["run_simulation"]


def _check_data(draft: Draft, folders: Mapping[str, Path]) -> None:
    """Look at every site's data before anything is set up: here, unlike in a federation, we may."""
    for name, folder in folders.items():
        report = check_folder(draft.schema, folder)
        if not report.ok:
            first = report.faults[0]
            raise DataError(
                expected=f"data of site {name} that fit the schema {draft.schema.name}",
                found=f"{report.fault_count} fault(s) in {folder}, the first in {first.file}"
                + (f", row {first.row}" if first.row else "")
                + (f", column {first.column}" if first.column else "")
                + f": expected {first.expected}, found {first.found}",
                remedy=f"See all of them: synclave-site check-data --schema {draft.schema_path} {folder}",
            )


def run_simulation(
    plan_path: Path, folders: Mapping[str, Path], *, out: Path, budget: Decimal | None, workers: int, console: Console
) -> dict[str, Any]:
    """Set up the sites, train, and verify the ledger; returns paths and epsilons.

    Args:
        plan_path: plan file.
        folders: data folder of each site by name.
        out: the run's folder. If it holds an interrupted run of the same plan and sites, that run is resumed.
        budget: epsilon that each site may spend; None allows just what the plan spends.
        workers: gateways that run at a time.
        console: where to show progress.

    Raises:
        SynclaveError: whatever went wrong; the folder keeps the logs, and the same call resumes.
    """
    from synclave_server.federation.simulation import run_simulated

    for name, folder in folders.items():
        if not folder.is_dir():
            raise ConfigurationError(
                expected=f"a data folder for site {name}",
                found=f"nothing at {folder}",
                remedy="Write --site NAME=DIR with the folder of the site's tables.",
            )
    steps = Steps(console, 3)
    with socket_folder(out) as sockets:
        with steps.step("The plan and the sites"):
            draft = read_draft(plan_path)
            _check_data(draft, folders)
            privacy = resolve_privacy(draft.plan_file)
            cost = cost_document(privacy, draft.plan_file.federation)
            key_name = coordinator_key(out / "coordinator", create=True)
            sites = set_up_sites(
                out / "sites",
                folders,
                schema_file=draft.schema_path,
                coordinator_key=SigningKey.named(key_name).public_text,
                dataset=draft.plan_file.name,
                epsilon=budget or budget_of(draft.plan_file.privacy.epsilon, cost["epsilon"]),
                delta=privacy.delta,
                socket_folder=sockets,
                models_folder=draft.models_folder,
            )
            plan, run = prepare_run(
                draft, key_name=key_name, site_keys={site.name: site.public_key for site in sites}, out=out
            )
            steps.note(f"epsilon {cost['epsilon']:.4f} at delta {cost['delta']}, {len(sites)} sites")
        with steps.step("The training, in Flower's simulation engine"), training_view(console) as view:
            run_simulated(run, key_name, [site.settings for site in sites], view, workers=workers)
        with steps.step("The audit"):
            audit = verify_ledger(run.ledger)
            require_valid(audit, run.ledger)
            steps.note(f"{audit.size} entries verified")
    return {
        "out": str(run.path.resolve()),
        "snapshot": str(run.snapshot.resolve()),
        "ledger": str(run.ledger.resolve()),
        "metrics": str(run.metrics.resolve()),
        "plan_digest": plan.digest,
        "sites": {name: {"epsilon": site.epsilon, "delta": site.delta} for name, site in sorted(audit.sites.items())},
    }
