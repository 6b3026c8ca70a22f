"""``synclave-audit spend``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from synclave_shared.audit import console as frame
from synclave_shared.audit.commands.arguments import (
    JsonOption,
    LedgersArgument,
    SiteKeyOption,
    ledgers_of,
    row,
    say,
    say_of_all,
    scope,
    show_table,
)
from synclave_shared.audit.documents import account_document, ledgers_document
from synclave_shared.audit.spends import Account, accounts
from synclave_shared.audit.words import listed, number, small
from synclave_shared.errors import ConfigurationError

__all__ = ["spend"]


def spend(
    ledger: LedgersArgument,
    as_json: JsonOption = False,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="Only this site.")] = None,
    rounds: Annotated[bool, typer.Option("--rounds", help="Also epsilon after each reservation.")] = False,
    site_key: SiteKeyOption = None,
) -> None:
    """Recompute what every site spent: by data set, plan, kind of model and over time, and which entries say so.

    Several ledgers are composed: what each site spent on a data set over all of them.
    """
    ledgers = ledgers_of(ledger, site_keys=site_key)
    called = {each.name for each in ledgers.sites if site in (None, each.name, each.members[0][1])}
    found = [account for account in accounts(ledgers) if account.site in called]
    if site is not None and not called:
        raise ConfigurationError(
            expected=f"a site of the ledger: {', '.join(each.name for each in ledgers.sites) or 'there is none'}",
            found=site,
            remedy="Use one of these names.",
        )
    if as_json:
        frame.print_json({**ledgers_document(ledgers), "accounts": [account_document(account) for account in found]})
        return
    if len(ledger) > 1:
        say_of_all(ledgers)
    if not all(reading.report.valid for reading in ledgers.readings):
        which = "This ledger" if len(ledgers.readings) == 1 else "A ledger"
        say(f"{which} is not valid: see `synclave-audit verify`. What it reserves counts all the same.", "bold red")
    here = "in this ledger" if len(ledgers.readings) == 1 else "in these ledgers"
    for account in found:
        _draw(account, here, rounds=rounds)
    if any(account.budgets for account in found):
        say(scope(len(ledgers.readings)))
    if not found:
        say(f"No site states a budget or spends {here}.")


def _draw(account: Account, here: str, *, rounds: bool) -> None:
    budget = f", budget {account.budget:g}" if account.budget is not None else ", no budget stated"
    say(f"{account.site}, data set {account.dataset}: epsilon {number(account.epsilon)} {here}{budget}", "bold")
    check = account.check
    opinions = [f"by Rényi {number(check.rdp)}", *([f"by PRV {number(check.prv)}"] if check.prv is not None else [])]
    say(f"at delta {small(account.delta)}; {', '.join(opinions)}; entries {listed(account.entries) or 'none'}")
    for disagreement in check.disagreements:
        say(f"accountants disagree: {disagreement}", "red")
    for reason in check.not_checked:
        say(f"not compared: {reason}")
    table = Table("plan", "model", "entries", "alone", "everything up to here")
    for plan in account.plans:
        name = f"{plan.name or '(not proposed)'} {plan.digest[:16]}"
        values = (number(plan.epsilon_alone), number(plan.epsilon_after))
        row(table, name, plan.model or "-", listed(plan.entries), *values)
    if account.plans:
        show_table(table)
    if len(account.models) > 1:
        table = Table("kind of model", "data", "plans", "entries", "alone")
        for kind in account.models:
            own = (str(kind.plans), listed(kind.entries), number(kind.epsilon_alone))
            row(table, kind.model or "-", kind.modality or "-", *own)
        show_table(table)
    if rounds:
        table = Table("entry", "time", "round", "epsilon", "by Rényi")
        for point in account.course:
            values = (number(point.epsilon), number(point.epsilon_rdp))
            row(table, listed([point.entry]), point.time, str(point.round), *values)
        show_table(table)
