"""The first screen: the verdict, what it is about, what is wrong, and who took part."""

from __future__ import annotations

from collections.abc import Sequence

from synclave_shared.audit.report.facts import Facts, verdict
from synclave_shared.audit.report.markup import Markup, element, joined
from synclave_shared.audit.report.parts import badge, code, paragraph, section, table, under
from synclave_shared.audit.rules import remedy_of
from synclave_shared.audit.words import number, ranges, small
from synclave_shared.ledger.replay import Finding

__all__ = ["findings", "opening", "participants", "tiles"]

MAX_LISTED = 12
"""Findings of one kind on the page; all of them are in report.json."""


def opening(facts: Facts) -> Markup:
    """Title, which ledger in which state, and the verdict."""
    report, times = facts.reading.report, facts.reading.times
    days = list(dict.fromkeys(time[:10] for time in times))
    period = f", {' to '.join(days)} by the clocks of those who acted" if days else ""
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
            f"at delta {small(most.delta)}, {most.site}" if most else "nothing was spent",
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
    """What is not as it must be, the grave first, each kind with what to do."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in [*facts.errors, *facts.warnings]:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    rows = [
        (
            badge("error", "bad") if severity == "error" else badge("remark", "warn"),
            joined(_listed(found), element("p", code(name))),
            remedy_of(name),
        )
        for (severity, name), found in groups.items()
    ]
    return section(
        "findings",
        "What is wrong",
        table(("severity", "what", "what to do"), rows, wide=(1,))
        if rows
        else paragraph("Nothing. Every rule below holds."),
        under(
            "An error makes the ledger invalid; a remark is for you to judge. Recompute: ",
            code("synclave-audit verify LEDGER"),
        ),
    )


def _listed(found: Sequence[Finding]) -> Markup:
    lines = [element("li", f"{_place(finding)}: {finding.explanation}") for finding in found[:MAX_LISTED]]
    if len(found) > MAX_LISTED:
        lines.append(element("li", f"and {len(found) - MAX_LISTED} more, in report.json"))
    return element("ul", lines, class_="bare")


def _place(finding: Finding) -> str:
    if finding.file:
        return finding.file
    return "the whole ledger" if finding.entry is None else f"entry {finding.entry}"


def participants(facts: Facts) -> Markup:
    """Who acted, in which role, and what each agreed to."""
    reading = facts.reading
    rows = []
    for name, actor in reading.replay.actors.by_name.items():
        accepted = [index for (_, site), index in reading.accepted.items() if site == name]
        refused = [refusal.entry for refusal in reading.refused if refusal.site == name]
        site = reading.report.sites.get(name)
        seen = site.witnessed_size if site else None
        rows.append(
            (
                name,
                actor.role,
                _entries([reading.registered[name]]),
                _entries(accepted) if actor.role == "site" else "-",
                _entries(refused) if actor.role == "site" else "-",
                ("-" if actor.role == "coordinator" else "nothing") if seen is None else f"the first {seen} entries",
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
