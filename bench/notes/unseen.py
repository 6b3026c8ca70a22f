"""How detection does on what it was not made with: ``python -m bench.notes.unseen --data DIR --taggers FOLDER``.

Writes bench/results/notes-detection-unseen.{json,md}, and goes on from the JSON file where it was broken off. FOLDER has taggers of ``bench.notes.train_tagger``: ``phi-all-0``, which ships,
and ``phi-fold0-1``, ``phi-fold1-2`` (``--seed 1 --hold-out 0``, ``--seed 2 --hold-out 1``), each of which is measured on
the sentences of the templates that it was not shown, too.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.notes.corpora import (
    Gold,
    Note,
    held_out,
    injected_notes,
    of_templates,
    pii_notes,
    read_jsonl,
    templates_of,
)
from bench.notes.detection import ROOT, over_seeds, record_of, row, table, tagger_from, with_unlisted_names
from bench.notes.written_notes import PARTS, written_notes
from synclave_shared.text.entities import EntityFinder
from synclave_shared.text.phi import Detector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synclave_shared.text.phi.tagger import PhiTagger

NOT_IDENTIFYING = {"TITLE", "NRP", "AGE", "ORGANIZATION", "DATE_TIME", "GPE"}
"""Of the PII sentences: titles, nationalities, ages under ninety, companies and countries, card dates."""


def dialogue_notes(data: Path, part: str) -> list[Note]:
    """Visits of ACI-Bench, ``part`` note or dialogue; gold are the names of patient and doctor alone."""
    notes = []
    for line in read_jsonl(data / "dialogue-notes/aci_bench.jsonl.gz"):
        gold = {}
        for label, fields in (("DOCTOR", ("doctor_name",)), ("PATIENT", ("patient_firstname", "patient_familyname"))):
            for name in re.findall(r"[^\W\d_]{3,}", " ".join(str(line[field] or "") for field in fields)):
                if name.lower() not in ("none", "nan"):
                    for found in re.finditer(rf"(?i)(?<!\w){name}(?!\w)", line[part]):
                        gold[found.start()] = Gold(start=found.start(), end=found.end(), label=label)
        if gold:
            notes.append(Note(name=line["encounter_id"], text=line[part], gold=tuple(gold.values())))
    return notes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of public packs, docs/notes.md")
    parser.add_argument("--taggers", type=Path, required=True, help="folder of trained taggers")
    parser.add_argument("--limit", type=int, default=100, help="notes of each set that has more")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args()
    data, limit = options.data, options.limit
    every = {path.stem: tagger_from(path, "en") for path in sorted(options.taggers.glob("phi-*.safetensors"))}
    known = templates_of(data)
    shipped = {"": every["phi-all-0"]}
    sets: list[tuple[str, list[Note], dict[str, PhiTagger]]] = []
    for part in PARTS:
        notes = written_notes(part)
        sets.append((f"Forms written by hand, {part} part", notes, every))
        if part == "third":
            unlisted = [with_unlisted_names(note, 1) for note in notes]
            sets.append((f"Forms written by hand, {part} part, names and towns that no list has", unlisted, shipped))
    for fold in (0, 1):
        if f"phi-fold{fold}-{fold + 1}" not in every:
            continue
        notes = [
            of_templates(note, lambda template, fold=fold: held_out(template, fold), known)
            for note in injected_notes(test=True, data=data)[:limit]
        ]
        sets.append(
            (
                f"Injected notes, half {fold} of the templates, held out",
                notes,
                {"": every[f"phi-fold{fold}-{fold + 1}"]},
            )
        )
    sentences = [
        replace(note, gold=tuple(one for one in note.gold if one.label not in NOT_IDENTIFYING))
        for note in pii_notes(data, test=True)
    ]
    sets.append(("PII sentences, a quarter of the templates, held out", sentences, {"": every["phi-fold0-1"]}))
    for part in ("note", "dialogue"):
        notes = dialogue_notes(data, part)[: limit if part == "note" else limit // 2]
        names = "names of patient and doctor alone (precision does not count)"
        sets.append((f"ACI-Bench, {part}s, {names}", notes, shipped))
        sets.append((f"the same {part}s, names that no list has", [with_unlisted_names(n, 0) for n in notes], shipped))
    write(options.out, sets)


def write(out: Path, sets: Sequence[tuple[str, list[Note], dict[str, PhiTagger]]]) -> None:
    """All tables."""
    finder, base = EntityFinder(), Detector.for_locale("en")
    kept = out / "notes-detection-unseen.json"
    answer: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    lines = [
        "# Detection of identifiers on what it was not made with",
        "",
        "`python -m bench.notes.unseen --data DIR --taggers FOLDER`; what the sets are: [docs/notes.md](../../docs/notes.md).",
        "",
    ]
    for title, notes, taggers in sets:
        print(title, flush=True)
        medicine = [[(one.start, one.end) for one in finder.find(note.text)] for note in notes]
        arms = {"without tagger": lambda _note: base}
        for name, tagger in taggers.items():
            with_tagger = replace(base, tagger=tagger)
            arms[f"+ tagger, seed {name[-1]}" if name else "+ tagger"] = lambda _note, d=with_tagger: d
        first = replace(base, tagger=next(iter(taggers.values())))
        if "written" in title:
            arms["+ own record"] = lambda note, d=first: d.of_patient(record_of(note))
        have = {one["arm"]: one for one in answer.get(title, {}).get("rows", [])}
        for name, detector_for in arms.items():
            if name in have:
                continue
            begun = time.process_time()
            found = [detector_for(note).detect(note.text) for note in notes]
            have[name] = row(name, notes, found, time.process_time() - begun, medicine)
        rows = [have[name] for name in arms]
        answer[title] = {"notes": len(notes), "rows": rows}
        kept.write_text(json.dumps(answer, indent=1) + "\n")
        lines += [f"## {title}", "", f"{len(notes)} notes, {sum(len(note.gold) for note in notes)} identifiers.", ""]
        lines += [*table(rows), ""]
        lines += over_seeds(rows)
        last = rows[1]  # what ships, without the record
        cells = [
            f"{label} {one['token_recall']:.3f} ({one['entities']})"
            for label, one in last["classes"].items()  # type: ignore[attr-defined]
        ]
        lines += [f"By class, {last['arm'].removeprefix('+ ')}: {', '.join(cells)}.", ""]  # type: ignore[attr-defined]
    (out / "notes-detection-unseen.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
