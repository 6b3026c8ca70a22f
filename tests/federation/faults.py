"""What goes wrong at a site or with the coordinator, for tests."""

from __future__ import annotations

from typing import Any

import pytest

from synclave_server import rounds
from synclave_shared.protocol import Envelope
from tests.federation.hospitals import Handler, Site

MARKER = "SECRET patient number 4711-0815-4711-0815"
"""Long enough that no random bytes, hex or base64 ever contain it."""


def raising(_site: Site, _handler: Handler, _request: Envelope) -> Envelope:
    raise RuntimeError(f"{MARKER} has HIV")


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, where: str, number: int) -> None:
    """End the coordinator at one point of one round."""
    original = getattr(rounds, where) if hasattr(rounds, where) else getattr(rounds._Training, where)
    calls = {"left": number}

    def dying(*arguments: Any, **options: Any) -> Any:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(rounds if hasattr(rounds, where) else rounds._Training, where, dying)
