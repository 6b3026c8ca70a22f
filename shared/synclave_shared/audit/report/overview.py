"""The first screen: the verdict, what it is about, what is wrong, and who took part."""

from __future__ import annotations

from synclave_shared.audit.report.facts import Facts, verdict
from synclave_shared.audit.report.markup import Markup, element, joined
from synclave_shared.audit.report.parts import badge, code, paragraph, section, table, under
from synclave_shared.audit.rules import remedy_of
from synclave_shared.audit.words import number, ranges
from synclave_shared.ledger.replay import Finding

__all__ = ["findings", "opening", "participants", "tiles"]

MAX_LISTED = 200
"""Findings on the page; all of them are in report.json."""


def opening(facts: Facts) -> Markup:
    """Title, which ledger in which state, and the verdict."""
    report, times = facts.reading.report, facts.reading.times
    period = f", {times[0][:10]} to {times[1][:10]} by the clocks of those who acted" if times else ""
    return joined(
        element("h1", "Privacy audit of a training"),
        element("p", f"Ledger {report.origin}, {report.size} entries{period}.", class_="soft"),
        element("p", "Merkle root ", code(report.root), class_="soft"),
        element("p", verdict(facts), class_=f"verdict {'good' if report.valid else 'bad'}"),
    )


def tiles(facts: Facts) -> Markup:
    """Four numbers that say what this is about."""
    spent = [account for account in facts.accounts if account.mechanisms]
    most = max(spent, key=lambda account: account.epsilon, default=None)
    report = facts.reading.report
    witnesses = [name for name, site in report.sites.items() if site.witnessed_size is not None]
    shown = (
        ("Sites", str(len(report.sites)), f"{len(witnesses)} co-signed the history"),
        ("Trainings", str(len(report.plans)), f"{sum(plan.closed for plan in report.plans)} of them closed"),
        (
            "Highest cumulative epsilon",
            number(most.epsilon if most else 0.0, 2),
            f"at delta {most.delta:g}, {most.site}" if most else "nothing was spent",
        ),
        ("Findings", str(len(facts.errors)), f"and {len(facts.warnings)} remarks"),
    )
    return element(
        "dl",
        [
            element(
                "div", element("dt", label), element("dd", value), element("dd", remark, class_="under"), class_="tile"
            )
            for label, value, remark in shown
        ],
        class_="tiles",
    )


def findings(facts: Facts) -> Markup:
    """What is not as it must be, the grave first, each with what to do."""
    ordered = [*facts.errors, *facts.warnings]
    if not ordered:
        body = paragraph("None. Every rule below holds.")
    else:
        body = table(
            ("severity", "where", "what", "what to do"),
            [
                (
                    badge("error", "bad") if finding.severity == "error" else badge("remark", "warn"),
                    _place(finding),
                    joined(finding.explanation, " ", code(finding.code)),
                    remedy_of(finding.code),
                )
                for finding in ordered[:MAX_LISTED]
            ],
            wide=2,
        )
    more = under(f"{len(ordered) - MAX_LISTED} more are in report.json.") if len(ordered) > MAX_LISTED else None
    return section(
        "findings",
        "What is wrong",
        body,
        more,
        under(
            "An error makes the ledger invalid; a remark is for you to judge. Recompute: ",
            code("synclave-audit verify LEDGER"),
        ),
    )


def _place(finding: Finding) -> str:
    if finding.file:
        return finding.file
    return "the whole ledger" if finding.entry is None else f"entry {finding.entry}"


def participants(facts: Facts) -> Markup:
    """Who acted, in which role, and what each agreed to."""
    reading = facts.reading
    rows = []
    for name, role in reading.replay.roles.items():
        accepted = [index for (_, site), index in reading.accepted.items() if site == name]
        refused = [index for _, site, _, index in reading.refused if site == name]
        site = reading.report.sites.get(name)
        seen = site.witnessed_size if site else None
        rows.append(
            (
                name,
                role,
                _entries([reading.registered[name]]),
                _entries(accepted) if role == "site" else "-",
                _entries(refused) if role == "site" else "-",
                ("-" if role == "coordinator" else "nothing") if seen is None else f"the first {seen} entries",
            )
        )
    return section(
        "who",
        "Who took part",
        table(("name", "role", "registered", "accepted a plan", "refused a plan", "co-signed"), rows),
        under(
            "A site that co-signed has seen that history and keeps it; its co-signature is what makes a second history"
            " provable."
        ),
    )


def _entries(indices: list[int]) -> str:
    return f"entry {ranges(indices)}" if len(indices) == 1 else (f"entries {ranges(indices)}" if indices else "-")
