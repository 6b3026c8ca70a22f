"""``synclave plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synclave_server.commands.arguments import (
    DEFAULT_HOME,
    HomeOption,
    KeyOption,
    SiteKeysOption,
    pairs_of,
)
from synclave_shared.audit.console import JsonOption, show

__all__ = ["plan"]


def plan(
    plan: Annotated[Path, typer.Argument(help="Plan file.", metavar="PLAN.toml")],
    site_key: SiteKeysOption = None,
    home: HomeOption = DEFAULT_HOME,
    key: KeyOption = None,
    out: Annotated[Path | None, typer.Option(help="Sign the plan and lay the run down here.", metavar="DIR")] = None,
    show_alternatives: Annotated[
        bool,
        typer.Option("--alternatives", help="Also: the noise that other rounds and rates need for the same epsilon."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a plan costs, before anything is signed; with --out, sign it."""
    from synclave_server.plan_view import alternatives, cost_document, draw_cost
    from synclave_server.planning import resolve_privacy
    from synclave_server.preparation import coordinator_key, prepare_run, read_draft

    draft = read_draft(plan)
    keys = pairs_of(site_key, "--site-key NAME=KEY")
    others = {}
    if show_alternatives:
        others["alternatives"] = alternatives(resolve_privacy(draft.plan_file), draft.plan_file.federation)
    if out is not None:
        signed, folder = prepare_run(draft, key_name=coordinator_key(home, named=key), site_keys=keys, out=out)
        document = cost_document(signed.privacy, signed.federation)
        document |= {"plan_digest": signed.digest, "run": str(folder.path.resolve())}
    else:
        document = cost_document(resolve_privacy(draft.plan_file), draft.plan_file.federation)
    document |= others
    show(document, as_json, lambda console: draw_cost(document, console))
