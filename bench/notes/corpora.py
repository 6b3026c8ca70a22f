"""The public notes that detection is measured on, and which part of them is for what.

PHI-injected notes: a third of the sample numbers, chosen by hash, is the test part; word lists, training notes and
thresholds never see those notes, in whatever pack the same note appears. docs/notes.md says what the folder of the data
holds.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Gold", "Note", "in_test_part", "injected_notes", "meddocan_notes", "read_jsonl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """A marked identifier: [start, end) and the data set's own label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One note with its marks."""

    name: str
    text: str
    gold: tuple[Gold, ...]


def in_test_part(sample_id: int) -> bool:
    """Whether the MTSamples note ``sample_id`` belongs to the test part."""
    return hashlib.sha256(f"notes-detection:{sample_id}".encode()).digest()[0] % 3 == 0


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a compressed JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def injected_notes(*, test: bool, data: Path) -> list[Note]:
    """PHI-injected notes of the test part, or of the rest."""
    return [
        Note(
            name=row["id"],
            text=row["text"],
            gold=tuple(Gold(start=e["start"], end=e["end"], label=e["label"]) for e in row["entities"]),
        )
        for row in read_jsonl(data / "phi-injected-notes/notes.jsonl.gz")
        if in_test_part(row["sample_id"]) == test
    ]


def meddocan_notes(part: str, data: Path) -> list[Note]:
    """MEDDOCAN notes, ``part`` train or dev."""
    return [
        Note(
            name=row["id"],
            text=row["text"],
            gold=tuple(
                Gold(start=start, end=end, label=e["label"]) for e in row["entities"] for start, end in e["spans"]
            ),
        )
        for row in read_jsonl(data / f"meddocan/{part}.jsonl.gz")
    ]
