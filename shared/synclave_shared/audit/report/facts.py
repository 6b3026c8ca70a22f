"""Everything that the report says, as values, before any of it is written as a page or as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from synclave_shared import __version__
from synclave_shared.audit.claims import SHARED_BY, SeveralSites, all_datasets, several_sites
from synclave_shared.audit.documents import account_document, entries_document, finding_document, ledgers_document
from synclave_shared.audit.ledgers import Found, Ledgers
from synclave_shared.audit.reading import Reading
from synclave_shared.audit.report.formulas import FORMULAS
from synclave_shared.audit.rules import RULES
from synclave_shared.audit.spends import Account, accounts
from synclave_shared.canonical import finite
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.replay import PlanState

__all__ = ["Facts", "facts_document", "gather", "verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The contents of a report.

    Attributes:
        ledgers: the ledgers and their verdicts.
        accounts: what each site spent on each data set.
        several: the loss of a patient at two and at three sites, as far as so many sites spent.
        together: of each site with several data sets, all of them together.
    """

    ledgers: Ledgers
    accounts: tuple[Account, ...]
    several: tuple[SeveralSites, ...]
    together: tuple[SeveralSites, ...]

    @property
    def errors(self) -> list[Found]:
        """Findings that make the ledgers invalid."""
        return [found for found in self.ledgers.all_findings() if found.finding.severity == "error"]

    @property
    def warnings(self) -> list[Found]:
        """Findings for a person to judge."""
        return [found for found in self.ledgers.all_findings() if found.finding.severity != "error"]

    @property
    def plans(self) -> list[tuple[Reading, str, PlanState]]:
        """Every plan: in which ledger, its digest, and what became of it."""
        return [
            (reading, digest, state)
            for reading in self.ledgers.readings
            for digest, state in reading.replay.plans.items()
        ]

    @property
    def trust_modes(self) -> list[str]:
        """Trust modes of the plans."""
        return sorted({state.plan.trust_mode for _, _, state in self.plans})

    @property
    def several_ledgers(self) -> bool:
        """Whether the report is about more than one ledger."""
        return len(self.ledgers.readings) > 1

    @property
    def here(self) -> str:
        """In what a number was counted, for a sentence."""
        return f"these {len(self.ledgers.readings)} ledgers" if self.several_ledgers else "this ledger"


def gather(ledgers: Ledgers) -> Facts:
    """Compute everything that the report says about ledgers."""
    found = tuple(accounts(ledgers))
    several = (several_sites(found, count) for count in SHARED_BY)
    owners = [account.site for account in found]
    together = (all_datasets(found, site) for site in dict.fromkeys(owners) if owners.count(site) > 1)
    return Facts(
        ledgers=ledgers,
        accounts=found,
        several=tuple(each for each in several if each),
        together=tuple(each for each in together if each),
    )


def verdict(facts: Facts) -> str:
    """The whole result in one sentence."""
    errors, warnings = len(facts.errors), len(facts.warnings)
    subject = facts.here[0].upper() + facts.here[1:]
    are = "are" if facts.several_ledgers else "is"
    if errors:
        wrong = "one thing is not as it must be" if errors == 1 else f"{errors} things are not as they must be"
        return f"{subject} must not be relied on: {wrong}."
    unpinned = any(COORDINATOR not in reading.pinned for reading in facts.ledgers.readings)
    more = f", with {warnings} {'remark' if warnings == 1 else 'remarks'} for you to judge" if warnings else ""
    key = "keys below are the ones" if facts.several_ledgers else "key below is the one"
    condition = f", provided that the coordinator's {key} you know" if unpinned else ""
    spent = [account for account in facts.accounts if account.mechanisms]
    if not spent:
        it = "them" if facts.several_ledgers else "it"
        return f"{subject} {are} intact{more}{condition}; no site has spent anything in {it}."
    limit = (
        f"no site spent more than its budget in {'all of them together' if facts.several_ledgers else facts.here}"
        if all(account.budgets for account in spent)
        else f"no site spent more than a budget it stated in {facts.here}, but not every data set has one"
    )
    return f"{subject} {are} intact and {limit}{more}{condition}."


def facts_document(facts: Facts) -> dict[str, Any]:
    """The report as JSON values, for programs."""
    readings = facts.ledgers.readings
    told = ledgers_document(facts.ledgers)
    for described, reading in zip(told["ledgers"], readings, strict=True):
        report = reading.report.to_json()
        described |= {
            **{name: report[name] for name in ("coordinator_key", "sites", "plans")},
            "times": list(reading.replay.times),
            "checkpoints_given": reading.seen,
            "keys_given": sorted(reading.pinned),
            "versions": [asdict(stated) for stated in reading.replay.versions],
        }
    del told["findings_over_all"]
    return {
        "format": "synclave-audit-report/2",
        "synclave_version": __version__,
        "verdict": verdict(facts),
        **told,
        "findings": [finding_document(found) for found in (*facts.errors, *facts.warnings)],
        "unit": "patient",
        "adjacency": "add-or-remove-one",
        "accounts": [account_document(account) for account in facts.accounts],
        "patient_at_several_sites": [_several(each) for each in facts.several],
        "all_datasets_of_a_site": [_several(each) for each in facts.together],
        "checked": [
            {
                "rule": rule.title,
                "how": rule.how,
                "of": rule.of,
                "count": rule.count(facts.ledgers),
                "codes": list(rule.codes),
            }
            for rule in RULES
        ],
        "formulas": [asdict(formula) for formula in FORMULAS],
    }


def _several(each: SeveralSites) -> dict[str, Any]:
    document: dict[str, Any] = finite(asdict(each))
    return {**document, "entries": entries_document(each.entries)}
