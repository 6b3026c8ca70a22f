"""Where things stand in a MEDS dataset, and of what type they are.

Source: Medical Event Data Standard, schema 0.4 (github.com/Medical-Event-Data-Standard/meds). A dataset is a folder:
``data/**/*.parquet`` with one row per event, and ``metadata``. All events of a subject stand together in one file, in
the order of time; events that are true at any time (sex, for instance) have no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow as pa

__all__ = [
    "BIRTH",
    "CODES_FILE",
    "CODE_METADATA",
    "DATASET_FILE",
    "DATA_FOLDER",
    "DEATH",
    "EVENTS",
    "LABELS",
    "SPLITS",
    "SPLITS_FILE",
    "VERSION",
]

VERSION: Final = "0.4.1"
"""Version of the standard that is written."""

DATA_FOLDER: Final = "data"
DATASET_FILE: Final = Path("metadata", "dataset.json")
CODES_FILE: Final = Path("metadata", "codes.parquet")
SPLITS_FILE: Final = Path("metadata", "subject_splits.parquet")

BIRTH: Final = "MEDS_BIRTH"
DEATH: Final = "MEDS_DEATH"


def _layout(*columns: pa.Field[Any]) -> pa.Schema:
    return pa.schema(columns)


EVENTS: Final = _layout(
    pa.field("subject_id", pa.int64(), nullable=False),
    pa.field("time", pa.timestamp("us")),
    pa.field("code", pa.string(), nullable=False),
    pa.field("numeric_value", pa.float32()),
    pa.field("text_value", pa.large_string()),
)
"""Columns of a file with events; the last two may be absent, further ones are allowed."""

LABELS: Final = _layout(
    pa.field("subject_id", pa.int64(), nullable=False),
    pa.field("prediction_time", pa.timestamp("us"), nullable=False),
    pa.field("boolean_value", pa.bool_()),
    pa.field("integer_value", pa.int64()),
    pa.field("float_value", pa.float32()),
    pa.field("categorical_value", pa.string()),
)
"""Columns of a file with labels; of the values those that are used."""

SPLITS: Final = _layout(
    pa.field("subject_id", pa.int64(), nullable=False), pa.field("split", pa.string(), nullable=False)
)
CODE_METADATA: Final = _layout(
    pa.field("code", pa.string(), nullable=False),
    pa.field("description", pa.string()),
    pa.field("parent_codes", pa.list_(pa.string())),
)
