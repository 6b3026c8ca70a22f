"""Of whom synthetic notes speak: the synthetic patients of a cohort of codes, number by number, or invented ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from synclave_server.sampling.provenance import read_provenance
from synclave_shared.data.fields import CategoryField, NumberField
from synclave_shared.data.modality import load_schema
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import load_patients
from synclave_shared.errors import ConfigurationError
from synclave_shared.text.templates import OLDEST, YOUNGEST, Patient, invented_patient

__all__ = ["CodesCohort"]

_DRUGS: Final = re.compile(r"medic|drug|prescri|atc", re.IGNORECASE)
_TREATMENTS: Final = re.compile(r"proc|treat|operat|surg", re.IGNORECASE)
_SEX: Final = re.compile(r"sex|gender", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesCohort:
    """Synthetic patients of a codes model, by their numbers.

    Attributes:
        schema: of the cohort.
        features: 0 or 1, uint8 [n, D]: patient number i is row i.
        request: what was asked for when they were drawn: seed and label counts make labels of the same numbers agree.
    """

    schema: Schema
    features: NDArray[np.uint8]
    request: dict[str, Any]

    @classmethod
    def read(cls, path: Path, schema_path: Path) -> Self:
        """Read what ``synclave sample`` wrote.

        Args:
            path: the cohort, a Parquet file.
            schema_path: the schema of codes: titles of the codes are in it.

        Raises:
            ConfigurationError: if the file is no such cohort.
            DataError: if it does not fit the schema.
            SchemaError: if the schema cannot be used.
        """
        schema = load_schema(schema_path)
        provenance = read_provenance(path)
        if not isinstance(schema, Schema) or provenance is None:
            raise ConfigurationError(
                expected="a Parquet cohort of codes that `synclave sample` wrote, and its schema",
                found=f"{path} and a schema of {schema.modality}",
                remedy="Draw the patients with `synclave sample` from a snapshot of codes.",
            )
        patients = load_patients(schema, path)
        # Sorted by identifiers, which count the patients with leading zeros.
        return cls(schema=schema, features=patients.features[:], request=provenance["request"])

    def __len__(self) -> int:
        return len(self.features)

    def patient(self, number: int, rng: np.random.Generator) -> Patient:
        """The patient of a number; what the codes do not tell is invented."""
        row, about = self.features[number], invented_patient(rng)
        sex, age = about.sex, about.age
        entities: dict[str, list[str]] = {"problem": [], "treatment": [], "drug": []}
        for field, group in self.schema.items():
            present = np.flatnonzero(row[group.start : group.stop]) + group.start
            if group.kind == "binary":
                names = [self.schema.titles[column].partition(": ")[2] for column in present]
                entities[_kind(group.name)] += [name for name in names if name]
            elif len(present) and _SEX.search(group.name):
                value = self.schema.titles[present[0]].partition(": ")[2].lower()
                sex = "female" if value.startswith("f") else "male" if value.startswith("m") else sex
            elif len(present) and "age" in group.name.lower() and isinstance(field, NumberField | CategoryField):
                age = _age(self.schema.titles[present[0]], rng) or age
        return Patient(sex=sex, age=age, entities={kind: tuple(names) for kind, names in entities.items()})


def _kind(name: str) -> str:
    if _DRUGS.search(name):
        return "drug"
    return "treatment" if _TREATMENTS.search(name) else "problem"


def _age(title: str, rng: np.random.Generator) -> int | None:
    """Years within the numbers that a bin's title names, such as ``[70-80)``."""
    numbers = [int(text) for text in _NUMBER.findall(title.partition(": ")[2])][:2]
    if not numbers:
        return None
    first, last = numbers[0], max(numbers[0] + 1, numbers[-1])
    return int(np.clip(rng.integers(first, last), YOUNGEST, OLDEST))
