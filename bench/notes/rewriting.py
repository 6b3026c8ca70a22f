"""What rewriting at the site keeps, gives away and costs: ``python -m bench.notes.rewriting --data DIR``.

Writes bench/results/notes-rewriting.{json,md} and docs/images/rewriting.png. Every finished part is kept: a run that is
broken off goes on. The language model is the embedded one, which has read the *public* notes of ``bench.notes.parts``;
test notes are those with invented identifiers whose notes it has not seen (first) and the other
ones of the detection's test part (behind them, for the count of leaks alone). The judge of words has read the notes of
neither.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from bench.notes.corpora import Note, injected_notes
from bench.notes.parts import near_copies, parts_of
from bench.notes.rewriting_arms import ARMS, Studio
from bench.notes.rewriting_report import write_report
from bench.notes.rewriting_scores import Scorer, variety
from bench.notes.rewriting_sides import bert_base_seconds, gold_mentions, note_types
from synclave_client.rewriting import read_note_model
from synclave_server.evaluation.notes.ngrams import CountedWords
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base
from synclave_shared.text.masking import site_detector

ROOT = Path(__file__).parents[2]
AMONG = 150
"""Notes among which the embedding looks for a source."""
LONGEST = 500
"""Words of a test note: three quarters of them have fewer, and long ones cost most of the time."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of public packs, docs/notes.md")
    parser.add_argument("--writer", type=Path, help="language model instead of the embedded one")
    parser.add_argument("--only", nargs="*", help="parts whose names begin so")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / ".peers/notes/rewriting", help="outputs, out of git")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.writer is None:
        spec = NotesSpec()
        base = find_base(spec)
        network, tokenizer, digest = build_note_lm(spec, base), base.tokenizer, base.digest
    else:
        network, tokenizer, digest = read_note_model(options.writer)
    network.eval().requires_grad_(False)
    detector = site_detector("en")
    rows = pq.read_table(options.data / "mtsamples/notes.parquet").to_pydict()
    texts = dict(zip(rows["sample_id"], rows["transcription"], strict=True))
    parts, group = parts_of(texts), near_copies(texts)
    notes = sorted(
        (note for note in injected_notes(test=True, data=options.data) if len(note.text.split()) <= LONGEST),
        key=lambda note: (("reference", "patients", "public").index(parts[_number(note)]), note.name),
    )
    unseen = {group[_number(note)] for note in notes if parts[_number(note)] == "reference"}
    judged = [text for number, text in texts.items() if parts[number] != "public" and group[number] not in unseen]
    everyone = {note.name: note.text for test in (True, False) for note in injected_notes(test=test, data=options.data)}
    scorer = Scorer(
        judge=CountedWords(judged), everyone=everyone, detector=detector, network=network, tokenizer=tokenizer
    )
    studio = Studio(notes, network, tokenizer, detector, options.work / digest[:12])
    path = options.out / "notes-rewriting.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if not document:
        document = {"judge_notes": len(judged), "unseen_notes": len(unseen), "cells": {}}
    cells: dict[str, Any] = document["cells"]

    def cell(name: str, work: Callable[[], Any]) -> None:
        if name in cells or (options.only and not any(name.startswith(one) for one in options.only)):
            return
        begun = time.process_time()
        cells[name] = work() | {"writer": digest[:12]}
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{name}: {time.process_time() - begun:.0f} CPU s", flush=True)

    for arm in ARMS:
        for seed in range(options.seeds):

            def scores(arm: Any = arm, seed: int = seed) -> dict[str, Any]:
                outputs = studio.outputs(arm, seed)
                assert outputs is not None
                return scorer.scores(outputs, studio.notes_of(arm, seed))

            cell(f"arm/{arm.name}/{seed}", scores)
    for arm in ARMS:
        made = [one for seed in range(options.seeds) if (one := studio.outputs(arm, seed, make=False)) is not None]
        if len(made) > 1:
            cell(f"variety/{arm.name}", lambda made=made: {"self_bleu": variety(made), "seeds": len(made)})
    test_names = [note.name for note in notes[:AMONG]]
    linked = [arm for arm in ARMS if arm.name.startswith("keep")]
    wanted = [f"embedding/{arm.name}/{seed}" for arm in linked for seed in range(options.seeds)]
    if any(name not in cells for name in wanted) and (not options.only or "embedding" in options.only):
        sources = scorer.embeddings([note.text for note in notes[:AMONG]])
        for arm in linked:
            for seed in range(options.seeds):
                made_once = studio.outputs(arm, seed, make=False)
                if made_once is not None:
                    cell(
                        f"embedding/{arm.name}/{seed}",
                        lambda outputs=made_once: {
                            "top1": scorer.linkage_by_embedding(outputs, sources, test_names),
                            "among": len(test_names),
                        },
                    )
    for tagger in (False, True):
        cell(
            f"gold/{'tagger' if tagger else 'lists'}",
            lambda tagger=tagger: gold_mentions(options.data, network, tokenizer, detector, tagger=tagger),
        )
    cell("bert-base", bert_base_seconds)
    # One seed: hundreds of notes are rewritten for each.
    for seed in range(1):
        cell(f"types/{seed}", lambda seed=seed: note_types(rows, parts, network, tokenizer, detector, seed))
    write_report(document, path.with_suffix(".md"), ROOT / "docs/images/rewriting.png")


def _number(note: Note) -> int:
    return int(note.name.removeprefix("mt"))


if __name__ == "__main__":
    main()
