"""What was spent, by site and data set, with the plot; and every mechanism in words."""

from __future__ import annotations

from collections import Counter
from typing import TypeGuard

from synclave_shared.audit.report.chart import spend_chart
from synclave_shared.audit.report.facts import Facts
from synclave_shared.audit.report.markup import Child, Markup, element, joined
from synclave_shared.audit.report.parts import (
    badge,
    code,
    figures,
    formula,
    paragraph,
    section,
    table,
    under,
)
from synclave_shared.audit.spends import MAX_POINTS, Account
from synclave_shared.audit.words import MODELS, in_words, number, ranges, small
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["mechanisms", "spends"]

Operation = PoissonGaussian | GaussianSum

NEAR = 0.9
"""Share of the budget from which on a site is told that little is left."""


def spends(facts: Facts) -> Markup:
    """A card for each data set of each site."""
    over = {finding.entry for finding in facts.errors if finding.code == "budget-exceeded"}
    cards = [
        _card(account, _state(account, once_over=bool(over & set(account.entries))), facts.reading.report.size, place)
        for place, account in enumerate(facts.accounts)
    ]
    return section(
        "spends",
        "What was spent in this ledger, and what it leaves",
        paragraph(
            "Epsilon bounds how much more likely any outcome can become because one patient is in the data set: by a"
            " factor of exp(epsilon) at most, except with probability delta. A site charges a spend before it computes"
            " anything, and a charge is never taken back. A budget spans all trainings of a data set, and each training"
            " has a ledger of its own: what others spent is in the site's journal (`synclave-site budget`), not here."
        ),
        element("div", cards, class_="cards") if cards else paragraph("No site stated a budget or spent anything."),
    )


def _card(account: Account, state: Markup, size: int, place: int) -> Markup:
    return element(
        "article",
        element("div", element("h3", f"{account.site}, data set {account.dataset}"), state, class_="head"),
        under(
            f"Every number is of the reservations in entries {ranges(account.entries)}."
            if account.entries
            else "Nothing was reserved."
        ),
        figures(_figures(account)),
        spend_chart(account, size, f"spend-{place}"),
        _plans(account),
        _course(account),
        class_="card",
    )


def _state(account: Account, *, once_over: bool) -> Markup:
    if account.budget is None:
        return badge("no budget stated", "warn")
    if account.exceeded:
        return badge("above its budget", "bad")
    if once_over:
        return badge("was above its budget", "bad")
    if account.epsilon >= NEAR * account.budget:
        return badge("within its budget in this ledger, little is left", "warn")
    return badge("within its budget in this ledger", "good")


def _figures(account: Account) -> list[tuple[str, Markup]]:
    stated = [entry for entry, _ in account.budgets]
    check = account.check
    shown = [
        _figure("spent in this ledger", number(account.epsilon), formula("F1")),
        _figure(
            "budget",
            "none" if account.budget is None else f"{account.budget:g}",
            f"stated in entry {ranges(stated)}" if stated else "no entry states one",
        ),
        _figure("left after this ledger", number(account.left), formula("F4")),
        _figure("delta", small(account.delta), "of the budget" if stated else "of the first reservation"),
        _figure("check by Rényi", number(check.rdp), formula("F2")),
        _figure("check by PRV", number(check.prv), formula("F3") if check.prv is not None else "not compared"),
        _figure("if one is replaced", number(account.epsilon_replaced), formula("F5")),
    ]
    return shown


def _figure(label: str, value: str, rests_on: Child) -> tuple[str, Markup]:
    return label, joined(value, element("span", rests_on, class_="from"))


def _plans(account: Account) -> Markup | None:
    if not account.plans:
        return None
    rows = [
        (
            plan.name or "(not proposed)",
            MODELS.get(plan.model or "", plan.model or "-"),
            ranges(plan.entries),
            number(plan.epsilon_alone),
            number(plan.epsilon_after),
        )
        for plan in account.plans
    ]
    heads = ("plan", "makes", "reservations (entries)", "this plan alone (F1)", "all up to here (F1)")
    return table(heads, rows, numeric=(3, 4))


def _course(account: Account) -> Markup | None:
    if not account.course:
        return None
    rows = [
        (str(point.entry), point.plan_digest[:16], str(point.round), number(point.epsilon), number(point.epsilon_rdp))
        for point in account.course
    ]
    thinned = (
        f"; of {len(account.entries)} reservations {MAX_POINTS} are shown" if len(account.entries) > MAX_POINTS else ""
    )
    return element(
        "details",
        element("summary", f"Epsilon after each reservation, as a table{thinned}"),
        table(("entry", "plan", "round", "epsilon (F1)", "by Rényi (F2)"), rows, numeric=(0, 2, 3, 4)),
    )


def mechanisms(facts: Facts) -> Markup:
    """What each plan did to the data, and who did it in which entries."""
    reading = facts.reading
    rounds = {plan.digest: plan.rounds_combined for plan in reading.report.plans}
    cards: list[Child] = []
    for digest, state in reading.replay.plans.items():
        accepted = sum(each == digest for each, _ in reading.accepted)
        model = MODELS.get(state.plan.model.kind, state.plan.model.kind)
        done = _done(facts, digest)
        items = [element("li", words, element("span", by, class_="from")) for words, by in done.items()]
        cards.append(
            element(
                "article",
                element("h3", f"Plan {state.plan.name}: {model}"),
                under(
                    f"Proposed in entry {reading.proposed[digest]}, accepted by {accepted} of {len(state.plan.sites)}"
                    f" sites, {rounds[digest]} rounds combined. Digest ",
                    code(digest),
                ),
                element("ul", items, class_="plain") if items else paragraph("Nothing was done under it."),
                class_="card",
            )
        )
    return section(
        "mechanisms",
        "What was done to the data",
        paragraph(
            "These are all the operations on patients' data that the ledger knows. Models and synthetic patients are"
            " made of their noised results alone, and cost nothing more."
        ),
        cards or paragraph("No valid plan stands in this ledger."),
    )


def _done(facts: Facts, digest: str) -> dict[str, str]:
    """Each operation under a plan, in words -> who did it, and in which entries."""
    done: dict[str, list[str]] = {}
    for account in facts.accounts:
        # Steps of all rounds together: what differs in their number alone is one operation.
        entries: dict[Operation, list[int]] = {}
        steps: Counter[Operation] = Counter()
        for entry, mechanism in zip(account.entries, account.mechanisms, strict=True):
            if facts.reading.reserved[entry][0] == digest:
                operation = mechanism.model_copy(update={"steps": 1}) if _stepped(mechanism) else mechanism
                entries.setdefault(operation, []).append(entry)
                steps[operation] += mechanism.steps if _stepped(mechanism) else 1
        for operation, listed in entries.items():
            whole = operation.model_copy(update={"steps": steps[operation]}) if _stepped(operation) else operation
            done.setdefault(in_words(whole), []).append(f"{account.site}: {ranges(listed)}")
    return {words: f"Reservations of {'; '.join(by)}" for words, by in done.items()}


def _stepped(mechanism: Operation) -> TypeGuard[PoissonGaussian]:
    return isinstance(mechanism, PoissonGaussian)
