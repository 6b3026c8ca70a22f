"""Reading back where synthetic patients come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synclave_shared.data.series.table import PATIENTS

__all__ = ["read_provenance"]


def read_provenance(path: Path) -> dict[str, Any] | None:
    """The provenance that ``synclave sample`` wrote into a Parquet file, or the folder of a cohort of series.

    None for anything else.
    """
    try:
        notes = pq.read_metadata(path / f"{PATIENTS}.parquet" if path.is_dir() else path).metadata or {}
        content = json.loads(notes[b"synclave.provenance"])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return None
    return content if isinstance(content, dict) else None
