"""Notes in forms that no other part of the project has seen, filled with identifiers: gold by construction.

The forms (``forms/first.txt``, ``forms/second.txt``) were written by hand: letters, nursing notes, telegraphic and shouted
ones, scans, messages, of American, British and Australian make. The detector may be improved on what it misses in the
first half; the second half is only measured. Names, towns and facilities of either half stand in no training note
(:func:`reserved`), and a third of the names in no list.

In a form ``=== title | us lower`` begins a note; ``{doc1.last}`` is an identifier, the same one throughout the note.
"""

from __future__ import annotations

import datetime
import random
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Final

from bench.notes.corpora import Gold, Note
from synclave_shared.text.phi.lexicon import word_list

__all__ = ["HALVES", "PARTS", "composed_name", "reserved", "written_notes"]

HALVES: Final = ("first", "second")
PARTS: Final = (*HALVES, "third")
_FORMS: Final = Path(__file__).parent / "forms"
_SLOT: Final = re.compile(r"\{([a-z]+\d?)(?:\.([A-Za-z0-9]+))?(?::([^}]*))?\}")
_UK: Final = {
    "first": "Kettering Hexham Stroud Bridlington Falkirk Neath Omagh Truro Rotherham Halesowen".split(),
    "second": "Ambleside Thirsk Ledbury Pwllheli Fraserburgh Comber Diss Bude Knaresborough Ulverston".split(),
}
_AU: Final = {
    "first": "Dubbo Ballarat Bundaberg Kalgoorlie Wagga Mildura Esperance Bairnsdale".split(),
    "second": "Narrabri Yarrawonga Roma Tennant Winton Quilpie Corowa Ulverstone".split(),
}
_STATES: Final = (
    "AL AZ CA CO FL GA IA IL IN KS KY LA MD MI MN MO NC NE NJ NM NY OH OK OR PA SC TN TX UT VA WA WI".split()
)
_AU_STATES: Final = "NSW VIC QLD WA SA TAS NT".split()


def reserved(name: str, half: str | None = None) -> bool:
    """Whether a listed name belongs to the written notes, or to one half of them; no training note has it then."""
    place = zlib.crc32(f"written notes: {name}".encode()) % 8
    return place < len(HALVES) if half is None else place == HALVES.index(half)


