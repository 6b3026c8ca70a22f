"""``synclave-audit``: what a stranger needs to check a ledger, offline."""

from __future__ import annotations

import typer

from synclave_shared.audit import console as frame
from synclave_shared.audit.commands.attack import attack
from synclave_shared.audit.commands.compare import compare
from synclave_shared.audit.commands.explain import explain
from synclave_shared.audit.commands.export import export
from synclave_shared.audit.commands.receipt import receipt
from synclave_shared.audit.commands.report import report
from synclave_shared.audit.commands.show import show
from synclave_shared.audit.commands.spend import spend
from synclave_shared.audit.commands.verify import verify

__all__ = ["app", "main"]

app = typer.Typer(
    name="synclave-audit",
    help="Check the ledger of a training: who did what, what it cost in privacy, and whether it was changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (verify, show, spend, explain, receipt, compare, report, export, attack):
    app.command()(command)


def main() -> None:
    """Entry point of ``synclave-audit``."""
    frame.run(app)


if __name__ == "__main__":
    main()
