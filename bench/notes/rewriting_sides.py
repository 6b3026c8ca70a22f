"""What is measured beside the arms: gold mentions, a network of BERT's size, and what rewritten notes teach."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.notes.ner_corpora import ner_notes
from bench.notes.rewriting_arms import TOKENS
from bench.notes.word_by_word import WordByWord
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.text.entities import EntityFinder, shipped_entity_network
from synclave_shared.text.fill_words import Blank, Drawing, FillTask, WordFiller
from synclave_shared.text.phi import Detector
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.rewrite import PatientNotes, Rewriter, RewriteSettings, Rewritten, SourceNote
from synclave_shared.text.tokenizer import NoteTokenizer, embedded_tokenizer

__all__ = ["bert_base_seconds", "gold_mentions", "note_types"]

LONGEST = 1200
"""Characters of a note that a classifier reads, real or rewritten."""

KINDS = 8
REPORTS = 20
BERT_TOKENS = 256
WORDS_IN_TURN = 6
"""Words that are really filled one by one with the large network: each costs the same."""


def rewritten(
    texts: list[str],
    network: NoteLm,
    tokenizer: NoteTokenizer,
    detector: Detector,
    finder: EntityFinder,
    seed: int,
    settings: RewriteSettings | None = None,
) -> list[Rewritten]:
    """Each text as a patient of its own."""
    filler = WordFiller(network, tokenizer, detector.locale, TOKENS, Drawing())
    rewriter = Rewriter(filler, finder, hashlib.sha256(f"bench {seed}".encode()).digest(), settings)
    patients = [
        PatientNotes(patient=str(place), notes=(SourceNote(text=text, head="other"),), detector=detector)
        for place, text in enumerate(texts)
    ]
    found: list[Rewritten] = []
    for start in range(0, len(patients), 8):
        found += [own[0] for _, own in rewriter.rewrite(patients[start : start + 8])]
    return found


def gold_mentions(
    data: Path, network: NoteLm, tokenizer: NoteTokenizer, detector: Detector, *, tagger: bool
) -> dict[str, Any]:
    """Gold mentions of MACCROBAT reports whose words are still there when half of the other words are new.

    Args:
        data: folder of public packs.
        network, tokenizer: the language model.
        detector: of a site.
        tagger: whether what is kept is found by the tagger, too.
    """
    notes = [note for corpus, _, note in ner_notes(test=True, data=data) if corpus == "maccrobat"][:REPORTS]
    finder = EntityFinder(network=shipped_entity_network() if tagger else None)
    gold, kept, kinds = 0, 0, Counter[str]()
    alive = Counter[str]()
    words = marked = 0
    for note, one in zip(
        notes, rewritten([note.text for note in notes], network, tokenizer, detector, finder, 0), strict=True
    ):
        words += len(note.text.split())
        marked += sum(len(note.text[e.start : e.end].split()) for e in finder.find(note.text))
        if one.text is None:
            continue
        there = " ".join(one.text.casefold().split())
        for mark in note.gold:
            found = " ".join(note.text[mark.start : mark.end].casefold().split()) in there
            gold, kept = gold + 1, kept + found
            kinds[mark.label] += 1
            alive[mark.label] += found
    return {
        "notes": len(notes),
        "mentions": gold,
        "kept": kept / gold,
        "by_kind": {kind: alive[kind] / count for kind, count in sorted(kinds.items())},
        "words_kept_as_entities": marked / words,
    }


def bert_base_seconds() -> dict[str, Any]:
    """CPU seconds of one core for a note of 256 tokens, random weights of BERT-base's shape (110 M parameters)."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    network = NoteLm(BertForMaskedLM(BertConfig()).eval())
    tokenizer, locale = embedded_tokenizer(), locale_for("en")
    words = ("patient", "was", "seen", "in", "clinic", "with", "pain", "and", "he", "has", "no", "fever")
    text = " ".join(words * 25)[: 5 * 253]
    while len(tokenizer.encode(text).ids) > BERT_TOKENS - 3:
        text = text.rsplit(" ", 1)[0]
    found: dict[str, Any] = {"parameters": sum(one.numel() for one in network.parameters())}
    pieces: list[str | Blank] = []
    for place, word in enumerate(text.split()):
        pieces += [Blank(word, False) if place % 2 else f" {word}"]
    blanks = sum(isinstance(piece, Blank) for piece in pieces)
    task = FillTask(head="", pieces=pieces, forbidden=frozenset(), uniforms=lambda c, s: np.random.default_rng([c, s]))
    for precision in ("float32", "bfloat16"):
        for calls in (8, 16):
            drawing = Drawing(calls=calls, precision=precision)  # type: ignore[arg-type]
            filler = WordFiller(network, tokenizer, locale, BERT_TOKENS, drawing)
            filler.fill([task])
            begun = time.process_time()
            filler.fill([task])
            found[f"{precision}-{calls}"] = time.process_time() - begun
    writer = WordByWord(network=network, tokenizer=tokenizer, tokens=BERT_TOKENS, ratio=1.0)
    few = 1 - WORDS_IN_TURN / len(text.split())
    begun = time.process_time()
    _, calls = writer.rewrite(text, [], [], _Rarely(few))  # type: ignore[arg-type]
    each = (time.process_time() - begun) / max(1, calls)
    return found | {"blanks": blanks, "call_s": each, "word_by_word": each * blanks, "called": calls}