def composed_name(generator: random.Random, names: list[str]) -> str:
    """The first half of one name and the second half of another."""
    one, other = generator.choice(names), generator.choice(names)
    return one[: max(2, len(one) // 2)] + other[len(other) // 2 :]


@cache
def _lists(half: str) -> dict[str, list[str]]:
    """Names of one half, by list."""
    names = {}
    for kind, source in (
        ("given", "given"),
        ("family", "family"),
        ("city", "places-us"),
        ("facility", "facilities-us"),
    ):
        usual = (
            word
            for word in word_list(source)
            if 3 < len(word) < 28 and (kind == "facility" or word.replace(" ", "").isalpha())
        )
        names[kind] = sorted(word for word in usual if reserved(word, half) and not word.endswith(" county"))
    return names


class _Person:
    def __init__(self, fill: _Fill, *, last: str | None = None) -> None:
        draw = fill.draw
        self.first, self.last, self.mid = (
            fill.name("given"),
            last or fill.name("family"),
            draw.choice("ABCDEFGHJKLMNPRSTW"),
        )
        self.man = draw.random() < 0.5
        self.words = {
            "title": draw.choice(["Mr"] if self.man else ["Mrs", "Ms", "Miss"]) + ("" if fill.land != "us" else "."),
            "he": "he" if self.man else "she",
            "his": "his" if self.man else "her",
            "him": "him" if self.man else "her",
            "spouse": "wife" if self.man else "husband",
            "kin": draw.choice(
                ["brother", "son", "father", "nephew"] if self.man else ["sister", "daughter", "mother", "niece"]
            ),
            "cred": draw.choice(["MD", "DO", "NP", "PA-C"]),
        }

    def part(self, part: str, draw: random.Random) -> tuple[str, bool]:
        """A way to write the person, and whether it identifies."""
        if part.lower() in self.words:
            return self.words[part], False
        ways = {
            "": draw.choice([f"{self.first} {self.last}"] * 3 + [f"{self.first} {self.mid}. {self.last}"]),
            "first": self.first,
            "last": self.last,
            "lastcaps": self.last.upper(),
            "mid": self.mid,
            "last1": self.last[0],
            "inits": draw.choice([f"{self.first[0]}", f"{self.first[0]}.{self.mid}.", f"{self.first[0]}{self.mid}"]),
            "inits2": self.first[0] + self.mid + self.last[0],
            "rev": draw.choice(
                [
                    f"{self.last}, {self.first}",
                    f"{self.last.upper()}, {self.first} {self.mid}",
                    f"{self.last.upper()}, {self.first.upper()}",
                ]
            ),
        }
        return ways[part], True


class _Fill:
    """The identifiers of one note."""

    def __init__(self, draw: random.Random, half: str, land: str, name: str) -> None:
        self.draw, self.half, self.land, self.note = draw, half, land, name
        self.lists = _lists(half if half in HALVES else "second")
        self.people: dict[str, _Person] = {}
        self.values: dict[str, str] = {}
        self.year = draw.randrange(1998, 2026)

    def name(self, kind: str) -> str:
        names = self.lists[kind]
        word = (
            composed_name(self.draw, [name for name in names if len(name) > 4])
            if self.draw.random() < 0.33
            else self.draw.choice(names)
        )
        if kind == "family" and self.draw.random() < 0.08:
            return self.draw.choice(["O'", "Mc", "van ", "de ", "Al-"]) + word.title()
        return (
            word.title()
            if kind != "family" or self.draw.random() > 0.05
            else f"{word.title()}-{self.draw.choice(names).title()}"
        )

    def digits(self, shape: str) -> str:
        """``9``: a digit, ``A``: a letter."""
        letters = {"9": "0123456789", "A": "ABDEFGHJLNPRSTUWXYZ"}
        return "".join(self.draw.choice(letters[sign]) if sign in letters else sign for sign in shape)

    def date(self, shape: str, *, birth: bool) -> str:
        year = self.year - self.draw.randrange(1, 99) if birth else self.year
        when = datetime.date(year, 1, 1) + datetime.timedelta(days=self.draw.randrange(365))
        end = {1: "st", 2: "nd", 3: "rd"}.get(when.day % 10 if when.day not in (11, 12, 13) else 0, "th")
        return when.strftime(shape.replace("%o", f"{when.day}{end}"))

    def slot(self, slot: str, part: str, shape: str) -> tuple[str, str | None]:
        """Surface and label of one slot; no label for what identifies nobody."""
        base, pick = slot.rstrip("0123456789"), self.draw.choice
        if base in ("patient", "doc", "rel"):
            if slot not in self.people:
                kin = (
                    self.people["patient"].last
                    if base == "rel" and "patient" in self.people and self.draw.random() < 0.4
                    else None
                )
                self.people[slot] = _Person(self, last=kin)
            person = self.people[slot]
            lowered = part[0].lower() + part[1:] if part else part
            surface, identifies = person.part(lowered, self.draw)
            if part != lowered:
                surface = surface[0].upper() + surface[1:]
            label = (
                "INITIALS"
                if part in ("inits2", "mid", "last1")
                else {"patient": "PATIENT", "doc": "DOCTOR", "rel": "RELATIVE"}[base]
            )
            return surface, label if identifies else None
        if base in ("date", "dob"):
            return self.date(shape, birth=base == "dob"), "DATE"
        if slot not in self.values:
            self.values[slot] = self.value(base, pick)
        label = _LABELS[base]
        return self.values[slot], label

    def value(self, base: str, pick) -> str:  # type: ignore[no-untyped-def]
        draw = self.draw
        towns = {
            "us": None,
            "uk": _UK[self.half if self.half in HALVES else "second"],
            "au": _AU[self.half if self.half in HALVES else "second"],
        }[self.land]
        if base == "hosp":
            own = f"{pick([self.name('family'), 'St ' + self.name('given') + chr(39) + 's', self.value('city', pick), pick(['Royal', 'Mercy', 'Lakeside', 'Northgate']) + ' ' + self.name('city')])} {pick(['Hospital', 'Medical Center', 'Health Centre', 'Clinic', 'Infirmary', 'Regional Hospital', 'Memorial', 'Cancer Center', 'VA'] if self.land == 'us' else ['Hospital', 'Infirmary', 'General Hospital', 'Health Centre', 'Medical Centre', 'Base Hospital'])}"
            return pick(self.lists["facility"]).title() if self.land == "us" and draw.random() < 0.4 else own
        if base == "practice":
            return f"{self.value('city', pick)} {'Surgery' if self.half == 'first' else 'Medical Practice'}"
        if base == "home":
            return f"{pick([self.name('family'), self.value('city', pick), 'Willow ' + pick(['Court', 'Bank']), 'The Laurels at ' + self.value('city', pick)])} {pick(['Nursing Home', 'Care Home', 'Manor', 'Assisted Living', 'Hospice', 'House'])}"
        if base == "employer":
            return f"{self.name('family')} {pick(['Foods', 'Tool & Die', 'Logistics', 'Brothers', 'Transit', 'Home Care', 'Builders', 'and Sons', 'Industries Inc'])}"
        if base == "school":
            return f"{pick([self.name('family'), self.value('city', pick), 'St ' + self.name('given') + chr(39) + 's'])} {pick(['Elementary', 'Primary School', 'High School', 'Academy', 'Grammar School', 'Community College'])}"
        if base == "church":
            return f"{pick(['St. ' + self.name('given'), 'First', self.value('city', pick)])} {pick(['Lutheran Church', 'Baptist Church', 'Parish', 'Methodist Church', 'Temple'])}"
        if base == "pharmacy":
            return f"{pick([self.name('family') + chr(39) + 's', self.value('city', pick)])} {pick(['Pharmacy', 'Drugs', 'Chemist', 'Drug Store'])}"
        if base == "city":
            return pick(towns) if towns and draw.random() < 0.7 else self.name("city")
        if base == "county":
            return f"{self.name('family')} County"
        if base == "state":
            return pick(_AU_STATES if self.land == "au" else _STATES)
        if base == "zip":
            return {
                "us": self.digits("99999"),
                "uk": self.digits(pick(["AA9 9AA", "AA99 9AA", "A9 9AA"])),
                "au": self.digits("9999"),
            }[self.land]
        if base == "street":
            where = pick(
                [
                    self.name("family"),
                    self.name("city"),
                    pick(["Maple", "Station", "Church", "Victoria", "Mill", "High"]),
                ]
            )
            return f"{draw.randrange(1, 9999 if self.land == 'us' else 200)} {where} {pick(['Street', 'Road', 'Lane', 'Ave', 'Drive', 'Close', 'Crescent', 'Ct', 'Terrace'])}{pick(['', '', '', ', Apt ' + self.digits('9A'), ' Unit ' + self.digits('9')]) if self.land == 'us' else ''}"
        if base == "streetname":
            return f"{self.name('family')} {pick(['Street', 'Road', 'Lane', 'Avenue', 'Drive'])}"
        if base in ("phone", "fax"):
            shapes = {
                "us": ["(999) 999-9999", "999-999-9999", "999.999.9999", "999-9999", "999 999 9999"],
                "uk": ["09999 999999", "0999 999 9999", "099 9999 9999"],
                "au": ["(09) 9999 9999", "09 9999 9999", "9999 9999"],
            }
            return self.digits(pick(shapes[self.land]))
        if base == "mobile":
            return self.digits(
                pick(
                    {
                        "us": ["999-999-9999"],
                        "uk": ["07999 999999", "+44 7999 999999"],
                        "au": ["0499 999 999", "0499999999"],
                    }[self.land]
                )
            )
        if base == "email":
            return f"{self.name('given').lower()}{pick(['.', '_', ''])}{self.name('family').lower().replace(' ', '')}{self.digits(pick(['', '99']))}@{pick(['example.com', 'mailbox.example.org', 'nhs.example.net', 'inbox.example'])}".replace(
                "'", ""
            )
        if base == "url":
            return f"{pick(['https://', 'www.', 'http://www.', ''])}{self.name('family').lower().replace(' ', '').replace(chr(39), '')}{pick(['health', 'clinic', 'care', ''])}.{pick(['org', 'com', 'org.uk', 'net.au'])}{pick(['', '/visit', '/' + self.digits('AA99').lower()])}"
        if base == "portal":
            return f"{self.name('family').lower().replace(' ', '')}{self.digits('99')}"
        if base == "ip":
            return ".".join(str(draw.randrange(1, 255)) for _ in range(4))
        if base == "mac":
            return ":".join(f"{draw.randrange(256):02X}" for _ in range(6))
        if base == "age":
            return str(draw.randrange(90, 105))
        if base == "payer":
            return pick(["Aetna", "Cigna", "Humana", "Blue Cross"])
        if base == "photo":
            return f"IMG_{self.digits('9999')}.jpg"
        if base in ("typist", "refinit"):
            return self.digits("AA") + ":" + self.digits("AA").lower() if base == "typist" else self.digits("AAA")
        return self.digits(pick(_SHAPES[base]))


_SHAPES: Final = {
    "mrn": ["9999999", "99-99-99", "A999999", "99999999", "999 99 99", "AA9999999", "0099999"],
    "nhs": ["999 999 9999", "9999999999"],
    "ssn": ["999-99-9999"],
    "medicare": ["9A99-A99-AA99", "9A99A99AA99"],
    "aumedicare": ["9999 99999 9", "9999999999/9"],
    "policy": ["AAA999999999", "999999999-99", "A99999999", "AA99-99999"],
    "group": ["99999", "AA9999"],
    "acct": ["999999999", "9999-99999", "AA9999999", "99999999-9"],
    "licence": ["A9999999", "999999999", "AA-99999", "A999-9999-9999"],
    "uklicence": ["AAAAA999999AA9AA"],
    "npi": ["9999999999"],
    "dea": ["AA9999999"],
    "provider": ["999999A", "9999999A"],
    "clia": ["99D9999999"],
    "plate": ["AAA 9999", "9AAA999", "AAA-999", "AA99 AAA"],
    "serial": ["AAA999999A", "99999999", "SN-999999", "A99-99999", "9A99999999"],
    "acc": ["99-999999", "AA-99-99999", "99999999", "A99999999"],
    "case": ["A99-9999", "99-9999", "9999-99-999", "AA999999"],
    "job": ["999999", "99999-9"],
    "study": ["AA-99-999", "9999-999"],
    "unos": ["AAAA999"],
    "ext": ["9999", "99999"],
    "pobox": ["PO Box 999", "PO Box 9999", "P.O. Box 99"],
}

_LABELS: Final = {
    **dict.fromkeys(("hosp", "home", "practice"), "HOSPITAL"),
    **dict.fromkeys(("employer", "school", "church", "pharmacy"), "ORGANIZATION"),
    **dict.fromkeys(("city", "county"), "CITY"),
    **dict.fromkeys(("street", "streetname", "pobox"), "STREET"),
    **dict.fromkeys(("phone", "mobile", "ext"), "PHONE"),
    **dict.fromkeys(("mrn", "nhs"), "MRN"),
    **dict.fromkeys(("medicare", "aumedicare", "policy", "group"), "HEALTH_PLAN"),
    **dict.fromkeys(("licence", "uklicence", "npi", "dea", "provider", "clia"), "LICENCE"),
    **dict.fromkeys(("plate", "vin"), "VEHICLE"),
    **dict.fromkeys(("serial", "mac"), "DEVICE"),
    **dict.fromkeys(("acc", "case", "job", "study", "unos", "portal"), "ID"),
    **dict.fromkeys(("typist", "refinit"), "INITIALS"),
    "state": "STATE", "zip": "ZIP", "fax": "FAX", "ssn": "SSN", "acct": "ACCOUNT", "ip": "IP", "url": "URL", "email": "EMAIL",
    "age": "AGE", "photo": "PHOTO", "payer": None,
}  # fmt: skip

_SCAN: Final = str.maketrans("lOoeS", "1Q0c5")
"""What a scanner takes one letter for."""


def written_notes(half: str, fillings: int = 6, seed: int = 0) -> list[Note]:
    """The notes of one half, ``fillings`` of each form."""
    text = (_FORMS / f"{half}.txt").read_text(encoding="utf-8")
    notes = []
    for form in text.split("=== ")[1:]:
        head, body = form.split("\n", 1)
        title, ways = (part.strip() for part in head.split("|"))
        for number in range(fillings):
            name = f"{half}: {title} {number}"
            notes.append(_filled(body.strip(), ways.split(), name, half, random.Random(f"{seed}:{name}")))
    return notes


def _filled(form: str, ways: list[str], name: str, half: str, draw: random.Random) -> Note:
    fill = _Fill(draw, half, ways[0], name)
    fill.slot("patient", "", "")
    out, gold, last, size = [], [], 0, 0
    for found in _SLOT.finditer(form):
        before = form[last : found.start()]
        base, part, shape = found.group(1), found.group(2) or "", found.group(3) or ""
        surface, label = fill.slot(base, part, shape)
        out += [before, surface]
        size += len(before)
        if label is not None:
            gold.append(Gold(start=size, end=size + len(surface), label=label))
        size += len(surface)
        last = found.end()
    text = "".join([*out, form[last:]])
    for way in ways[1:]:
        changed = {"upper": text.upper(), "lower": text.lower(), "ocr": _scanned(text, draw)}[way]
        text = changed if len(changed) == len(text) else text
    return Note(name=name, text=text, gold=tuple(gold))


def _scanned(text: str, draw: random.Random) -> str:
    """One letter in a hundred misread."""
    return "".join(letter.translate(_SCAN) if draw.random() < 0.05 else letter for letter in text)
