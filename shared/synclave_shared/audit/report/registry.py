"""The facts that public registries of differential-privacy deployments ask for, as one JSON document.

Fields that a ledger cannot know are null, for the curator to fill in before anything is published.
"""

from __future__ import annotations

from typing import Any

from synclave_shared import __version__
from synclave_shared.audit.documents import finite
from synclave_shared.audit.report.facts import Facts
from synclave_shared.audit.words import MODELS, in_words

__all__ = ["registry_document"]


def registry_document(facts: Facts) -> dict[str, Any]:
    """What to tell a registry about this deployment."""
    reading = facts.reading
    states = reading.replay.plans
    spent = [account for account in facts.accounts if account.mechanisms]
    most = max(spent, key=lambda account: account.epsilon, default=None)
    highest = facts.several[-1] if facts.several else None
    return {
        "format": "synclave-deployment/1",
        "deployment_name": ", ".join(state.plan.name for state in states.values()) or None,
        "curator": {"coordinator_key": reading.report.coordinator_key, "organisation": None, "contact": None},
        "data_holders": reading.sites(),
        "purpose": None,
        "region": None,
        "data": {
            "description": None,
            "schemas": sorted({state.plan.schema_name for state in states.values()}),
            "modalities": sorted({state.plan.modality for state in states.values()}),
        },
        "product": sorted({MODELS.get(state.plan.model.kind, state.plan.model.kind) for state in states.values()}),
        "period": {"first": reading.times[0], "last": reading.times[1]} if reading.times else None,
        "release_cadence": {
            "rounds_combined": sum(plan.rounds_combined for plan in reading.report.plans),
            "plans": len(states),
            "closed": sum(plan.closed for plan in reading.report.plans),
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
            {in_words(each) for account in spent for plan in account.plans for each in plan.mechanisms}
        ),
        "accounting": {
            "scope": "this ledger alone; a budget spans all ledgers of a data set",
            "method": "privacy loss distributions (dp-accounting), checked by Rényi divergences",
            "composition": "all releases of a data set over all plans of this ledger",
        },
        "trust_model": {
            "model": "central at each data holder: it adds the noise before anything is released",
            "modes": sorted({state.plan.trust_mode for state in states.values()}),
            "trusted": ["each data holder, with its own records"],
        },
        "implementation": {
            "library": "Synclave",
            "report_version": __version__,
            "stated_by_sites": {stated.site: stated.versions for stated in reading.versions},
        },
        "verification": {
            "ledger": reading.report.origin,
            "entries": reading.report.size,
            "root": reading.report.root,
            "valid": reading.report.valid,
            "witnesses": [name for name, site in reading.report.sites.items() if site.witnessed_size is not None],
            "how": "synclave-audit verify LEDGER",
        },
        "links": None,
    }
