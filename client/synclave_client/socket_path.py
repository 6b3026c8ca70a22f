"""How long the path of a Unix socket may be."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_SOCKET_PATH_BYTES"]

MAX_SOCKET_PATH_BYTES: Final = 103
"""Room for a path in ``sockaddr_un`` on every system we know (104 bytes with the final zero on BSD, 108 on Linux)."""
