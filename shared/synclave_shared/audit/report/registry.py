"""The facts that public registries of differential-privacy deployments ask for, as one JSON document.

Fields that a ledger cannot know are null, for the curator to fill in before anything is published.
"""

from __future__ import annotations

from typing import Any

from synclave_shared import __version__
from synclave_shared.audit.report.facts import Facts
from synclave_shared.audit.words import MODELS, in_words
from synclave_shared.canonical import finite

__all__ = ["registry_document"]


def registry_document(facts: Facts) -> dict[str, Any]:
    """What to tell a registry about this deployment."""
    readings = facts.ledgers.readings
    reports = [reading.report for reading in readings]
    plans = [state.plan for _, _, state in facts.plans]
    times = [time for reading in readings for time in reading.replay.times]
    coordinators = {report.coordinator_key for report in reports if report.coordinator_key}
    spent = [account for account in facts.accounts if account.mechanisms]
    most = max(spent, key=lambda account: account.epsilon, default=None)
    highest = facts.several[-1] if facts.several else None
    return {
        "format": "synclave-deployment/1",
        "deployment_name": ", ".join(plan.name for plan in plans) or None,
        "curator": {"coordinator_keys": sorted(coordinators), "organisation": None, "contact": None},
        "data_holders": [site.name for site in facts.ledgers.sites],
        "purpose": None,
        "region": None,
        "data": {
            "description": None,
            "schemas": sorted({plan.schema_name for plan in plans}),
            "modalities": sorted({plan.modality for plan in plans}),
        },
        "product": sorted({MODELS.get(plan.model.kind, plan.model.kind) for plan in plans}),
        "period": {"first": min(times), "last": max(times)} if times else None,
        "release_cadence": {
            "rounds_combined": sum(plan.rounds_combined for report in reports for plan in report.plans),
            "plans": len(plans),
            "closed": sum(plan.closed for report in reports for plan in report.plans),
        },
        "privacy": {
            "definition": "(epsilon, delta)-differential privacy",
            "unit_of_privacy": "patient, with everything the patient contributed at a site",
            "neighbours": "add or remove one patient",
            "epsilon": finite(most.epsilon) if most else None,
            "delta": most.delta if most else None,
            "epsilon_replace_one": finite(most.epsilon_replaced) if most else None,
            "epsilon_patient_at_several_sites": (
                {
                    "sites": len(highest.sites),
                    "epsilon": finite(highest.epsilon),
                    "delta": highest.delta,
                    "worst_choice_of_sites": highest.every_choice,
                }
                if highest
                else None
            ),
            "per_site": [
                {
                    "site": account.site,
                    "dataset": account.dataset,
                    "epsilon": finite(account.epsilon),
                    "delta": account.delta,
                    "budget_epsilon": account.budget,
                }
                for account in facts.accounts
            ],
        },
        "mechanisms": sorted(
            {in_words(each.mechanism) for account in spent for plan in account.plans for each in plan.operations}
        ),
        "accounting": {
            "scope": f"{facts.here} alone; a budget spans all ledgers of a data set",
            "method": "privacy loss distributions (dp-accounting), checked by Rényi divergences",
            "composition": "all releases of a data set over all plans of the ledgers",
        },
        "trust_model": {
            "model": "central at each data holder: it adds the noise before anything is released",
            "modes": facts.trust_modes,
            "trusted": ["each data holder, with its own records"],
        },
        "implementation": {
            "library": "Synclave",
            "report_version": __version__,
            "stated_by_sites": {
                stated.site: stated.versions for reading in readings for stated in reading.replay.versions
            },
        },
        "verification": {
            "ledgers": [
                {
                    "ledger": report.origin,
                    "entries": report.size,
                    "root": report.root,
                    "witnesses": [name for name, site in report.sites.items() if site.witnessed_size is not None],
                }
                for report in reports
            ],
            "valid": facts.ledgers.valid,
            "how": "synclave-audit verify LEDGER...",
        },
        "links": None,
    }
