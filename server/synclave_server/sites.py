"""Hospitals on this machine, for the demo and for simulation: each is set up by its own program, as at a hospital.

The coordinator's rooms import nothing of the client's; they call ``synclave-site`` like any data steward does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from synclave_shared.canonical import decimal_text
from synclave_shared.errors import FederationError

__all__ = ["LocalSite", "set_up_sites", "socket_folder"]

ROSTER = "sites.json"
"""Written when every site is set up: which sites a folder holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSite:
    """A site that was set up on this machine.

    Attributes:
        name: its name.
        settings: its ``site.toml``.
        public_key: its key (Ed25519, base64).
    """

    name: str
    settings: Path
    public_key: str


@contextmanager
def socket_folder(run: Path) -> Iterator[Path]:
    """A folder with a short path for the sites' Unix sockets, always the same for one run; removed at the end.

    Raises:
        FederationError: if somebody else has put something in its place.
    """
    name = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"synclave-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise FederationError(
            expected=f"a folder of our own at {folder}, closed to others",
            found="something else",
            remedy="Remove it, or set TMPDIR to another folder with a short path.",
        )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def set_up_sites(
    folder: Path,
    data_folders: Mapping[str, Path],
    *,
    schema_file: Path,
    coordinator_key: str,
    dataset: str,
    epsilon: Decimal,
    delta: Decimal,
    socket_folder: Path,
    models_folder: Path | None = None,
) -> list[LocalSite]:
    """Set up one site per data folder with ``synclave-site init``, or take those that were set up there before.

    Args:
        folder: where each site gets its own folder with settings, key and journal.
        data_folders: data folder of each site by name.
        schema_file: the schema that every site installs.
        coordinator_key: the key every site pins.
        dataset: name of the data set that the budget protects.
        epsilon: budget of each site.
        delta: the delta of that budget.
        socket_folder: short path for the Unix sockets, whose paths have at most about 100 bytes.
        models_folder: where published language models lie, if the plan needs one.

    Raises:
        FederationError: if a site could not be set up (its own explanation is passed on), or ``folder`` holds others.
    """
    roster = folder / ROSTER
    if roster.exists():
        return _read_roster(roster, data_folders)

    def set_up(item: tuple[str, Path]) -> LocalSite:
        name, data_folder = item
        home = folder / name
        command = [
            *(sys.executable, "-m", "synclave_client.cli", "init", str(home)),
            *("--name", name),
            *("--data", str(data_folder)),
            *("--schema", str(schema_file)),
            *("--coordinator-key", coordinator_key),
            *("--dataset", dataset),
            *("--epsilon", decimal_text(epsilon)),
            *("--delta", decimal_text(delta)),
            *("--socket", str(socket_folder / f"{name}.sock")),
            *(() if models_folder is None else ("--models", str(models_folder))),
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
        try:
            answer = json.loads(done.stdout)
            if done.returncode == 0:
                return LocalSite(name=name, settings=Path(answer["settings"]), public_key=answer["public_key"])
            explanation = f"{answer['error']['found']}. {answer['error']['remedy']}"
        except (ValueError, KeyError):
            explanation = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise FederationError(
            expected=f"site {name} to be set up in {home}", found=explanation, remedy="Correct this and start again."
        )

    with ThreadPoolExecutor(max_workers=2) as pool:
        sites = list(pool.map(set_up, data_folders.items()))
    content = [{"name": site.name, "settings": str(site.settings), "public_key": site.public_key} for site in sites]
    roster.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return sites


def _read_roster(roster: Path, data_folders: Mapping[str, Path]) -> list[LocalSite]:
    sites = [
        LocalSite(name=site["name"], settings=Path(site["settings"]), public_key=site["public_key"])
        for site in json.loads(roster.read_text(encoding="utf-8"))
    ]
    if {site.name for site in sites} != set(data_folders):
        raise FederationError(
            expected=f"the sites of the run that was begun here: {', '.join(site.name for site in sites)}",
            found=", ".join(data_folders),
            remedy="Name the same sites to resume that run, or another --out for a new one.",
        )
    return sites
