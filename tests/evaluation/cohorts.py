"""Small cohorts with a known structure, and a schema for them."""

from __future__ import annotations

import numpy as np

from synclave_server.evaluation.comparison import Table
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows

HOSTILE = "<script>alert('$x_1$')</script>\"&--> \u202e\U0001f480"
LATENT = 6
CODES = 24
STAGES = ("early", "middle", "late")


def make_schema(first_title: str = "Code 0", labels: tuple[str, ...] = ("no", "yes")) -> Schema:
    """24 codes and a category of three values; the label's values as given."""
    return Schema.model_validate(
        {
            "name": "toy",
            "modality": "codes",
            "title": "Toy patients",
            "tables": [{"name": "patients", "patient": "id"}],
            "fields": [
                {
                    "kind": "codes",
                    "name": "code",
                    "title": "Diagnosis",
                    "table": "patients",
                    "columns": ["codes"],
                    "split": ";",
                    "vocabulary": [
                        {"code": f"c{k}", "title": first_title if k == 0 else f"Code {k}"} for k in range(CODES)
                    ],
                    "outside": "fault",
                    "missing": "none",
                },
                {
                    "kind": "category",
                    "name": "stage",
                    "title": "Stage",
                    "table": "patients",
                    "column": "stage",
                    "combine": "highest",
                    "vocabulary": [{"code": stage} for stage in STAGES],
                    "outside": "fault",
                    "missing": "fault",
                },
            ],
            "label": {
                "name": "died",
                "values": labels,
                "table": "patients",
                "column": "died",
                "combine": "any",
                "missing": "fault",
            },
        }
    )


def make_table(patients: int, seed: int, values: int = 2) -> Table:
    """Codes that come in blocks of four, each switched on by a hidden condition; the label follows two conditions."""
    rng = np.random.default_rng(seed)
    hidden = rng.random((patients, LATENT)) < np.array([0.5, 0.4, 0.3, 0.2, 0.2, 0.1])
    chance = np.where(np.repeat(hidden, CODES // LATENT, axis=1), 0.6, 0.04) * np.linspace(1, 0.05, CODES)
    codes = rng.random((patients, CODES)) < chance
    stage = np.eye(len(STAGES), dtype=bool)[rng.integers(0, len(STAGES), patients)]
    risk = 0.05 + 0.55 * (hidden[:, 0] & hidden[:, 1])
    labels = (rng.random(patients) < risk).astype(np.int64)
    if values > 2:
        labels += (rng.random(patients) < 0.3).astype(np.int64) * 2
    return Table(features=np.hstack([codes, stage]).astype(np.uint8), labels=labels)


def dataset(table: Table, prefix: str = "") -> PatientDataset:
    """The table as a data set; identifiers are ``prefix`` and the row."""
    return PatientDataset(
        features=SparseRows.of(table.features),
        labels=table.labels,
        patient_ids=[f"{prefix}{row}" for row in range(len(table))],
    )
