"""``synclave-audit``: what a stranger needs to check a ledger, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from synclave_shared.audit import console as frame
from synclave_shared.audit.attack_view import attack
from synclave_shared.errors import ConfigurationError, LedgerError
from synclave_shared.ledger.checkpoint import MAX_NOTE_BYTES, Note, parse_note
from synclave_shared.ledger.entry import (
    Aggregate,
    KeyRegistered,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    RunClosed,
    SignedEntry,
    SnapshotWritten,
    SpendReserved,
    UpdateReleased,
    parse_entry,
)
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.verify import SiteReport, VerifyReport, verify_ledger
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["app", "main"]

app = typer.Typer(
    name="synclave-audit",
    help="Check the ledger of a training: who did what, what it cost in privacy, and whether it was changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LedgerArgument = Annotated[Path, typer.Argument(metavar="LEDGER_DIR", help="The ledger folder.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@app.command()
def verify(
    ledger: LedgerArgument,
    as_json: JsonOption = False,
    coordinator_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The coordinator's public key as you know it from elsewhere (base64)."),
    ] = None,
    site_key: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KEY", help="A site's public key as you know it from the site itself; repeat."),
    ] = None,
    seen: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="NOTE_FILE", help="A checkpoint that a site kept, from `synclave-site checkpoint`; repeat."
        ),
    ] = None,
) -> None:
    """Verify every file, signature and rule of a ledger, and recompute epsilon. Exit code 0 valid, 1 not valid."""
    report = verify_ledger(
        ledger,
        coordinator_key=coordinator_key,
        site_keys=_site_keys(site_key or []),
        seen=[_read_note(path) for path in seen or []],
    )
    if as_json:
        frame.print_json(report.to_json())
    else:
        _draw_report(report, pinned=coordinator_key is not None)
    if not report.valid:
        raise typer.Exit(frame.EXIT_ERROR)


def _site_keys(texts: list[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for text in texts:
        name, separator, key = text.partition("=")
        if not separator or not name or keys.setdefault(name, key) != key:
            raise ConfigurationError(
                expected="each site once, as NAME=KEY", found=text, remedy="Ask the site: `synclave-site init` told it."
            )
    return keys


def _read_note(path: Path) -> Note:
    with path.open("rb") as file:
        data = file.read(MAX_NOTE_BYTES + 1)
    try:
        return parse_note(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise LedgerError(
            expected="a checkpoint note", found=f"{path}: not text", remedy="Ask the site for it again."
        ) from None


@app.command()
def show(ledger: LedgerArgument, as_json: JsonOption = False) -> None:
    """List the entries of a ledger. Checks no signature; `verify` does."""
    opened = Ledger.open(ledger)
    entries = [parse_entry(opened.entry(index)) for index in range(opened.size)]
    if as_json:
        frame.print_json(
            {
                "origin": opened.origin,
                "size": opened.size,
                "root": opened.root,
                "entries": [entry.model_dump(mode="json") for entry in entries],
            }
        )
        return
    table = Table("index", "time (UTC)", "actor", "kind", "what", title=Text(f"{opened.origin}, {opened.size} entries"))
    for index, entry in enumerate(entries):
        table.add_row(str(index), entry.time, entry.actor, entry.kind, Text(frame.printable(describe(entry))))
    Console().print(table)


def describe(entry: SignedEntry) -> str:
    """One line about an entry."""
    match entry.body:
        case KeyRegistered() as body:
            return f"{body.role} with key {body.public_key}"
        case PlanProposed() as body:
            return f"plan {body.plan.get('name')} {body.plan_digest[:16]}"
        case PlanAccepted() as body:
            return f"for {body.dataset}, budget epsilon {body.budget.epsilon} at delta {body.budget.delta}"
        case PlanRefused() as body:
            return body.refusal
        case SpendReserved() as body:
            return f"round {body.round}: {_mechanism(body.mechanism)} on {body.dataset}"
        case UpdateReleased() as body:
            return f"round {body.round}: update {body.update_digest[:16]}"
        case Aggregate() as body:
            return f"round {body.round}: of {', '.join(body.sites)}"
        case SnapshotWritten() as body:
            return f"round {body.round}: model {body.snapshot_digest[:16]}"
        case RunClosed() as body:
            return f"after {body.rounds} rounds"
    return ""


def _mechanism(mechanism: PoissonGaussian | GaussianSum) -> str:
    if isinstance(mechanism, GaussianSum):
        return f"sum with noise multiplier {mechanism.noise_multiplier}"
    return (
        f"{mechanism.steps} steps with noise multiplier {mechanism.noise_multiplier},"
        f" selection rate {mechanism.selection_rate}"
    )


def _draw_report(report: VerifyReport, *, pinned: bool) -> None:
    verdict, style = ("VALID", "bold green") if report.valid else ("NOT VALID", "bold red")
    _say(f"{verdict}  {report.origin}, {report.size} entries, root {report.root[:16]}", style)
    for finding in report.findings:
        place = finding.file or ("ledger" if finding.entry is None else f"entry {finding.entry}")
        style = "red" if finding.severity == "error" else "yellow"
        _say(f"{finding.severity}: {place}: {finding.explanation} [{finding.code}]", style)
    for plan in report.plans:
        state = "closed" if plan.closed else "open"
        _say(f"Plan {plan.name} {plan.digest[:16]}: {plan.rounds_combined} rounds combined, {state}")
    table = Table("site", "data set", "epsilon", "budget", "delta", "by Rényi", "spends", "co-signed to")
    table.columns[0].overflow = "fold"
    for name, site in report.sites.items():
        table.add_row(*(Text(frame.printable(cell)) for cell in (name, *_site_cells(site))))
    if report.sites:
        Console().print(table)
    for name, site in report.sites.items():
        together = f"; epsilon {site.epsilon_all_datasets:.4f} over its {len(site.datasets)} data sets together"
        _say(f"Site {name}: key {site.public_key or '-'}{together if len(site.datasets) > 1 else ''}")
    if report.coordinator_key and not pinned:
        _say(f"Coordinator: {report.coordinator_key}. Compare with the key you know, or give --coordinator-key.")


def _say(line: str, style: str = "") -> None:
    # As plain text: a ledger is written by others, and nothing in it is markup.
    Console().print(Text(frame.printable(line), style=style), soft_wrap=True)


def _site_cells(site: SiteReport) -> tuple[str, ...]:
    return (
        site.dataset or "-",
        f"{site.epsilon:.4f}",
        "-" if site.budget_epsilon is None else f"{site.budget_epsilon:g}",
        "-" if site.delta is None else f"{site.delta:g}",
        f"{site.epsilon_rdp:.4f}",
        str(site.spends),
        "-" if site.witnessed_size is None else str(site.witnessed_size),
    )


app.command()(attack)


def main() -> None:
    """Entry point of ``synclave-audit``."""
    frame.run(app)


if __name__ == "__main__":
    main()
