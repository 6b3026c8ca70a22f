"""Everything that the report says, as values, before any of it is written as a page or as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from synclave_shared import __version__
from synclave_shared.audit.claims import SHARED_BY, SeveralSites, all_datasets, several_sites
from synclave_shared.audit.documents import account_document, finite
from synclave_shared.audit.reading import Reading
from synclave_shared.audit.report.formulas import FORMULAS
from synclave_shared.audit.rules import RULES, remedy_of
from synclave_shared.audit.spends import Account, accounts
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.replay import Finding

__all__ = ["Facts", "facts_document", "gather", "verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The contents of a report.

    Attributes:
        reading: the ledger and its verdict.
        accounts: what each site spent on each data set.
        several: the loss of a patient at two and at three sites, as far as so many sites spent.
        together: of each site with several data sets, all of them together.
    """

    reading: Reading
    accounts: tuple[Account, ...]
    several: tuple[SeveralSites, ...]
    together: tuple[SeveralSites, ...]

    @property
    def errors(self) -> list[Finding]:
        """Findings that make the ledger invalid."""
        return [finding for finding in self.reading.report.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings for a person to judge."""
        return [finding for finding in self.reading.report.findings if finding.severity != "error"]


def gather(reading: Reading) -> Facts:
    """Compute everything that the report says about a ledger."""
    found = tuple(accounts(reading))
    several = (several_sites(found, count) for count in SHARED_BY)
    owners = [account.site for account in found]
    together = (all_datasets(found, site) for site in dict.fromkeys(owners) if owners.count(site) > 1)
    return Facts(
        reading=reading,
        accounts=found,
        several=tuple(each for each in several if each),
        together=tuple(each for each in together if each),
    )


def verdict(facts: Facts) -> str:
    """The whole result in one sentence."""
    errors, warnings = len(facts.errors), len(facts.warnings)
    if errors:
        wrong = "one thing is not as it must be" if errors == 1 else f"{errors} things are not as they must be"
        return f"This ledger must not be relied on: {wrong}."
    unpinned = COORDINATOR not in facts.reading.pinned
    more = f", with {warnings} {'remark' if warnings == 1 else 'remarks'} for you to judge" if warnings else ""
    condition = ", provided that the coordinator's key below is the one you know" if unpinned else ""
    spent = [account for account in facts.accounts if account.mechanisms]
    if not spent:
        return f"This ledger is intact{more}{condition}; no site has spent anything in it."
    limit = (
        "no site spent more than its budget in this ledger"
        if all(account.budgets for account in spent)
        else "no site spent more than a budget it stated in this ledger, but not every data set has one"
    )
    return f"This ledger is intact and {limit}{more}{condition}."


def facts_document(facts: Facts) -> dict[str, Any]:
    """The report as JSON values, for programs."""
    reading = facts.reading
    report = reading.report.to_json()
    return {
        "format": "synclave-audit-report/1",
        "synclave_version": __version__,
        "verdict": verdict(facts),
        **{name: report[name] for name in ("valid", "origin", "size", "root", "coordinator_key")},
        "times": list(reading.times),
        "findings": [{**asdict(finding), "remedy": remedy_of(finding.code)} for finding in reading.report.findings],
        "sites": report["sites"],
        "plans": report["plans"],
        "unit": "patient",
        "adjacency": "add-or-remove-one",
        "accounts": [{**account_document(account), "exceeded": account.exceeded} for account in facts.accounts],
        "patient_at_several_sites": [_several(each) for each in facts.several],
        "all_datasets_of_a_site": [_several(each) for each in facts.together],
        "checked": [
            {
                "rule": rule.title,
                "how": rule.how,
                "of": rule.of,
                "count": rule.count(reading),
                "codes": list(rule.codes),
            }
            for rule in RULES
        ],
        "checkpoints_given": reading.seen,
        "keys_given": sorted(reading.pinned),
        "versions": [asdict(stated) for stated in reading.versions],
        "formulas": [asdict(formula) for formula in FORMULAS],
    }


def _several(each: SeveralSites) -> dict[str, Any]:
    return {**asdict(each), "epsilon": finite(each.epsilon)}
