"""``synclave-site``: what a hospital runs. Every command prints one JSON document with ``--json``."""

from __future__ import annotations

import os

import typer

from synclave_client.commands.afford import afford
from synclave_client.commands.budget import budget
from synclave_client.commands.check_data import check_data
from synclave_client.commands.conformance import conformance
from synclave_client.commands.gateway import gateway
from synclave_client.commands.import_meds import import_meds
from synclave_client.commands.init import init
from synclave_client.commands.ledger import checkpoint, ledger, receipts
from synclave_client.commands.pause import pause, resume
from synclave_client.commands.rewrite import rewrite
from synclave_client.commands.rotate_key import rotate_key
from synclave_client.commands.run import run
from synclave_client.commands.self_test import self_test
from synclave_client.commands.vault import vault
from synclave_client.commands.withdraw import withdraw
from synclave_shared.audit import console as frame

__all__ = ["app", "main"]

app = typer.Typer(
    name="synclave-site",
    help="Take part in federated trainings; decide, spend and prove this hospital's privacy budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (
    init,
    check_data,
    import_meds,
    rewrite,
    self_test,
    budget,
    afford,
    conformance,
    withdraw,
    rotate_key,
    checkpoint,
    ledger,
    receipts,
    pause,
    resume,
    vault,
    gateway,
    run,
):
    app.command()(command)


def main() -> None:
    """Entry point of ``synclave-site``."""
    # Before torch is loaded, here and in the vault that `run` starts: waiting OpenMP threads sleep and do not spin.
    # Alone on a machine that costs a little; beside others' work, spinning makes a step many times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    frame.run(app)


if __name__ == "__main__":
    main()
