"""Section templates of synthetic notes: what a document says before a language model writes the rest of it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["Gap", "Patient", "Template", "invented_patient", "shipped_templates"]

_FILE: Final = Path(__file__).parent / "data" / "templates.toml"
_PLACE: Final = re.compile(r"\{(\w+)(?::(\d+))?\}")
_EITHER: Final = re.compile(r"<([^<>]*\|[^<>]*)>")
"""``<this|that>``: one of them, which may be empty and may hold places; not one inside another."""
_ENTITIES: Final = ("problem", "test", "treatment", "drug")

YOUNGEST, OLDEST = 18, 89
"""Ages of invented patients, years: who is over 89 tells an age to nobody."""


@dataclass(frozen=True, slots=True)
class Gap:
    """So many tokens that the language model writes."""

    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Of whom a synthetic note speaks.

    Attributes:
        sex: ``female`` or ``male``.
        age: years.
        entities: problems, tests, treatments and drugs, by kind; a kind that is missing is taken from the public lists.
    """

    sex: str
    age: int
    entities: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A kind of note.

    Attributes:
        name: what kind it is.
        text: with places in braces, slots in brackets, and choices between angles.
        lists: public entities by kind.
    """

    name: str
    text: str
    lists: dict[str, tuple[str, ...]]

    @property
    def most_tokens(self) -> int:
        """Tokens of all gaps together at most, whatever is chosen."""
        fullest = _EITHER.sub(lambda match: max(match[1].split("|"), key=_tokens), self.text)
        return _tokens(fullest)

    def written(self, patient: Patient, rng: np.random.Generator) -> list[str | Gap]:
        """Fixed text and gaps, in order. A gap has between half and all of its tokens.

        Args:
            patient: whom it is about.
            rng: the document's own random numbers.
        """
        # Shuffled once, then taken in turn: an entity comes twice only when all have come.
        order = {
            kind: rng.permutation(list(patient.entities.get(kind) or self.lists[kind])).tolist() for kind in _ENTITIES
        }
        # The first problem is the reason of the visit, which a note names more than once.
        taken = dict.fromkeys(_ENTITIES, 0) | {"problem": 1}
        pieces: list[str | Gap] = []
        text = _EITHER.sub(lambda match: _one(match[1].split("|"), rng), self.text)
        fixed, at = "", 0
        for match in _PLACE.finditer(text):
            kind, tokens = match[1], match[2]
            fixed += text[at : match.start()]
            at = match.end()
            if kind == "words":
                pieces += [fixed] if fixed else []
                fixed = ""
                pieces.append(Gap(int(rng.integers(int(tokens) // 2, int(tokens) + 1))))
            elif kind == "reason":
                fixed += order["problem"][0]
            elif kind in _ENTITIES:
                fixed += order[kind][taken[kind] % len(order[kind])]
                taken[kind] += 1
            else:
                fixed += str(getattr(patient, kind))
        return [*pieces, fixed + text[at:]]


def _tokens(text: str) -> int:
    return sum(int(match[2]) for match in _PLACE.finditer(text) if match[1] == "words")


def _one(choices: list[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def invented_patient(rng: np.random.Generator) -> Patient:
    """A patient of whom nothing is known but the public lists."""
    return Patient(
        sex=("female", "male")[int(rng.integers(2))], age=int(rng.integers(YOUNGEST, OLDEST + 1)), entities={}
    )


@cache
def shipped_templates() -> tuple[Template, ...]:
    """The templates that come with Synclave."""
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    lists = {kind: tuple(content["lists"][kind]) for kind in _ENTITIES}
    return tuple(
        Template(name=entry["name"], text=entry["text"].lstrip("\n"), lists=lists) for entry in content["template"]
    )
