"""A hospital of sixty invented patients, small enough to train on within a test."""

from __future__ import annotations

import csv
from pathlib import Path

from synclave_shared.data.schema import Schema

SCHEMA = """
name = "toy"
modality = "codes"

[[table]]
name = "patients"
patient = "id"

[label]
name = "died"
values = ["no", "yes"]
table = "patients"
column = "died"
combine = "any"
missing = "fault"

[[field]]
name = "sex"
kind = "category"
table = "patients"
column = "sex"
vocabulary = ["f", "m"]
combine = "highest"
outside = "fault"
missing = "fault"
"""


def write_hospital(folder: Path) -> Schema:
    """Write ``schema.toml`` and ``data/patients.csv`` below ``folder``."""
    (folder / "schema.toml").write_text(SCHEMA)
    (folder / "data").mkdir()
    with (folder / "data" / "patients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "sex", "died"])
        writer.writerows([f"P{number}", "fm"[number % 2], ["no", "yes"][number % 3 == 0]] for number in range(60))
    return Schema.load(folder / "schema.toml")
