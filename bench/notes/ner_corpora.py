"""The open NER sets in the project's kinds of entities: BC5CDR, NCBI-disease, MACCROBAT.

The sets' own held-out parts are not read; of what is here, ``devel`` parts and every fifth MACCROBAT report are for test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.notes.corpora import Gold, Note, read_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ner_notes"]

_MACCROBAT = {
    "Sign_symptom": "problem",
    "Disease_disorder": "problem",
    "Medication": "drug",
    "Therapeutic_procedure": "treatment",
    "Diagnostic_procedure": "test",
    "Lab_value": "value",
    "Dosage": "dose",
}
_IOB = {"Disease": "problem", "Chemical": "drug"}


def ner_notes(*, test: bool, data: Path) -> Iterator[tuple[str, frozenset[str], Note]]:
    """(set, kinds that it annotates, note)."""
    for name, kinds in (("bc5cdr", {"problem", "drug"}), ("ncbi-disease", {"problem"})):
        part = "devel" if test else "train"
        rows = read_jsonl(data / f"clinical-ner/{name}_{part}.jsonl.gz")
        for start in range(0, len(rows), 6):
            # Six sentences: a sentence alone has little around its words.
            yield name, frozenset(kinds), _note(f"{name}{start}", rows[start : start + 6])
    for place, row in enumerate(read_jsonl(data / "clinical-ner/maccrobat2020.jsonl.gz")):
        if (place % 5 == 0) == test:
            gold = tuple(
                Gold(start=start, end=end, label=_MACCROBAT[entity["label"]])
                for entity in row["entities"]
                if entity["label"] in _MACCROBAT
                for start, end in entity["spans"]
            )
            yield "maccrobat", frozenset(_MACCROBAT.values()), Note(name=row["id"], text=row["text"], gold=gold)


def _note(name: str, rows: list[dict[str, list[str]]]) -> Note:
    text, gold = "", []
    for row in rows:
        open_kind, begun, end = "", 0, 0
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            kind = _IOB.get(tag[2:], "") if tag != "O" else ""
            glue = "" if token in (",", ".", ";", ":", ")", "-", "/") or text[-1:] in ("(", "-", "/", "") else " "
            text += glue
            if open_kind and (kind != open_kind or tag.startswith("B")):
                gold.append(Gold(start=begun, end=end, label=open_kind))
                open_kind = ""
            if kind and not open_kind:
                open_kind, begun = kind, len(text)
            text += token
            end = len(text)
        if open_kind:
            gold.append(Gold(start=begun, end=end, label=open_kind))
        text += "\n"
    return Note(name=name, text=text, gold=tuple(gold))
