"""From patients' notes to chunks of tokens of one length, and which of them a model may be asked for.

A chunk is ``[begin] heading [separator] text [separator] padding``. The heading tells the note's type and the patient's
label in words: always seen, never hidden, so that text can be asked for of a given kind. Slots of identifiers are seen
and never predicted.

Shapes: ``R`` chunks, ``T`` tokens of each, ``N`` patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.text.slots import SLOT_PATTERN
from synclave_shared.text.tokenizer import Encoded, NoteTokenizer

__all__ = ["NoteChunks", "encode_notes", "heading", "laid_out"]

SEARCHED_FOR_BREAK: Final = 0.25
"""Share of a chunk, from its end, in which a line break is looked for to cut there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteChunks:
    """Patients' chunks, one patient's after another's.

    Attributes:
        ids: token numbers; int32 [R, T].
        predictable: where a word of the text stands that may be hidden and asked for; bool [R, T].
        starts: the chunks of patient i are ``starts[i]`` to ``starts[i + 1] - 1``, at least one; int64 [N + 1].
        most: chunks that any patient could have: public, and never counted from the patients.
        shares: what share of the clip norm each patient may contribute; float64 [N] in (0, 1], None: all of it.
    """

    ids: npt.NDArray[np.int32]
    predictable: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    most: int
    shares: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of patients N."""
        return len(self.starts) - 1


def heading(schema: NotesSchema, kind: str, label: int) -> str:
    """What a chunk begins with: the note's type, and the label's value (its position)."""
    value = f"{schema.label.title or schema.label.name}: {schema.label.values[label]}"
    return f"{kind}, {value}" if kind else value


def laid_out(
    tokenizer: NoteTokenizer, head: Sequence[int], body: Sequence[int], tokens: int
) -> tuple[npt.NDArray[np.int32], int]:
    """A chunk of ``tokens`` numbers, and where its text begins; a heading is cut to a quarter of it, a text to fit."""
    head = head[: tokens // 4]
    begin = len(head) + 2
    row = [tokenizer.begin, *head, tokenizer.separator, *body[: tokens - begin - 1], tokenizer.separator]
    return np.array(row + [tokenizer.pad] * (tokens - len(row)), dtype=np.int32), begin


def encode_notes(dataset: NotesDataset, schema: NotesSchema, tokenizer: NoteTokenizer) -> NoteChunks:
    """The chunks of all patients: each patient's notes in order, at most ``schema.notes.chunks`` in all."""
    rows: list[npt.NDArray[np.int32]] = []
    may: list[npt.NDArray[np.bool_]] = []
    starts = [0]
    for notes, label in zip(dataset.notes, dataset.labels.tolist(), strict=True):
        room = schema.notes.chunks
        for note in notes:
            for row, predictable in _chunks_of(note, heading(schema, note.type, label), schema, tokenizer, room):
                rows.append(row)
                may.append(predictable)
                room -= 1
            if room == 0:
                break
        starts.append(len(rows))
    return NoteChunks(
        ids=np.stack(rows),
        predictable=np.stack(may),
        starts=np.array(starts, dtype=np.int64),
        most=schema.notes.chunks,
        shares=dataset.shares,
    )


def _chunks_of(
    note: Note, head: str, schema: NotesSchema, tokenizer: NoteTokenizer, room: int
) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]]:
    tokens = schema.notes.tokens
    head_ids = tokenizer.encode(head).ids[: tokens // 4]
    length = tokens - len(head_ids) - 3
    encoded = tokenizer.encode(note.text)
    free = _outside_slots(note.text, encoded)
    found: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]] = []
    at = 0
    while at < len(encoded.ids) and len(found) < room:
        stop = _end_of_chunk(note.text, encoded, at, length)
        row, begin = laid_out(tokenizer, head_ids, encoded.ids[at:stop], tokens)
        predictable = np.zeros(tokens, dtype=bool)
        predictable[begin : begin + stop - at] = free[at:stop]
        found.append((row, predictable))
        at = stop
    return found


def _end_of_chunk(text: str, encoded: Encoded, at: int, length: int) -> int:
    """Where a chunk that begins with token ``at`` ends: behind the last line break that is near its longest end."""
    stop = at + length
    if stop >= len(encoded.ids):
        return len(encoded.ids)
    for place in range(stop - 1, at + int(length * (1 - SEARCHED_FOR_BREAK)), -1):
        start, end = encoded.offsets[place]
        # Vocabularies that know no line break have it before a word: the text between two tokens tells.
        if "\n" in text[encoded.offsets[place - 1][1] : start]:
            return place
        if "\n" in text[start:end]:
            return place + 1
    return stop


def _outside_slots(text: str, encoded: Encoded) -> npt.NDArray[np.bool_]:
    """Which tokens share no character with a slot [n]."""
    free = np.ones(len(encoded.ids), dtype=bool)
    slots = [match.span() for match in SLOT_PATTERN.finditer(text)]
    if slots:
        begin, end = np.array(encoded.offsets).T
        for first, last in slots:
            free &= (end <= first) | (begin >= last)
    return free
