"""The public notes that detection is measured on, and which part of them is for what.

PHI-injected notes: a third of the sample numbers, chosen by hash, is the test part; word lists, training notes and
thresholds never see those notes, in whatever pack the same note appears. docs/notes.md says what the folder of the data
holds.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Gold",
    "Note",
    "held_out",
    "in_test_part",
    "injected_notes",
    "meddocan_notes",
    "of_templates",
    "pii_notes",
    "read_jsonl",
    "templates_of",
]


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


def plain_notes(data: Path) -> list[Note]:
    """Case reports and British consultation notes: medicine and next to nobody's identifiers."""
    texts = [row["text"] for row in read_jsonl(data / "clinical-ner/maccrobat2020.jsonl.gz")]
    texts += [row["note"] for row in read_jsonl(data / "dialogue-notes/primock57.jsonl.gz")]
    return [Note(name=f"plain{place}", text=text, gold=()) for place, text in enumerate(texts)]


def pii_notes(data: Path, *, test: bool | None = None) -> list[Note]:
    """Sentences of presidio-research; ``test``: those of the quarter of its templates that may be held out, or the rest."""
    return [
        Note(
            name=str(row["id"]),
            text=row["text"],
            gold=tuple(Gold(start=e["start"], end=e["end"], label=e["label"]) for e in row["entities"]),
        )
        for row in read_jsonl(data / "synthetic-pii/presidio_synth_v2.jsonl.gz")
        if test is None or (_byte(f"template {row['template_id']}") % 4 == 0) == test
    ]


# The sentences of the PHI-injected notes follow some forty templates: a sentence with its identifiers masked is one.


def held_out(template: str, fold: int) -> bool:
    """Whether a template is of the half that a tagger for measuring is not shown."""
    return _byte(template) % 2 == fold


def of_templates(note: Note, wanted: Callable[[str], bool], templates: frozenset[str]) -> Note:
    """``note`` without its sentences of ``templates`` that are not wanted."""
    out, gold, size = [], [], 0
    for start, end, template in _sentences(note):
        if template in templates and not wanted(template):
            continue
        out.append(note.text[start:end])
        gold += [
            Gold(start=one.start - start + size, end=one.end - start + size, label=one.label)
            for one in note.gold
            if start <= one.start < end
        ]
        size += end - start
    return Note(name=note.name, text="".join(out), gold=tuple(gold))


@cache
def templates_of(data: Path) -> frozenset[str]:
    """All templates: masked sentences that at least ten notes have."""
    notes = [*injected_notes(test=False, data=data), *injected_notes(test=True, data=data)]
    counts = Counter(template for note in notes for template in {row[2] for row in _sentences(note)} if "<" in template)
    return frozenset(template for template, count in counts.items() if count >= 10)


def _sentences(note: Note) -> Iterator[tuple[int, int, str]]:
    """Start, end and masked text of each sentence or line."""
    masked = list(note.text)
    for one in note.gold:
        masked[one.start : one.end] = "\0" * (one.end - one.start)
    blank = "".join(masked)
    labels = {one.start: one.label for one in note.gold}
    start = 0
    for found in re.finditer(r"\n|(?<!Dr)(?<!M\.D)[.!?] +|$", blank):
        end = found.end()
        if end > start:
            template = re.sub(
                r"\0+", lambda run, start=start: f"<{labels.get(start + run.start(), '')}>", blank[start:end].rstrip()
            )
            yield start, end, template
        start = end


def _byte(text: str) -> int:
    return hashlib.sha256(f"held out: {text}".encode()).digest()[0]
