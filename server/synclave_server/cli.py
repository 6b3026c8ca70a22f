"""``synclave``: what a coordinator runs. Every command prints one JSON document with ``--json``."""

from __future__ import annotations

import os

import typer

from synclave_server.commands.augment import augment
from synclave_server.commands.demo import demo
from synclave_server.commands.evaluate import evaluate
from synclave_server.commands.fetch_base import fetch_base
from synclave_server.commands.init import init
from synclave_server.commands.plan import plan
from synclave_server.commands.pretrain import pretrain
from synclave_server.commands.run import run
from synclave_server.commands.sample import SampleCommand, sample
from synclave_server.commands.scores import scores
from synclave_server.commands.simulate import simulate
from synclave_shared.audit import console as frame

__all__ = ["app", "main"]

app = typer.Typer(
    name="synclave",
    help="Coordinate a federated, differentially private training; sample synthetic patients; evaluate them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (demo, simulate, init, plan, run, sample, fetch_base, pretrain, evaluate, augment, scores):
    app.command(cls=SampleCommand if command is sample else None)(command)


def main() -> None:
    """Entry point of ``synclave``."""
    # Before any numerical library is loaded: waiting OpenMP threads sleep in place of spinning, which on a machine that
    # others use as well makes the small fits of an evaluation about ten times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    frame.run(app)


if __name__ == "__main__":
    main()
