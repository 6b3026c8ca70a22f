"""The benchmark's data: real patients, split by patient, eight sites, every choice by a public rule.

``diabetes`` is the embedded example as it stands (619 columns). ``chapters`` is the same patients under a public
vocabulary that every peer can take: 0/1 for each chapter of the CCS (18), each drug in use (23), tests and earlier
visits (10), 51 columns in all. Sites are the example's four, each cut in two by a hash of the patient's identifier:
the four differ as hospitals do. The held-out patients are the example's, in no site.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.codes.task import Task
from synclave_shared.data.patients import PatientDataset, together
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.data.tables import load_patients

__all__ = ["TABLES", "BenchTable", "load_table"]

EXAMPLES = Path(__file__).parents[2] / "examples"

TABLES = ("chapters", "diabetes")

CHAPTERS = {
    "infectious": [(1, 10)],
    "neoplasms": [(11, 47)],
    "endocrine": [(48, 58)],
    "blood": [(59, 64)],
    "mental": [(650, 670)],
    "nervous": [(76, 95)],
    "circulatory": [(96, 121)],
    "respiratory": [(122, 134)],
    "digestive": [(135, 155)],
    "genitourinary": [(156, 175)],
    "pregnancy": [(176, 196)],
    "skin": [(197, 200)],
    "musculoskeletal": [(201, 212)],
    "congenital": [(213, 217)],
    "perinatal": [(218, 224)],
    "injury": [(225, 244)],
    "symptoms": [(245, 258)],
    "unclassified": [(259, 259), (2601, 2621)],
}
"""First level of AHRQ's multi-level CCS as ranges of single-level categories; external causes stand with the last."""

UNCLASSIFIED = 259


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTable:
    """One task.

    Attributes:
        name: its name in results.
        schema: columns and label.
        train: patients of all sites.
        site_of_patient: int64 [N], 0 to 7.
        test: held-out patients.
    """

    name: str
    schema: Schema
    train: PatientDataset
    site_of_patient: NDArray[np.int64]
    test: PatientDataset

    def task(self, *, epsilon: float | None, delta: float, seed: int) -> Task:
        """What a contender is given of it: all but the held-out patients."""
        return Task(
            train=self.train,
            site_of_patient=self.site_of_patient,
            schema=self.schema,
            epsilon=epsilon,
            delta=delta,
            seed=seed,
        )


def load_table(name: str, folder: Path | None = None) -> BenchTable:
    """Load a task by name, or from a folder of the example's shape (schema.toml, sites/, test.parquet)."""
    root = folder or EXAMPLES / "diabetes"
    schema = Schema.load(root / "schema.toml")
    sites = [load_patients(schema, path) for path in sorted((root / "sites").iterdir()) if path.is_dir()]
    train, test = together(sites), load_patients(schema, root / "test.parquet")
    of_site = np.repeat(np.arange(len(sites)), [len(site) for site in sites])
    half = np.array([hashlib.sha256(patient.encode()).digest()[0] % 2 for patient in train.patient_ids])
    if name == "chapters":
        merged = _chapters(schema)
        train, test = (_merge(dataset, merged) for dataset in (train, test))
        schema = _flat_schema(schema, list(merged))
    return BenchTable(name=name, schema=schema, train=train, site_of_patient=2 * of_site + half, test=test)


def _chapters(schema: Schema) -> dict[str, list[int]]:
    """Name of each merged column -> columns of the example of which any makes it 1."""
    place = {column: number for number, column in enumerate(schema.columns)}

    def columns(field: str, *without: str) -> list[int]:
        return [place[c] for c in schema.columns if c.startswith(f"{field}:") and c.partition(":")[2] not in without]

    merged: dict[str, list[int]] = {chapter: [] for chapter in CHAPTERS}
    for position in columns("diagnosis"):
        code = schema.columns[position].partition(":")[2]
        # What the vocabulary does not list counts as unclassified.
        number = int(code) if code.isdigit() else UNCLASSIFIED
        for chapter, ranges in CHAPTERS.items():
            if any(low <= number <= high for low, high in ranges):
                merged[chapter].append(position)
    drugs = [group.name for group in schema.groups if f"{group.name}:Steady" in place]
    merged |= {drug: columns(drug) for drug in drugs}
    merged |= {
        "medication_change": columns("medication_change"),
        "diabetes_medication": columns("diabetes_medication"),
        "glucose_measured": columns("glucose", "None"),
        "a1c_measured": columns("a1c", "None"),
        "a1c_above_8": columns("a1c", "None", "Norm", ">7"),
        "female": columns("gender", "Male", "Unknown/Invalid"),
        "several_encounters": columns("encounters", "1"),
        "earlier_outpatient_visit": columns("outpatient_visits", "0"),
        "earlier_emergency_visit": columns("emergency_visits", "0"),
        "earlier_inpatient_visit": columns("inpatient_visits", "0"),
    }
    return merged


def _merge(dataset: PatientDataset, merged: dict[str, list[int]]) -> PatientDataset:
    rows = dataset.features[:]
    features = np.column_stack([rows[:, columns].max(axis=1) for columns in merged.values()])
    return PatientDataset(features=SparseRows.of(features), labels=dataset.labels, patient_ids=dataset.patient_ids)


def _flat_schema(schema: Schema, columns: list[str]) -> Schema:
    """A schema of as many independent 0/1 columns; only its columns and label are used here."""
    document = schema.model_dump(mode="json")
    document["name"] = "diabetes-chapters"
    document["fields"] = [
        {
            "name": "finding",
            "kind": "codes",
            "table": schema.label.table,
            "columns": ["finding"],
            "vocabulary": [{"code": column} for column in columns],
            "outside": "fault",
            "missing": "none",
        }
    ]
    return Schema.model_validate(document)
