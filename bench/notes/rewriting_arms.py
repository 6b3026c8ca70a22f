"""What is varied, and the rewriting itself: every arm with every seed leaves a file of its outputs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.notes.corpora import Note
from bench.notes.detection import record_of, with_unlisted_names
from bench.notes.word_by_word import WordByWord
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.text.entities import EntityFinder, shipped_entity_network
from synclave_shared.text.fill_words import Blank, Drawing, FillTask, WordFiller
from synclave_shared.text.phi import Detector
from synclave_shared.text.rewrite import PatientNotes, Rewriter, RewriteSettings, SourceNote
from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["ARMS", "TOKENS", "Arm", "Outputs", "Studio"]

TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of rewriting.

    Attributes:
        name: of the arm.
        notes: how many of the test notes, by the first seed and by the others.
        unlisted: whether names and towns are first replaced by some that no list has.
        published: one word at a time as published.
    """

    name: str
    notes: tuple[int, int] = (8, 8)
    settings: RewriteSettings = field(default_factory=RewriteSettings)
    drawing: Drawing = field(default_factory=Drawing)
    unlisted: bool = False
    published: bool = False


def _arms() -> list[Arm]:
    arms = [Arm(name="default", notes=(20, 20)), Arm(name="published", published=True)]
    arms += [Arm(name=f"calls-{calls}", drawing=Drawing(calls=calls)) for calls in (4, 8, 16, 32)]
    arms += [
        Arm(name=f"keep-{share}", settings=RewriteSettings(ratio=1.0, keep_entities=share))
        for share in (1.0, 0.5, 0.25, 0.1, 0.0)
    ]
    arms += [Arm(name=f"ratio-{ratio}", settings=RewriteSettings(ratio=ratio)) for ratio in (0.25, 0.75)]
    arms += [Arm(name=f"temperature-{value}", drawing=Drawing(temperature=value)) for value in (0.5, 1.5)]
    arms += [Arm(name=f"top-p-{value}", drawing=Drawing(top_p=value)) for value in (0.5, 1.0)]
    # Draws as the published way has them: what is left to compare is how many calls it takes.
    arms += [Arm(name=f"top-6-calls-{calls}", drawing=Drawing(calls=calls, top_k=6, top_p=1.0)) for calls in (8, 16)]
    arms += [Arm(name="leaks", notes=(120, 40)), Arm(name="unlisted", notes=(24, 12), unlisted=True)]
    return arms


ARMS = _arms()


@dataclass(slots=True, kw_only=True)
class Outputs:
    """What one arm made with one seed.

    Attributes:
        names: of the notes.
        sources: the notes that went in.
        texts: what came out; None: refused.
        rejected: of each note what the gate found in tries that it did not let through.
        refusals: of each note why it was refused, else nothing.
        kept, kept_there: of each note what was kept, in the source and in the output.
        calls: of the network for a note, at most.
        fill_s, whole_s: CPU seconds of a note, for filling words and for everything.
    """

    names: list[str]
    sources: list[str]
    texts: list[str | None]
    rejected: list[list[str]]
    refusals: list[str]
    kept: list[list[list[int]]]
    kept_there: list[list[list[int]]]
    calls: float
    fill_s: float
    whole_s: float


class _TimedFiller(WordFiller):
    """Counts its CPU seconds and calls of the network."""

    seconds = 0.0
    calls = 0

    def fill(self, tasks: Sequence[FillTask]) -> list[list[str]]:
        begun = time.process_time()
        for task in tasks:
            self.calls += min(self._drawing.calls, sum(isinstance(piece, Blank) for piece in task.pieces))
        try:
            return super().fill(tasks)
        finally:
            self.seconds += time.process_time() - begun


class Studio:
    """Rewrites test notes, and keeps what was made.

    Args:
        notes: the test notes; each is a patient.
        network, tokenizer: the language model.
        detector: of a site.
        folder: of finished outputs.
    """

    def __init__(
        self, notes: Sequence[Note], network: NoteLm, tokenizer: NoteTokenizer, detector: Detector, folder: Path
    ) -> None:
        self.notes, self.network, self.tokenizer, self.detector = notes, network, tokenizer, detector
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def notes_of(self, arm: Arm, seed: int) -> list[Note]:
        """The arm's notes."""
        chosen = self.notes[: arm.notes[min(seed, 1)]]
        return [with_unlisted_names(note, seed) for note in chosen] if arm.unlisted else list(chosen)

    def outputs(self, arm: Arm, seed: int, *, make: bool = True) -> Outputs | None:
        """The arm's outputs, made if they are not there yet."""
        path = self._folder / f"{arm.name.replace(' ', '-')}-{seed}.json"
        if path.exists():
            return Outputs(**json.loads(path.read_text(encoding="utf-8")))
        if not make:
            return None
        notes = self.notes_of(arm, seed)
        found = self._published(arm, notes, seed) if arm.published else self._ours(arm, notes, seed)
        path.write_text(json.dumps(asdict(found)), encoding="utf-8")
        return found

    def _ours(self, arm: Arm, notes: Sequence[Note], seed: int) -> Outputs:
        filler = _TimedFiller(self.network, self.tokenizer, self.detector.locale, TOKENS, arm.drawing)
        key = hashlib.sha256(f"bench {seed}".encode()).digest()
        rewriter = Rewriter(filler, EntityFinder(network=shipped_entity_network()), key, arm.settings)
        begun = time.process_time()
        results = []
        for start in range(0, len(notes), 8):
            patients = [
                PatientNotes(
                    patient=note.name,
                    notes=(SourceNote(text=note.text, head="other"),),
                    detector=self.detector.of_patient(record_of(note)),
                )
                for note in notes[start : start + 8]
            ]
            results += [own[0] for _, own in rewriter.rewrite(patients)]
        whole = time.process_time() - begun
        return Outputs(
            names=[note.name for note in notes],
            sources=[note.text for note in notes],
            texts=[one.text for one in results],
            rejected=[list(one.rejected) for one in results],
            refusals=[one.refusal for one in results],
            kept=[_lists(one.kept) for one in results],
            kept_there=[_lists(one.kept_there) for one in results],
            calls=filler.calls / len(notes),
            fill_s=filler.seconds / len(notes),
            whole_s=whole / len(notes),
        )

    def _published(self, arm: Arm, notes: Sequence[Note], seed: int) -> Outputs:
        writer = WordByWord(network=self.network, tokenizer=self.tokenizer, tokens=TOKENS, ratio=arm.settings.ratio)
        finder = EntityFinder(network=shipped_entity_network())
        texts: list[str | None] = []
        calls, seconds = 0, 0.0
        whole = time.process_time()
        for note in notes:
            spans = self.detector.of_patient(record_of(note)).detect(note.text)
            entities = finder.find(note.text)
            stream = np.random.default_rng([seed, *note.name.encode()])
            begun = time.process_time()
            text, number = writer.rewrite(note.text, spans, entities, stream)
            seconds += time.process_time() - begun
            texts.append(text)
            calls += number
        empty: list[Any] = [[] for _ in notes]
        return Outputs(
            names=[note.name for note in notes],
            sources=[note.text for note in notes],
            texts=texts,
            rejected=empty,
            refusals=[""] * len(notes),
            kept=empty,
            kept_there=empty,
            calls=calls / len(notes),
            fill_s=seconds / len(notes),
            whole_s=(time.process_time() - whole) / len(notes),
        )


def _lists(spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    return [list(span) for span in spans]
