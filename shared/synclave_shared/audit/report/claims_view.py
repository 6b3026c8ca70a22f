"""What is claimed against whom, in the words of the threat model."""

from __future__ import annotations

from synclave_shared.audit.report.facts import Facts
from synclave_shared.audit.report.markup import Markup, joined
from synclave_shared.audit.report.parts import paragraph, section, source, table, under
from synclave_shared.audit.words import TRUST, number, small

__all__ = ["claims"]


def claims(facts: Facts) -> Markup:
    """The claim, its neighbours, and the patients for whom it is another number."""
    modes = facts.trust_modes
    rows: list[tuple[str, str, Markup]] = []
    spent = [account for account in facts.accounts if account.mechanisms]
    if spent:
        most = max(spent, key=lambda account: account.epsilon)
        where = f"{most.site}, {most.dataset}"
        rows.append(
            (
                "One patient is added or removed, at the site that spent most",
                where,
                joined(_value(most.epsilon, most.delta), source("F1", most.entries)),
            )
        )
        rows.append(
            (
                "One patient is replaced by another",
                where,
                joined(_value(most.epsilon_replaced, most.delta), source("F5", most.entries)),
            )
        )
    for each in facts.together:
        who = "A patient who is in every data set of one site"
        rows.append((who, ", ".join(each.sites), joined(_value(each.epsilon, each.delta), source("F7", each.entries))))
    for each in facts.several:
        which = "the worst choice of sites" if each.every_choice else "of the sites with the largest epsilon"
        who = f"A patient known to {len(each.sites)} sites, added or removed at all of them ({which})"
        rows.append((who, ", ".join(each.sites), joined(_value(each.epsilon, each.delta), source("F6", each.entries))))
    return section(
        "claims",
        "What is claimed, and against whom",
        paragraph(
            "For each site: whoever sees the models, the synthetic patients, or what is named below, learns about any"
            " one patient no more than epsilon and delta allow, whatever else is known about the patient. The unit is"
            " the patient with everything contributed at the site, not a visit or a value."
        ),
        [paragraph(f"Trust mode {mode}: ", TRUST.get(mode, "not known to this version.")) for mode in modes],
        table(("question", "where", "epsilon"), rows) if rows else None,
        under("Sites cannot see whether they share a patient, so the ledger's own number is per site."),
    )


def _value(epsilon: float, delta: float) -> str:
    return f"{number(epsilon)} at delta {small(delta)}"
