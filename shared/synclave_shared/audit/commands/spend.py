"""``synclave-audit spend``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from synclave_shared.audit import console as frame
from synclave_shared.audit.archive import opened
from synclave_shared.audit.commands.arguments import ONE_LEDGER, JsonOption, LedgerArgument, row, say, show_table
from synclave_shared.audit.documents import account_document
from synclave_shared.audit.reading import read_ledger
from synclave_shared.audit.spends import Account, accounts
from synclave_shared.audit.words import number, ranges, small
from synclave_shared.errors import ConfigurationError

__all__ = ["spend"]


def spend(
    ledger: LedgerArgument,
    as_json: JsonOption = False,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="Only this site.")] = None,
    rounds: Annotated[bool, typer.Option("--rounds", help="Also epsilon after each reservation.")] = False,
) -> None:
    """Recompute what every site spent in this ledger: by data set, by plan and over time, and which entries say so."""
    with opened(ledger) as folder:
        reading = read_ledger(folder)
    found = [account for account in accounts(reading) if site in (None, account.site)]
    if site is not None and site not in reading.report.sites:
        raise ConfigurationError(
            expected=f"a site of this ledger: {', '.join(reading.report.sites) or 'there is none'}",
            found=site,
            remedy="Use one of these names.",
        )
    if as_json:
        document: dict[str, Any] = {"origin": reading.report.origin, "valid": reading.report.valid}
        frame.print_json({**document, "accounts": [account_document(account) for account in found]})
        return
    if not reading.report.valid:
        say("This ledger is not valid: see `synclave-audit verify`. What it reserves counts all the same.", "bold red")
    for account in found:
        _draw(account, rounds=rounds)
    if any(account.budgets for account in found):
        say(ONE_LEDGER)
    if not found:
        say("No site of this ledger states a budget or spends.")


def _draw(account: Account, *, rounds: bool) -> None:
    budget = f", budget {account.budget:g}" if account.budget is not None else ", no budget stated"
    say(f"{account.site}, data set {account.dataset}: epsilon {number(account.epsilon)} in this ledger{budget}", "bold")
    check = account.check
    opinions = [f"by Rényi {number(check.rdp)}", *([f"by PRV {number(check.prv)}"] if check.prv is not None else [])]
    say(f"at delta {small(account.delta)}; {', '.join(opinions)}; entries {ranges(account.entries) or 'none'}")
    for disagreement in check.disagreements:
        say(f"accountants disagree: {disagreement}", "red")
    for reason in check.not_checked:
        say(f"not compared: {reason}")
    table = Table("plan", "model", "entries", "alone", "everything up to here")
    for plan in account.plans:
        name = f"{plan.name or '(not proposed)'} {plan.digest[:16]}"
        values = (number(plan.epsilon_alone), number(plan.epsilon_after))
        row(table, name, plan.model or "-", ranges(plan.entries), *values)
    if account.plans:
        show_table(table)
    if rounds:
        table = Table("entry", "round", "epsilon", "by Rényi")
        for point in account.course:
            row(table, str(point.entry), str(point.round), number(point.epsilon), number(point.epsilon_rdp))
        show_table(table)
