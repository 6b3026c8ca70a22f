"""The first screen: the verdict, what it is about, what is wrong, and who took part."""

from __future__ import annotations

from collections.abc import Sequence

from synclave_shared.audit.ledgers import Found
from synclave_shared.audit.reading import Reading
from synclave_shared.audit.report.facts import Facts, verdict
from synclave_shared.audit.report.markup import Markup, element, joined
from synclave_shared.audit.report.parts import badge, code, paragraph, prose, section, table, under
from synclave_shared.audit.rules import remedy_of
from synclave_shared.audit.words import number, ranges, small

__all__ = ["findings", "opening", "participants", "tiles"]

MAX_LISTED = 12
"""Findings of one kind on the page; all of them are in report.json."""


def opening(facts: Facts) -> Markup:
    """Title, which ledgers in which state, and the verdict."""
    readings = facts.ledgers.readings
    title = f"Privacy audit of {len(readings)} ledgers" if facts.several_ledgers else "Privacy audit of a training"
    said = element("p", verdict(facts), class_=f"verdict {'good' if facts.ledgers.valid else 'bad'}")
    which = [_one(reading) for reading in readings] if not facts.several_ledgers else [said, _several(facts)]
    copies = [
        paragraph(f"Ledger {each.number}, of {each.size} entries, is a copy of ledger {each.of}, counted once.")
        for each in facts.ledgers.repeats
    ]
    return joined(element("h1", title), which, copies, None if facts.several_ledgers else said)


def _one(reading: Reading) -> Markup:
    report, period = reading.report, _period(reading)
    clocks = f", {period} by the clocks of those who acted" if period else ""
    return joined(
        element("p", f"Ledger {report.origin}, {report.size} entries{clocks}.", class_="soft"),
        element("p", "Merkle root ", code(report.root), class_="soft"),
    )


def _several(facts: Facts) -> Markup:
    rows = [
        (
            f"ledger {reading.number}",
            joined(reading.report.origin, element("br"), code(reading.report.root)),
            ", ".join(plan.name for plan in reading.report.plans) or "none",
            f"{reading.report.size:,}",
            _period(reading) or "-",
            badge("intact", "good") if reading.report.valid else badge("not valid", "bad"),
        )
        for reading in facts.ledgers.readings
    ]
    return table(("name here", "origin, Merkle root", "plans", "entries", "period", "by itself"), rows, numeric=(3,))


def _period(reading: Reading) -> str:
    return " to ".join(dict.fromkeys(time[:10] for time in reading.replay.times))


def tiles(facts: Facts) -> Markup:
    """Four numbers that say what this is about."""
    spent = [account for account in facts.accounts if account.mechanisms]
    most = max(spent, key=lambda account: account.epsilon, default=None)
    sites = facts.ledgers.sites
    plans = [plan for reading in facts.ledgers.readings for plan in reading.report.plans]
    witnesses = [
        site
        for site in sites
        if any(reading.report.sites[name].witnessed_size is not None for reading, name in site.members)
    ]
    shown = (
        ("Sites", str(len(sites)), f"{len(witnesses)} co-signed the history"),
        ("Trainings", str(len(plans)), f"{sum(plan.closed for plan in plans)} of them closed"),
        (
            "Highest cumulative epsilon",
            number(most.epsilon if most else 0.0, 2),
            f"at delta {small(most.delta)}, {most.site}" if most else "nothing was spent",
        ),
        (
            "Findings",
            str(len(facts.errors)),
            f"and {len(facts.warnings)} remark{'' if len(facts.warnings) == 1 else 's'}",
        ),
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
    groups: dict[tuple[str, str], list[Found]] = {}
    for each in [*facts.errors, *facts.warnings]:
        groups.setdefault((each.finding.severity, each.finding.code), []).append(each)
    rows = [
        (
            badge("error", "bad") if severity == "error" else badge("remark", "warn"),
            joined(_listed(found), element("p", code(name))),
            joined(*prose(remedy_of(name))),
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
            "An error means that the ledger must not be relied on; a remark is for you to judge. Recompute: ",
            code("synclave-audit verify LEDGER..."),
        ),
    )


def _listed(found: Sequence[Found]) -> Markup:
    lines = [element("li", _place(each), each.finding.explanation) for each in found[:MAX_LISTED]]
    if len(found) > MAX_LISTED:
        lines.append(element("li", f"and {len(found) - MAX_LISTED} more, in report.json"))
    return element("ul", lines, class_="bare")


def _place(found: Found) -> str:
    where = f" of ledger {found.ledger}" if found.ledger else ""
    if found.finding.file:
        return f"{found.finding.file}{where}: "
    if found.finding.entry is not None:
        return f"entry {found.finding.entry}{where}: "
    return f"ledger {found.ledger}: " if found.ledger else ""


def participants(facts: Facts) -> Markup:
    """Who acted, in which role, and what each agreed to."""
    several = facts.several_ledgers
    rows: list[tuple[str, ...]] = []
    for reading in facts.ledgers.readings:
        for name, actor in reading.replay.actors.by_name.items():
            accepted = [index for (_, site), index in reading.replay.accepted.items() if site == name]
            refused = [refusal.entry for refusal in reading.replay.refused if refusal.site == name]
            site = reading.report.sites.get(name)
            seen = site.witnessed_size if site else None
            nothing = "-" if actor.role == "coordinator" else "nothing"
            rows.append(
                (
                    *([str(reading.number)] if several else []),
                    name,
                    actor.role,
                    _entries([reading.replay.registered[name]]),
                    _entries(accepted) if actor.role == "site" else "-",
                    _entries(refused) if actor.role == "site" else "-",
                    nothing if seen is None else f"the first {seen} entries",
                )
            )
    heads = ("name", "role", "registered", "accepted a plan", "refused a plan", "co-signed")
    return section(
        "who",
        "Who took part",
        table((*(["ledger"] if several else []), *heads), rows),
        under(
            "A site that co-signed has seen that history and keeps it; its co-signature is what makes a second history"
            " provable."
        ),
    )


def _entries(indices: list[int]) -> str:
    return f"entry {ranges(indices)}" if len(indices) == 1 else (f"entries {ranges(indices)}" if indices else "-")
