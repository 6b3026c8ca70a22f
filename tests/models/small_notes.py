"""A schema of notes and invented patients with it, small enough for training in tests."""

from __future__ import annotations

import numpy as np

from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.data.notes.schema import NotesSchema

TYPES = ("consult", "progress note")
PROBLEMS = ("chest pain", "fever", "low back pain", "shortness of breath", "nausea")


def notes_schema(tokens: int = 48, chunks: int = 3) -> NotesSchema:
    """Notes in one table, with a type and the patient's name, and a label."""
    return NotesSchema.model_validate(
        {
            "name": "small-notes",
            "modality": "notes",
            "tables": [{"name": "notes", "patient": "patient", "order": "day"}],
            "label": {
                "name": "died",
                "values": ["no", "yes"],
                "table": "notes",
                "column": "died",
                "combine": "any",
                "missing": "fault",
            },
            "notes": {
                "table": "notes",
                "text": "text",
                "type": "kind",
                "types": TYPES,
                "identifiers": {"names": ["name"]},
                "tokens": tokens,
                "chunks": chunks,
            },
        }
    )


def notes_dataset(patients: int, seed: int = 0) -> NotesDataset:
    """Patients of one to three notes, with a name and dates in them."""
    rng = np.random.default_rng(seed)
    names = [f"Val{number} Fulwood" for number in range(patients)]
    return NotesDataset(
        notes=tuple(
            tuple(
                Note(
                    text=f"CHIEF COMPLAINT: {rng.choice(PROBLEMS)}.\n\n{name} was seen on 12/{rng.integers(1, 28)}/2006"
                    f" with {rng.choice(PROBLEMS)} for {rng.integers(2, 9)} days. Denies {rng.choice(PROBLEMS)}.\n",
                    type=str(rng.choice(TYPES)),
                )
                for _ in range(rng.integers(1, 4))
            )
            for name in names
        ),
        identifiers=tuple(((("names", name),)) for name in names),
        labels=rng.integers(0, 2, patients),
        patient_ids=[f"p{number}" for number in range(patients)],
    )
