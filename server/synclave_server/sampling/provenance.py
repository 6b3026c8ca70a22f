"""Reading back where synthetic patients come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["read_provenance"]


def read_provenance(path: Path) -> dict[str, Any] | None:
    """The provenance that ``synclave sample`` wrote into a Parquet file; None for any other file."""
    try:
        notes = pq.read_metadata(path).metadata or {}
        content = json.loads(notes[b"synclave.provenance"])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return None
    return content if isinstance(content, dict) else None
