"""The app bundle that Flower ships to the sites. It carries no code: only the names of what the sites have installed.

Flower puts a bundle's files first on a process's import path, so a bundle with code is code execution at every site
(docs/adr/0002). Ours consists of a ``pyproject.toml`` and a sentence. Every site makes the same bytes from its own
installation and lets nothing else pass. Members are stored, not deflated: the digest may not depend on a zlib version.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Final

from synclave_shared import __version__
from synclave_shared.canonical import sha256_hex

__all__ = ["CLIENT_APP", "SERVER_APP", "bundle_bytes", "bundle_digest"]

SERVER_APP: Final = "synclave_server.app:app"
CLIENT_APP: Final = "synclave_client.gateway.app:app"

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip archive can state."""

_PYPROJECT: Final = f"""\
[project]
name = "synclave"
version = "{__version__}"
license = "Apache-2.0"
description = "References into the installed Synclave; no code"
dependencies = []

[tool.flwr.app]
publisher = "synclave"
fab-include = ["README.md"]

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{CLIENT_APP}"

[tool.flwr.app.config]
"""

_README: Final = "This bundle carries no code. Coordinator and sites run the Synclave they have installed.\n"


def bundle_bytes() -> bytes:
    """The bundle of this version of Synclave, the same bytes on every machine."""
    members = {"pyproject.toml": _PYPROJECT.encode(), "README.md": _README.encode()}
    manifest = "\n".join(f"{name},{hashlib.sha256(data).hexdigest()},{len(data) * 8}" for name, data in members.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {**members, ".info/CONTENT": manifest.encode()}.items():
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3
            archive.writestr(member, data)
    return buffer.getvalue()


def bundle_digest() -> str:
    """SHA-256 of :func:`bundle_bytes`: the one digest a site lets pass."""
    return sha256_hex(bundle_bytes())
