"""Which entries are signed, at the cost of one signature per actor and key: the newest vouches for its chain.

An entry counts as signed if its own signature verifies, or if the next entry of the same actor and key names it as
``previous`` and counts as signed. So of each unbroken stretch only the newest signature is looked at; if that does not
verify, the one before it, and so on.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import SignedEntry, parse_entry

__all__ = ["Chains"]


@dataclass(slots=True)
class _Stretch:
    """Entries of one actor and key, each naming the one before it: their indices, and the newest's leaf hash."""

    newest: str = ""
    indices: array[int] = field(default_factory=lambda: array("Q"))


class Chains:
    """The chains of a ledger's well-formed entries, given in their order."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Stretch] = {}
        self._ended: list[array[int]] = []

    def add(self, index: int, entry: SignedEntry, leaf: bytes) -> None:
        """Take an entry into account, signed or not."""
        stretch = self._open.setdefault((entry.actor, entry.key), _Stretch())
        if stretch.indices and entry.previous != stretch.newest:
            self._ended.append(stretch.indices)
            stretch.indices = array("Q")
        stretch.newest = leaf.hex()
        stretch.indices.append(index)

    def unsigned(self, content: Callable[[int], bytes]) -> frozenset[int]:
        """Indices of the entries that do not count as signed.

        Args:
            content: the bytes of an entry, by its index.
        """
        found = []
        for indices in [*self._ended, *(stretch.indices for stretch in self._open.values())]:
            for index in reversed(indices):
                if _is_signed(content(index)):
                    break
                found.append(index)
        return frozenset(found)


def _is_signed(content: bytes) -> bool:
    try:
        return parse_entry(content).is_signed(content)
    except LedgerError:
        return False
