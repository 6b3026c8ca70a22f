"""Which machine measured a cell, where a table's cells are of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["mixed", "other_machines"]


def other_machines(cells: Iterable[Mapping[str, Any]]) -> str:
    """A sentence for a table's head; empty if all cells were measured where the table is made."""
    names = sorted({str(cell["machine"]) for cell in cells if "machine" in cell})
    if not names:
        return ""
    return f" Runs elsewhere: {'; '.join(names)}. Times are those of this machine's runs alone."


def mixed(runs: Sequence[Mapping[str, Any]]) -> str:
    """What a line's title adds; empty if all of its runs are from this machine."""
    others = sum("machine" in run for run in runs)
    return f"; {others} of {len(runs)} runs elsewhere" if others else ""
