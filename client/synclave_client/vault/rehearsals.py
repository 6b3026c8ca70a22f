"""One clipping self-test for all vaults of a simulation that train the same model in the same way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synclave_client.training.private import SelfTestReport

__all__ = ["Rehearsals"]


class Rehearsals:
    """Remembers the last self-test that was passed in this process.

    Its outcome hangs on code, machine, model and way to compute. The first two do not change while a process lives, so
    fifty simulated sites that are asked for one model need not test it fifty times, one after the other. A hospital's
    own vault does without: it tests for every plan.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passed: tuple[Hashable, SelfTestReport] | None = None

    def passed(self, subject: Hashable, rehearse: Callable[[], SelfTestReport]) -> SelfTestReport:
        """The report on ``subject`` if it was the last one to pass, else that of ``rehearse``, which may raise.

        Args:
            subject: all that the outcome depends on within a process.
            rehearse: tests it.
        """
        with self._lock:
            if self._passed is None or self._passed[0] != subject:
                self._passed = (subject, rehearse())
            return self._passed[1]