class _Rarely:
    """Random numbers that mask a few words, evenly spread."""

    def __init__(self, share: float) -> None:
        self._every, self._place = max(1, round(1 / (1 - share))), 0
        self._rng = np.random.default_rng(0)

    def random(self) -> float:
        self._place += 1
        return 0.0 if self._place % self._every == 0 else 2.0

    def choice(self, count: int, p: Any) -> int:
        return int(self._rng.choice(count, p=p))


def note_types(
    rows: Mapping[str, list[Any]],
    parts: Mapping[int, str],
    network: NoteLm,
    tokenizer: NoteTokenizer,
    detector: Detector,
    seed: int,
) -> dict[str, Any]:
    """Accuracy of a specialty and a type of note on real notes, by what the classifier was trained on.

    Trained on the *patients* part, tested on the *reference* part of ``bench.notes.parts``.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline

    texts = [text[:LONGEST] for text in rows["transcription"]]
    found: dict[str, Any] = {}
    part = [parts[number] for number in rows["sample_id"]]
    train = [place for place, one in enumerate(part) if one == "patients"]
    made = rewritten(
        [texts[place] for place in train],
        network,
        tokenizer,
        detector,
        EntityFinder(network=shipped_entity_network()),
        seed,
    )
    found["refused"] = sum(one.text is None for one in made)
    new = {place: one.text for place, one in zip(train, made, strict=True) if one.text is not None}
    for column in ("primary_specialty", "note_type"):
        common = Counter(rows[column][place] for place in train).most_common(KINDS)
        kinds = {kind for kind, _ in common}
        ours = [place for place in train if rows[column][place] in kinds and place in new]
        test = [place for place, one in enumerate(part) if one == "reference" and rows[column][place] in kinds]
        truth = [rows[column][place] for place in test]
        for name, given in (("real", [texts[p] for p in ours]), ("rewritten", [str(new[p]) for p in ours])):
            model = make_pipeline(
                TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(C=10, max_iter=1000)
            ).fit(given, [rows[column][place] for place in ours])
            said = model.predict([texts[place] for place in test])
            found |= {
                f"{column}/{name}/accuracy": float(np.mean([a == b for a, b in zip(said, truth, strict=True)])),
                f"{column}/{name}/macro_f1": float(f1_score(truth, said, average="macro")),
            }
        found[f"{column}/train"], found[f"{column}/test"] = len(ours), len(test)
    return found
