"""Whether rows are marked as real or synthetic, as in an augmented training set, and whether they may be here.

A site that trained on synthetic patients as its own would count them into what it releases; real patients in a
training without privacy would be given away. So that neither happens by mistake, who reads says which ones it wants.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import numpy as np

from synclave_shared.data.faults import FaultLog, shown
from synclave_shared.data.source import SUFFIXES, open_source, source_columns

__all__ = ["ALPHA", "ORIGIN", "Origin", "check_origin"]

Origin = Literal["real", "synthetic"]
"""What a row may be marked as."""
ORIGIN: Final = "_origin"
"""Column of an augmented training set: ``real`` or ``synthetic``. No field can have its name."""
ALPHA: Final = "_alpha"
"""Column beside it: from how many synthetic patients per real one on a synthetic one is in the set; 0 if real."""


def check_origin(path: Path, origin: Origin, faults: FaultLog) -> None:
    """Record every row of a file, or of the files of a folder, that is marked as anything but ``origin``."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.suffix not in SUFFIXES or not file.is_file() or ORIGIN not in (source_columns(file) or ()):
            continue
        source = open_source(file, [ORIGIN], faults)
        column = None if source is None else source.column(ORIGIN, (), faults)
        if source is None or column is None:
            continue
        allowed = [position for position, text in enumerate(column.texts) if text == origin]
        wrong = np.flatnonzero((column.index >= 0) & ~np.isin(column.index, allowed))
        faults.add_rows(
            source.rows[wrong],
            file=source.file,
            column=ORIGIN,
            code="wrong-origin",
            expected=f"{origin} patients alone: take the others out",
            found=lambda i, column=column, wrong=wrong: shown(column.texts[column.index[wrong[i]]]),  # type: ignore[misc]
        )
