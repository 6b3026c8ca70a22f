"""What was checked and how, the keys, the software, what no ledger shows, the standard's questions, the formulas."""

from __future__ import annotations

from synclave_shared.audit.reading import Place
from synclave_shared.audit.report.facts import Facts
from synclave_shared.audit.report.formulas import FORMULAS
from synclave_shared.audit.report.markup import Child, Markup, element, joined
from synclave_shared.audit.report.parts import badge, code, paragraph, section, table, under
from synclave_shared.audit.report.standards import answers
from synclave_shared.audit.rules import RULES
from synclave_shared.audit.words import listed

__all__ = ["checked", "keys", "limits", "recompute", "software", "standard"]

STYLES = {"covered": "good", "partly": "warn", "not covered": "plain"}


def checked(facts: Facts) -> Markup:
    """Every rule with how often it was applied and how often it failed."""
    rows: list[tuple[Child, ...]] = []
    for rule in RULES:
        failed = [found.finding for found in facts.ledgers.all_findings() if found.finding.code in rule.codes]
        grave = any(finding.severity == "error" for finding in failed)
        count = rule.count(facts.ledgers)
        if failed:
            name = "error" if grave else "remark"
            state = badge(f"{len(failed)} {name}{'s' * (len(failed) > 1)}", "bad" if grave else "warn")
        else:
            state = badge("holds", "good") if count else badge("nothing to check", "plain")
        rows.append((joined(element("strong", rule.title), element("br"), rule.how), f"{count:,} {rule.of}", state))
    return section(
        "checks",
        "What was checked, and how",
        table(("rule", "applied to", "result"), rows, wide=(0,)),
        under(
            "Everything in the ledger is taken as written by an adversary. The rules, byte by byte, are in"
            " docs/ledger-format.md, from which an outsider can write a verifier. Recompute: ",
            code("synclave-audit verify LEDGER..."),
        ),
    )


def keys(facts: Facts) -> Markup:
    """The keys on which everything rests."""
    known: dict[tuple[str, str, tuple[str, ...]], list[Place]] = {}
    compared = set()
    for reading in facts.ledgers.readings:
        for name, actor in reading.replay.actors.by_name.items():
            who = name, actor.role, tuple(actor.keys)
            known.setdefault(who, []).append(reading.place(reading.replay.registered[name]))
            if (actor.role if actor.role == "coordinator" else name) in reading.pinned:
                compared.add(who)
    rows: list[tuple[Child, ...]] = [
        (
            who[0],
            who[1],
            [code(key) for key in who[2]],
            f"entry {listed(places)}",
            badge("compared with yours", "good") if who in compared else badge("to be compared", "warn"),
        )
        for who, places in known.items()
    ]
    return section(
        "keys",
        "The keys, and how to compare them",
        paragraph(
            "A ledger cannot prove whose keys it names. Ask the coordinator and every hospital for their public key"
            " over a channel that the coordinator does not control (a letter, a call, a visit), compare all 44"
            " characters, and give them to the audit with --coordinator-key and --site-key. A coordinator who invents"
            " hospitals is found by nothing else."
        ),
        table(("name", "role", "public key (Ed25519, base64)", "registered", "state"), rows),
    )


def software(facts: Facts) -> Markup:
    """Versions that sites stated."""
    rows: list[tuple[Child, ...]] = [
        (
            stated.site,
            f"entry {listed([reading.place(stated.entry)])}",
            ", ".join(f"{name} {version}" for name, version in stated.versions.items()) or "none",
        )
        for reading in facts.ledgers.readings
        for stated in reading.replay.versions
    ]
    return section(
        "software",
        "Software that sites stated",
        table(("site", "stated in", "versions"), rows) if rows else paragraph("No site stated any."),
        under("Signed by the site with its acceptance; not checked by anybody else."),
    )


def limits(facts: Facts) -> Markup:
    """What this report does not show."""
    count = sum(reading.seen for reading in facts.ledgers.readings)
    seen = (
        f"{count} checkpoints of sites were compared."
        if count
        else "No checkpoint kept by a site was given to this audit (--seen)."
    )
    unpinned = dict.fromkeys(
        name
        for reading in facts.ledgers.readings
        for name, actor in reading.replay.actors.by_name.items()
        if not {name, actor.role} & reading.pinned - {"site"}
    )
    whose = f"Keys not compared: {', '.join(unpinned)}." if unpinned else "All keys were compared."
    points = (
        ("Whose keys these are.", whose),
        ("That nothing is missing at the end.", f"An older state of a ledger verifies as well. {seen}"),
        (
            "That the noise was added.",
            "A site that does not do what it signs for harms its own patients. The ledger holds the claim; the site's"
            " own tests and an attack on the model check it.",
        ),
        (
            f"What happened outside {facts.here}.",
            "A site may take part in many trainings, of several coordinators. Only its own journal composes all that it"
            " ever spent: ask for the ledgers of all its trainings, and give them to one audit.",
        ),
        ("Quality, fairness, and security of the hospitals' systems.", "Not in a ledger."),
        ("Side channels.", "How long a round took, or that a site failed, may depend on its data."),
    )
    return section(
        "limits",
        "What this does not show",
        element("ul", [element("li", element("strong", title), f" {text}") for title, text in points], class_="plain"),
    )


def standard(facts: Facts) -> Markup:
    """The questions of NIST SP 800-226."""
    found = answers(facts)
    counts = ", ".join(f"{sum(each.coverage == name for each in found)} {name}" for name in STYLES)
    rows = [
        (
            joined(element("strong", answer.subject), element("br"), answer.question),
            badge(answer.coverage, STYLES[answer.coverage]),
            joined(answer.text, " ", element("a", "Where", href=f"#{answer.place}")),
        )
        for answer in found
    ]
    return section(
        "standard",
        "The questions of NIST SP 800-226",
        paragraph(
            "Guidelines for Evaluating Differential Privacy Guarantees (NIST, 2025), its subjects in our words:"
            f" {counts} by this report."
        ),
        table(("subject", "coverage", "answer"), rows, wide=(0, 2)),
    )


def recompute(facts: Facts) -> Markup:
    """How every number comes about, and the command that gives it again."""
    rows = [
        (
            element("strong", formula.name, id=formula.name),
            joined(element("strong", formula.title), element("br"), formula.text),
            code(formula.command),
        )
        for formula in FORMULAS
    ]
    kinds: dict[str, list[Place]] = {}
    for reading in facts.ledgers.readings:
        for kind, indices in reading.replay.kinds.items():
            kinds.setdefault(kind, []).extend(map(reading.place, indices))
    return section(
        "recompute",
        "How to compute every number again",
        table(("name", "what it is", "command"), rows, wide=(1,)),
        paragraph(
            "LEDGER is the folder or the exported file; of several ledgers, give all, in the same order. Any entry in"
            " plain words: ",
            code("synclave-audit explain LEDGER N"),
            ". This page has no scripts and loads nothing; the same numbers are in report.json beside it.",
        ),
        table(
            ("kind of entry", "count", "entries"),
            [(kind, f"{len(places):,}", listed(places)) for kind, places in kinds.items()],
            numeric=(1,),
        ),
    )
