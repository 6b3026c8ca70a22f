"""``synclave run``: the coordinator of a federation whose sites are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from synclave_server.progress_view import training_view
from synclave_server.run_folder import RunFolder
from synclave_shared.errors import ConfigurationError

__all__ = ["run_hosted"]


def run_hosted(
    folder: Path,
    *,
    home: Path,
    key_file: Path,
    node_keys: Mapping[str, Path],
    host: str,
    port: int,
    name: str | None,
    console: Console,
) -> dict[str, Any]:
    """Serve the sites and run the plan of ``folder`` to its end.

    Args:
        folder: a run laid down by ``synclave plan --out``.
        home: the coordinator's folder; certificates are kept there over runs.
        key_file: the coordinator's signing key.
        node_keys: file of each site's public node key.
        host: address to listen on.
        port: public TLS port.
        name: how the sites reach this machine, if not by ``host``.
        console: where to show progress.

    Raises:
        ConfigurationError: if a key file is missing or the sites are not those of the plan.
        FederationError: if the run failed.
    """
    from synclave_server.federation.coordinator import serve

    run = RunFolder(folder)
    plan = run.plan()
    roster = {site.name for site in plan.sites}
    if set(node_keys) != roster:
        raise ConfigurationError(
            expected=f"a --node-key for each site of the plan: {', '.join(sorted(roster))}",
            found=", ".join(sorted(node_keys)),
            remedy="Each site finds its public node key in its gateway folder, as node.pub.",
        )
    keys = {}
    for site, path in node_keys.items():
        try:
            keys[site] = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                expected=f"the public node key of {site}", found=f"{path}: {error}", remedy="Check the path."
            ) from None
    with serve(home / "superlink", run.logs, host=host, port=port, name=name) as coordinator:
        coordinator.register(keys)
        authority = coordinator.certificates.authority
        console.print(f"Serving at {coordinator.address}; the sites need {escape(str(authority))}", soft_wrap=True)
        with training_view(console) as view:
            coordinator.run(run, key_file, view)
    return {
        "run": str(run.path.resolve()),
        "snapshot": str(run.snapshot.resolve()),
        "ledger": str(run.ledger.resolve()),
        "plan_digest": plan.digest,
    }
