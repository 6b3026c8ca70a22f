"""Notes as the rows of a comparison, and notes of independent words: the floor that a language model has to beat.

Legend: N rows, each one note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.comparison import Table
from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.text.note_plan import NOTE_WORDS

__all__ = ["every_note", "first_notes", "independent_words", "notes_of", "texts_of", "words_of"]


def first_notes(dataset: NotesDataset) -> Table:
    """The first note of each patient: a synthetic one has one, and how many a real one has says nothing of words."""
    return Table(features=_objects(notes[0] for notes in dataset.notes), labels=dataset.labels)


def every_note(dataset: NotesDataset) -> Table:
    """A row for each note of each patient: whoever looks for copies looks at all."""
    counts = [len(notes) for notes in dataset.notes]
    return Table(
        features=_objects(note for notes in dataset.notes for note in notes), labels=np.repeat(dataset.labels, counts)
    )


def notes_of(table: Table) -> list[Note]:
    """The rows."""
    return list(table.features)


def texts_of(table: Table) -> list[str]:
    """Their texts."""
    return [note.text for note in table.features]


def words_of(text: str) -> list[str]:
    """Words and numbers of a text, in small letters."""
    return [found.group().casefold() for found in NOTE_WORDS.finditer(text)]


def independent_words(source: Table, rng: np.random.Generator) -> Table:
    """As many notes as long as those of ``source``, every word drawn on its own from notes of the same type and label.

    It knows how common words are in notes of a kind, and nothing of what stands beside what.
    """
    rows: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for row, (note, label) in enumerate(zip(source.features, source.labels.tolist(), strict=True)):
        rows[note.type, label].append(row)
    words = [words_of(text) for text in texts_of(source)]
    made: list[Note] = [Note(text="")] * len(source)
    for (kind, _), members in sorted(rows.items()):
        pool = [word for row in members for word in words[row]]
        for row in members:
            drawn = rng.integers(len(pool), size=len(words[row])) if pool else ()
            made[row] = Note(text=" ".join(pool[place] for place in drawn), type=kind)
    return Table(features=_objects(made), labels=source.labels)


def _objects(notes: Iterable[Note]) -> NDArray[np.object_]:
    listed = list(notes)
    found = np.empty(len(listed), dtype=object)
    found[:] = listed
    return found
