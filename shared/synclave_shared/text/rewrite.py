"""Rewriting real notes at the site: identifiers replaced, clinical entities kept, the other words written anew.

What comes out is about a real patient. It keeps what makes the note worth reading, and whoever knows the source can
find it again: it stays inside the hospital, and no epsilon belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from synclave_shared.errors import ConfigurationError
from synclave_shared.text.entities import EntityFinder
from synclave_shared.text.fill_words import Blank, FillTask, WordFiller
from synclave_shared.text.identifying import Identifying
from synclave_shared.text.leak_gate import LeakGate
from synclave_shared.text.note_plan import NotePlan, Role, plan_note
from synclave_shared.text.phi import Detector
from synclave_shared.text.replacements import KeyedDraws, Replacements
from synclave_shared.text.slots import slot_of
from synclave_shared.text.spans import Span

__all__ = ["LONGEST_NOTE", "PatientNotes", "RewriteSettings", "Rewriter", "Rewritten", "SourceNote"]

LONGEST_NOTE: Final = 50_000
"""Characters; a longer one is refused: it is no note, and would hold up all others."""

KEY_BYTES: Final = 16

_NO_TEXT: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, halves of characters, and what breaks lines or turns the direction of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteSettings:
    """What to keep.

    Attributes:
        ratio: share of the words that are written anew, of those that are neither entities nor headings, in (0, 1].
        keep_entities: share of the clinical mentions, and of other numbers, that are kept, in [0, 1].
        tries: of a note, before it is refused; each with other random numbers and a higher ratio.
    """

    ratio: float = 0.5
    keep_entities: float = 1.0
    tries: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1 or not 0 <= self.keep_entities <= 1 or self.tries < 1:
            raise ConfigurationError(
                expected="a ratio above 0 up to 1, a share of kept entities from 0 to 1, at least one try",
                found=f"ratio {self.ratio}, keep_entities {self.keep_entities}, tries {self.tries}",
                remedy="Choose values in these ranges.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNote:
    """A real note: its text, and what its chunks begin with (type and label in words)."""

    text: str
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientNotes:
    """All notes of a patient.

    Attributes:
        patient: identifier; it goes into the keyed choices only.
        notes: in order.
        detector: with the patient's own identifiers, if they are known.
    """

    patient: str
    notes: tuple[SourceNote, ...]
    detector: Detector


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What became of a note.

    Attributes:
        text: the rewriting; None: refused.
        refusal: why: ``empty``, ``too-long``, or what the gate found in the last try.
        rejected: what the gate found in every try that it did not let through, in order.
        entities: clinical mentions in the source, and how many of them were kept.
        kept: [start, end) in the source of what was kept: entities, headings, words of negation and side.
        kept_there: where they stand in the rewriting.
    """

    text: str | None
    refusal: str = ""
    rejected: tuple[str, ...] = ()
    entities: tuple[int, int] = (0, 0)
    kept: tuple[tuple[int, int], ...] = ()
    kept_there: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    """What all notes of a patient share."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]
    draws: KeyedDraws
    replacements: Replacements
    identifying: Identifying


class Rewriter:
    """Rewrites notes.

    Args:
        filler: the language model.
        finder: of clinical entities.
        key: the site's secret, at least 16 bytes: with it, surrogates are the same again.
        settings: what to keep.
        canaries: strings that no rewriting may hold.

    Raises:
        ConfigurationError: if the key is too short.
    """

    def __init__(
        self,
        filler: WordFiller,
        finder: EntityFinder,
        key: bytes,
        settings: RewriteSettings | None = None,
        canaries: Sequence[str] = (),
    ) -> None:
        if len(key) < KEY_BYTES:
            raise ConfigurationError(
                expected=f"a secret key of at least {KEY_BYTES} bytes", found=f"{len(key)}", remedy="Make a longer one."
            )
        self._filler, self._finder, self._key = filler, finder, key
        self._settings, self._canaries = settings or RewriteSettings(), tuple(canaries)

    def rewrite(self, patients: Sequence[PatientNotes]) -> Iterator[tuple[int, list[Rewritten]]]:
        """Rewrite the notes of some patients together; yields (number of the patient, its notes in order).

        A note's rewriting depends on its patient's notes, the key and the settings.
        """
        prepared = [self._prepared(patient) for patient in patients]
        results: list[list[Rewritten]] = []
        open_notes: list[tuple[int, int]] = []
        for number, patient in enumerate(prepared):
            results.append([])
            for place, text in enumerate(patient.texts):
                refusal = "" if text.strip() else "empty"
                refusal = "too-long" if len(text) > LONGEST_NOTE else refusal
                results[-1].append(Rewritten(text=None, refusal=refusal))
                if not refusal:
                    open_notes.append((number, place))
        for attempt in range(self._settings.tries):
            plans = [self._planned(prepared[number], place, attempt) for number, place in open_notes]
            tasks = [
                self._task(prepared[number], patients[number].notes[place].head, plan, f"{place}.{attempt}")
                for (number, place), plan in zip(open_notes, plans, strict=True)
            ]
            again = []
            for (number, place), plan, words in zip(open_notes, plans, self._filler.fill(tasks), strict=True):
                before = results[number][place].rejected
                results[number][place] = one = self._gated(prepared[number], plan, words, before)
                if one.text is None:
                    again.append((number, place))
            open_notes = again
        yield from enumerate(results)

    def _prepared(self, patient: PatientNotes) -> _Patient:
        texts = tuple(_NO_TEXT.sub(" ", note.text.replace("\r\n", "\n").replace("\r", "\n")) for note in patient.notes)
        spans = tuple(tuple(patient.detector.detect(text)) if len(text) <= LONGEST_NOTE else () for text in texts)
        draws = KeyedDraws(self._key, patient.patient)
        notes = list(zip(texts, spans, strict=True))
        return _Patient(
            texts=texts,
            spans=spans,
            draws=draws,
            replacements=Replacements(draws, patient.detector.locale, notes),
            identifying=Identifying.of(notes, patient.detector.locale),
        )

    def _planned(self, patient: _Patient, place: int, attempt: int) -> NotePlan:
        text, how = patient.texts[place], self._settings
        return plan_note(
            text,
            patient.spans[place],
            self._finder.find(text),
            patient.draws,
            identifying=patient.identifying,
            ratio=how.ratio + (1 - how.ratio) * attempt / how.tries,
            keep_entities=how.keep_entities,
            attempt=f"{place}.{attempt}",
        )

    def _task(self, patient: _Patient, head: str, plan: NotePlan, name: str) -> FillTask:
        pieces: list[str | Blank] = []
        at = 0
        for start, end, part in _parts(plan):
            pieces += [plan.text[at:start]] if start > at else []
            pieces.append(part if isinstance(part, Blank) else slot_of(part.phi.value, part.kind))
            at = end
        pieces += [plan.text[at:]] if at < len(plan.text) else []
        return FillTask(
            head=head,
            pieces=pieces,
            forbidden=patient.identifying.words,
            uniforms=lambda chunk, stream: patient.draws.generator("fill", name, chunk, stream),
        )

    def _gated(self, patient: _Patient, plan: NotePlan, words: Sequence[str], before: tuple[str, ...]) -> Rewritten:
        pieces: list[str] = []
        moved: list[tuple[int, int]] = []
        at = number = 0
        for start, end, part in _parts(plan):
            pieces.append(plan.text[at:start])
            moved.append((start, end))
            if isinstance(part, Blank):
                pieces.append(_cased(words[number], part.word))
                number += 1
            else:
                pieces.append(patient.replacements.of(part, plan.text[start:end]))
            at = end
        pieces.append(plan.text[at:])
        text = "".join(pieces)
        kept = tuple((word.start, word.end) for word in plan.words if word.role is Role.KEPT)
        kept_there: list[tuple[int, int]] = []
        part_number = grown = 0
        for start, end in kept:
            while part_number < len(moved) and moved[part_number][1] <= start:
                one = moved[part_number]
                grown += len(pieces[2 * part_number + 1]) - (one[1] - one[0])
                part_number += 1
            kept_there.append((start + grown, end + grown))
        gate = LeakGate(identifiers=patient.identifying, canaries=self._canaries)
        leak = gate.check(plan.text, kept, text, kept_there)
        done = Rewritten(text=text, rejected=before, entities=plan.entities, kept=kept, kept_there=tuple(kept_there))
        return done if leak is None else replace(done, text=None, refusal=leak.value, rejected=(*before, leak.value))


def _parts(plan: NotePlan) -> Iterator[tuple[int, int, Blank | Span]]:
    """Everything that is replaced, in order: masked words and identifiers."""
    blanks: list[tuple[int, int, Blank | Span]] = [
        (word.start, word.end, Blank(plan.text[word.start : word.end], word.role is Role.CHANGED, word.medical))
        for word in plan.words
        if word.role in (Role.MASKED, Role.CHANGED)
    ]
    spans = [(span.start, span.end, span) for span in plan.spans]
    yield from sorted([*blanks, *spans], key=lambda part: part[0])


def _cased(word: str, like: str) -> str:
    """The word in the case of the one whose place it takes."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    if like[0].isupper():
        return word[0].upper() + word[1:]
    return word.lower()
