"""Learn the embedded vocabulary of notes, and build examples/notes, from a folder with the public data sets.

    python examples/make_notes.py --source FOLDER [--only vocabulary|example]

FOLDER holds ``mtsamples/`` and ``phi-injected-notes/`` (CC0; see ``examples/notes/ATTRIBUTION.md``). Everything is
deterministic: the same source gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from synclave_shared.text.slots import SLOTS
from synclave_shared.text.tokenizer import SPECIALS

HERE: Final = Path(__file__).resolve().parent
MERGES: Final = HERE.parent / "shared" / "synclave_shared" / "text" / "data" / "merges.txt.xz"

VOCABULARY: Final = 8192
"""Tokens of the embedded vocabulary, special ones and slots included."""

SITES: Final = {"heart-and-lung": "cardio_pulm", "orthopaedics": "ortho_podiatry", "general": "general_other"}
"""Invented hospitals -> specialties of the notes."""

TYPES: Final = {
    "consult_h_and_p": "consult",
    "discharge_summary": "discharge summary",
    "progress_note": "progress note",
    "emergency": "emergency",
    "operative_or_procedure": "procedure",
    "radiology": "radiology",
}
"""Kinds of notes in the source -> those of the templates; all others are ``other``."""

SHORTEST, LONGEST = 300, 3000
"""Characters of the notes that are taken: the repository stays small."""

NOTES_OF_SITE, HELD_OUT_OF_SITE, PUBLIC_NOTES = 70, 30, 500


def learn_vocabulary(source: Path) -> None:
    """Byte pairs of the public notes, those that occur at least four times."""
    rows = pq.read_table(source / "mtsamples" / "notes.parquet", columns=["sample_id", "transcription"]).to_pylist()
    texts = [row["transcription"] for row in sorted(rows, key=lambda row: row["sample_id"]) if row["transcription"]]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS) - len(SLOTS),
        min_frequency=4,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    content = "".join(f"{first} {second}\n" for first, second in merges)
    MERGES.write_bytes(lzma.compress(content.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    print(f"{MERGES}: {len(merges)} merges, {MERGES.stat().st_size} bytes")


def build_example(source: Path) -> None:
    """Three sites of invented patients, some with two notes, others held out, and public notes for a warm start."""
    samples = {row["sample_id"]: row for row in pq.read_table(source / "mtsamples" / "notes.parquet").to_pylist()}
    with gzip.open(source / "phi-injected-notes" / "notes.jsonl.gz", "rt", encoding="utf-8") as file:
        injected = [json.loads(line) for line in file]
    injected = [note for note in injected if SHORTEST <= len(note["text"]) <= LONGEST]
    used = set()
    for site, node in SITES.items():
        notes = [note for note in injected if samples[note["sample_id"]]["node"] == node]
        notes = sorted(notes, key=lambda note: _hash(note["id"]))[:NOTES_OF_SITE]
        used |= {note["sample_id"] for note in notes}
        rows: list[dict[str, Any]] = []
        while notes:
            taken, notes = (notes[:2], notes[2:]) if len(rows) % 6 == 4 else (notes[:1], notes[1:])
            rows += _patient(f"{site}-{len(rows):03d}", taken, samples)
        _write(rows, HERE / "notes" / "sites" / site / "notes.parquet")
    public = [row for row in samples.values() if row["sample_id"] not in used and row["transcription"]]
    public = [row for row in public if SHORTEST <= len(row["transcription"]) <= LONGEST]
    public = sorted(public, key=lambda row: _hash(row["sample_id"]))[:PUBLIC_NOTES]
    _write(_plain_rows("public", public), HERE / "notes" / "public" / "notes.parquet")
    used |= {row["sample_id"] for row in public}
    rest = [row for row in samples.values() if row["sample_id"] not in used and row["transcription"]]
    rest = [row for row in rest if SHORTEST <= len(row["transcription"]) <= LONGEST]
    rest = sorted(rest, key=lambda row: _hash(row["sample_id"]))
    for site, node in SITES.items():
        own = [row for row in rest if row["node"] == node][:HELD_OUT_OF_SITE]
        _write(_plain_rows(f"{site}-held-out", own), HERE / "notes" / "held-out" / f"{site}.parquet")


def _plain_rows(name: str, notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A patient for each note, of whom no name is known."""
    return [
        _row(f"{name}-{number:03d}", "", "", row["transcription"], row, _sex(row["transcription"]))
        for number, row in enumerate(notes)
    ]


def _patient(patient: str, notes: list[dict[str, Any]], samples: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a patient, whose name and number are those that were put into the first note."""
    known: dict[str, list[str]] = {"PATIENT": [], "ID": []}
    for entity in notes[0]["entities"]:
        known.get(entity["label"], []).append(entity["text"])
    name = max(known["PATIENT"], key=len, default="")
    number = next(iter(known["ID"]), "")
    sex = _sex(" ".join(note["text"] for note in notes))
    return [_row(patient, name, number, note["text"], samples[note["sample_id"]], sex) for note in notes]


def _row(patient: str, name: str, number: str, text: str, sample: dict[str, Any], sex: str) -> dict[str, Any]:
    kind = TYPES.get(sample["note_type"], "other")
    return {"patient": patient, "name": name, "record_number": number, "sex": sex, "type": kind, "text": text}


def _sex(text: str) -> str:
    """What the text says of the patient, by its pronouns."""
    words = Counter(re.findall(r"[a-z]+", text.lower()))
    she, he = words["she"] + words["her"] + words["female"], words["he"] + words["his"] + words["male"]
    return "female" if she > he else "male" if he > she else "not told"


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd", compression_level=19, write_page_checksum=True)
    print(f"{path}: {len(rows)} notes, {path.stat().st_size} bytes")


def _hash(key: object) -> str:
    return hashlib.sha256(str(key).encode()).hexdigest()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--only", choices=["vocabulary", "example"])
    options = parser.parse_args()
    if options.only != "example":
        learn_vocabulary(options.source)
    if options.only != "vocabulary":
        build_example(options.source)


if __name__ == "__main__":
    main()
