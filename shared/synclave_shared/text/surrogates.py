"""What fills typed slots in a synthetic note: names, dates and numbers from public lists, one person throughout.

Every value is invented: telephone numbers and social security numbers are of ranges that are never given out, mail and
web addresses end in reserved names. A slot says only what stood there; where a real text is rewritten,
:mod:`~synclave_shared.text.replacements` keeps the form of what it replaces, by a key.
"""

from __future__ import annotations

import calendar
import tomllib
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from synclave_shared.text.slots import SLOT_PATTERN

__all__ = ["Surrogates"]

_FILE: Final = Path(__file__).parent / "data" / "surrogates.toml"
_LISTS: Final[dict[str, list[str]]] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
_FIRST_DAY: Final = date(2010, 1, 1)
_DAYS: Final = 5000


class Surrogates:
    """The invented identifiers of one document.

    Args:
        rng: the document's own random numbers.
        sex: ``female`` or ``male``.
        age: of the patient, years.
    """

    def __init__(self, rng: np.random.Generator, sex: str, age: int) -> None:
        self._rng, self._sex = rng, sex
        self._patient = self._person(sex)
        self._doctor = self._person()
        self._hospital = self._one(_LISTS["hospitals"])
        self._city = self._one(_LISTS["cities"]).split(", ")
        self._day = _FIRST_DAY + timedelta(days=int(rng.integers(_DAYS)))
        self._record = str(rng.integers(1_000_000, 10_000_000))
        self._written: dict[str, int] = {}
        # Where the detector's class is ages over 89, nobody's age is told.
        self._age = str(age) if age < 90 else "90"

    def fill(self, text: str) -> str:
        """The text with every slot filled, in order."""
        return SLOT_PATTERN.sub(lambda match: self.of(match.group()[1:-1]), text)

    def of(self, slot: str) -> str:
        """What fills the next slot of this kind."""
        city, state, postcode = self._city
        makers: dict[str, Callable[[], str]] = {
            "PATIENT": lambda: self._patient,
            "NAME": lambda: self._patient,
            "DOCTOR": lambda: self._doctor,
            "RELATIVE": self._relative,
            "HOSPITAL": lambda: self._hospital,
            "STREET": lambda: f"{self._rng.integers(1, 2000)} {self._one(_LISTS['streets'])}",
            "CITY": lambda: city,
            "PLACE": lambda: city,
            "STATE": lambda: state,
            "ZIP": lambda: postcode,
            "DATE": self._date,
            "AGE": lambda: self._age,
            "PHONE": self._phone,
            "FAX": self._phone,
            "EMAIL": lambda: f"{self._patient.split()[-1].lower()}@example.org",
            "URL": lambda: "www.example.org",
            "IP": lambda: f"192.0.2.{self._rng.integers(1, 255)}",
            "SSN": self._social_security,
            "MRN": lambda: self._record,
        }
        return makers.get(slot, self._number)()

    def _one(self, choices: list[str]) -> str:
        return choices[int(self._rng.integers(len(choices)))]

    def _person(self, sex: str = "") -> str:
        either = _LISTS["women"] + _LISTS["men"]
        given = {"female": _LISTS["women"], "male": _LISTS["men"]}.get(sex, either)
        return f"{self._one(given)} {self._one(_LISTS['surnames'])}"

    def _relative(self) -> str:
        return f"{self._person().split()[0]} {self._patient.split()[-1]}"

    def _date(self) -> str:
        """The day of the note first, earlier days afterwards."""
        self._written["DATE"] = self._written.get("DATE", -1) + 1
        back = 0 if self._written["DATE"] == 0 else int(self._rng.integers(1, 400))
        day = self._day - timedelta(days=back)
        return f"{calendar.month_name[day.month]} {day.day}, {day.year}"

    def _social_security(self) -> str:
        return f"9{self._rng.integers(10, 100)}-{self._rng.integers(10, 100)}-{self._rng.integers(1000, 10_000)}"

    def _phone(self) -> str:
        return f"555-01{self._rng.integers(100):02d}"

    def _number(self) -> str:
        return str(self._rng.integers(100_000, 1_000_000))
