"""What was spent, by site and data set, with the plot; and every mechanism in words."""

from __future__ import annotations

from synclave_shared.audit.reading import Place
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
from synclave_shared.audit.spends import Account
from synclave_shared.audit.words import MODELS, in_words, listed, number, small

__all__ = ["mechanisms", "spends"]


NEAR = 0.9
"""Share of the budget from which on a site is told that little is left."""


def spends(facts: Facts) -> Markup:
    """A card for each data set of each site."""
    over = {
        Place(found.ledger, found.finding.entry)
        for found in facts.errors
        if found.finding.code == "budget-exceeded" and found.finding.entry is not None
    }
    cards = [
        _card(account, _state(account, facts.here, once_over=not over.isdisjoint(account.entries)), facts.here, place)
        for place, account in enumerate(facts.accounts)
    ]
    beyond = (
        "the ledgers of this report are composed; what a site spent in others"
        if facts.several_ledgers
        else "each training has a ledger of its own: what others spent"
    )
    return section(
        "spends",
        f"What was spent in {facts.here}, and what it leaves",
        paragraph(
            "Epsilon bounds how much more likely any outcome can become because one patient is in the data set: by a"
            " factor of exp(epsilon) at most, except with probability delta. A site charges a spend before it computes"
            " anything, and a charge is never taken back. A budget spans all trainings of a data set, and"
            f" {beyond} is in the site's journal (",
            code("synclave-site budget"),
            "), not here.",
        ),
        paragraph(
            "One data set is what one site, told by its key, calls by one name. Its reservations in all these ledgers"
            " are put in the order of the site's clock and composed; what stands in two of them is counted once."
        )
        if facts.several_ledgers
        else None,
        element("div", cards, class_="cards") if cards else paragraph("No site stated a budget or spent anything."),
    )


def _card(account: Account, state: Markup, here: str, place: int) -> Markup:
    chart = spend_chart(account, f"spend-{place}")
    return element(
        "article",
        element("div", element("h3", f"{account.site}, data set {account.dataset}"), state, class_="head"),
        under(
            f"Every number is of the reservations in entries {listed(account.entries)}."
            if account.entries
            else "Nothing was reserved."
        ),
        figures(_figures(account, here)),
        chart,
        under(
            "The solid line is what was spent: it alone is held against the budget. The dotted line is a second,"
            " coarser bound of the same (Rényi, F2), to check the first."
        )
        if chart
        else None,
        _plans(account),
        _models(account),
        _course(account),
        class_="card",
    )


def _state(account: Account, here: str, *, once_over: bool) -> Markup:
    if account.budget is None:
        return badge("no budget stated", "warn")
    if account.exceeded:
        return badge("above its budget", "bad")
    if once_over:
        return badge("was above its budget", "bad")
    if account.epsilon >= NEAR * account.budget:
        return badge(f"within its budget in {here}, little is left", "warn")
    return badge(f"within its budget in {here}", "good")


def _figures(account: Account, here: str) -> list[tuple[str, Markup]]:
    stated = [each.entry for each in account.budgets]
    check = account.check
    shown = [
        _figure(f"spent in {here}", number(account.epsilon), formula("F1")),
        _figure(
            "budget",
            "none" if account.budget is None else f"{account.budget:g}",
            f"stated last in entry {listed(stated[-1:])}" if stated else "no entry states one",
        ),
        _figure(f"left after {here}", number(account.left), formula("F4")),
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
            listed(plan.entries),
            number(plan.epsilon_alone),
            number(plan.epsilon_after),
        )
        for plan in account.plans
    ]
    heads = ("plan", "makes", "reservations (entries)", "this plan alone (F1)", "all up to here (F1)")
    return table(heads, rows, numeric=(3, 4))


def _models(account: Account) -> Markup | None:
    """By kind of model and data, where there is more than one."""
    if len(account.models) < 2:
        return None
    rows = [
        (
            MODELS.get(kind.model or "", kind.model or "-"),
            kind.modality or "-",
            str(kind.plans),
            listed(kind.entries),
            number(kind.epsilon_alone),
        )
        for kind in account.models
    ]
    return table(
        ("kind of model", "data", "plans", "reservations (entries)", "all of this kind alone (F1)"),
        rows,
        numeric=(2, 4),
    )


def _course(account: Account) -> Markup | None:
    if not account.course:
        return None
    several = any(point.entry.ledger for point in account.course)
    heads = (*(["ledger"] if several else []), "entry", "time", "plan", "round", "epsilon (F1)", "by Rényi (F2)")
    rows = [
        (
            *([str(point.entry.ledger)] if several else []),
            str(point.entry.entry),
            point.time,
            point.plan_digest[:16],
            str(point.round),
            number(point.epsilon),
            number(point.epsilon_rdp),
        )
        for point in account.course
    ]
    thinned = (
        f"; of {len(account.entries):,} reservations {len(rows)} are shown" if len(account.entries) > len(rows) else ""
    )
    return element(
        "details",
        element("summary", f"Epsilon after each reservation, as a table{thinned}"),
        table(heads, rows, numeric=[place for place, head in enumerate(heads) if head not in ("time", "plan")]),
    )


def mechanisms(facts: Facts) -> Markup:
    """What each plan did to the data, and who did it in which entries."""
    cards: list[Child] = []
    for reading, digest, state in facts.plans:
        rounds = next(plan.rounds_combined for plan in reading.report.plans if plan.digest == digest)
        accepted = sum(each == digest for each, _ in reading.replay.accepted)
        model = MODELS.get(state.plan.model.kind, state.plan.model.kind)
        done, proposed = _done(facts, digest), reading.place(reading.replay.proposed[digest])
        items = [element("li", words, element("span", by, class_="from")) for words, by in done.items()]
        cards.append(
            element(
                "article",
                element("h3", f"Plan {state.plan.name}: {model}"),
                under(
                    f"Proposed in entry {listed([proposed])}, accepted by {accepted} of {len(state.plan.sites)} sites,"
                    f" {rounds} rounds combined. Digest ",
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
            f"These are all the operations on patients' data in {facts.here}. Models and synthetic patients are"
            " made of their noised results alone, and cost nothing more."
        ),
        cards or paragraph(f"No valid plan stands in {facts.here}."),
    )


def _done(facts: Facts, digest: str) -> dict[str, str]:
    """Each operation under a plan, in words -> who did it, and in which entries."""
    done: dict[str, list[str]] = {}
    for account in facts.accounts:
        plan = next((plan for plan in account.plans if plan.digest == digest), None)
        if plan is None:
            continue
        for each in plan.operations:
            often = f"{each.times} times: " if each.times > 1 else ""
            done.setdefault(f"{often}{in_words(each.mechanism)}", []).append(f"{account.site}: {listed(each.entries)}")
    return {words: f"Reservations of {'; '.join(by)}" for words, by in done.items()}
