"""``synclave run``: the coordinator of a federation whose sites are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from synclave_server.federation.certificates import certificates_for
from synclave_server.progress_view import training_view
from synclave_server.run_folder import RunFolder
from synclave_shared.errors import ConfigurationError

__all__ = ["authority_for", "run_hosted"]

WILDCARDS: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
"""Addresses that mean every address of this machine."""

STATE_FOLDER: Final = "superlink"
"""Folder within the coordinator's home for certificates and Flower's state; kept over runs."""


def authority_for(home: Path, name: str) -> Path:
    """The certificate by which sites know the coordinator that they reach as ``name``; made if there is none."""
    return certificates_for(home / STATE_FOLDER / "tls", name).authority.resolve()


def _node_key(site: str, value: str) -> str:
    """A public node key as it was given: the text itself, or a file with it."""
    if value.startswith("ecdsa-"):
        return value
    try:
        return Path(value).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigurationError(
            expected=f"the public node key of {site}: its text (ecdsa-sha2-nistp384 ...) or a file with it",
            found=f"{value}: {reason}",
            remedy="`synclave-site init` prints it, and writes it to gateway/node.pub.",
        ) from None


def run_hosted(
    folder: Path,
    *,
    home: Path,
    key_name: str,
    node_keys: Mapping[str, str],
    host: str,
    port: int,
    name: str | None,
    console: Console,
) -> dict[str, Any]:
    """Serve the sites and run the plan of ``folder`` to its end.

    Args:
        folder: a run laid down by ``synclave plan --out``.
        home: the coordinator's folder; certificates are kept there over runs.
        key_name: names the coordinator's signing key.
        node_keys: public node key of each site, or the file with it.
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
            remedy="`synclave-site init` prints each site's, and writes it to gateway/node.pub.",
        )
    if name is None and host in WILDCARDS:
        raise ConfigurationError(
            expected="--name with the host name by which the sites reach this machine",
            found=f"none, and {host} is no name that a certificate can state",
            remedy="Give the --name that was given to `synclave init`, or another --host.",
        )
    keys = {site: _node_key(site, value) for site, value in node_keys.items()}
    with serve(home / STATE_FOLDER, run.logs, host=host, port=port, name=name) as coordinator:
        coordinator.register(keys)
        authority = coordinator.certificates.authority
        console.print(f"Serving at {coordinator.address}; the sites need {escape(str(authority))}", soft_wrap=True)
        with training_view(console) as view:
            coordinator.run(run, key_name, view)
    return {
        "run": str(run.path.resolve()),
        "snapshot": str(run.snapshot.resolve()),
        "ledger": str(run.ledger.resolve()),
        "plan_digest": plan.digest,
    }
