"""Annotated training notes: public notes with invented identifiers put into them, as many ways as we could think of.

What matters is variety: of wording, of case, of names from anywhere and from nowhere. A third of the names are
composed from halves of two names, so that no list has them and only their surroundings tell.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from bench.notes.corpora import Gold, Note, in_test_part, injected_notes
from bench.notes.training_forms import HEADS, NEGATIVES, SENTENCES, TAILS, header, spoken
from bench.notes.written_notes import composed_name, reserved
from synclave_shared.text.phi.lexicon import word_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["synthetic_notes"]

_KINDS = {
    **dict.fromkeys(("first", "last"), "patient"), **dict.fromkeys(("initials", "doctor2"), "doctor"),
    **dict.fromkeys(("home", "org", "pharmacy", "school", "church"), "facility"), **dict.fromkeys(("pobox", "streetname"), "street"),
    **dict.fromkeys(("username", "plate"), "number"), "title": "none", "ext": "phone", "month": "date", "town": "city", "postcode": "zip",
    "austate": "state", "auzip": "zip",
}  # fmt: skip
_TOWNS = "Leeds Bath York Derby Luton Poole Crewe Wigan Bury Leigh Cairns Hobart Darwin Albury Orange Geelong Perth Swansea Dundee Cardiff Bolton Preston Slough".split()
_MONTHS = "January February March April May June July August September October November December".split()
_ENDS = "com org net edu co.uk gov".split()
_WAYS = "Street St. Avenue Ave Road Rd Lane Drive Dr. Blvd Court Way Terrace Place Circle Parkway Close".split()
_HEADS_OF_FACILITIES = "Hospital,Medical Center,Clinic,Health Center,Memorial Hospital,Nursing Home,General Hospital,Family Practice,Regional Medical Center,Rehabilitation Center,Hospice,Children's Hospital,University Hospital,Surgery Center,Health System,Cancer Institute,Infirmary,VA Medical Center,Care Home".split(",")
_STATES = "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY".split()


class _Surrogates:
    """Identifiers of one invented patient."""

    def __init__(self, generator: random.Random, lists: dict[str, list[str]]) -> None:
        self.draw = generator
        self.lists = lists
        self.first, self.last = self.name("given"), self.name("family")
        self.doctors = [(self.name("given"), self.name("family")) for _ in range(3)]

    def name(self, kind: str) -> str:
        names = self.lists[kind]
        word = composed_name(self.draw, names) if self.draw.random() < 0.45 else self.draw.choice(names)
        word = word.title()
        if kind == "family" and self.draw.random() < 0.12:
            word = self.draw.choice(["O'", "Mc", "Mac", "De ", "Van ", "Al-", "El-", "St. ", "von ", "Di "]) + word
        if kind == "family" and self.draw.random() < 0.07:
            word += "-" + self.draw.choice(names).title()
        return word

    def full(self, first: str, last: str) -> str:
        middle = self.draw.choice("ABCDEFGHJKLMNPRSTVW")
        return self.draw.choice(
            [f"{first} {last}"] * 4
            + [f"{first} {middle}. {last}", f"{first} {middle} {last}", f"{last}, {first}", f"{last}, {first} {middle}", f"{last.upper()}, {first.upper()}", f"{first.upper()} {last.upper()}", f"{first[0]}. {last}", f"{first.lower()} {last.lower()}"]
        )

    def fill(self, slot: str) -> str:
        draw, pick = self.draw, self.draw.choice
        if slot == "patient":
            return self.full(self.first, self.last)
        if slot in ("first", "last"):
            return self.first if slot == "first" else self.last
        if slot == "doctor":
            first, last = pick(self.doctors)
            return pick([self.full(first, last), last, f"{first} {last}", f"{first[0]}. {last}", f"{first[0]}.{last[0]}. {last}"])
        if slot == "relative":
            return pick([self.name("given"), self.name("given"), f"{self.name('given')} {self.last}"])
        if slot == "facility":
            base = pick([self.name("family"), pick(self.lists["places"]).title(), "St. " + self.name("given"), pick(self.lists["places"]).title() + " " + pick(["Community", "Regional", "County", "General", "Valley"])])
            whole = pick([f"{base} {pick(_HEADS_OF_FACILITIES)}"] * 3 + [pick(self.lists["facilities"]).title()])
            return pick([whole, whole, whole.upper()]) if draw.random() < 0.2 else whole
        if slot == "home":
            return f"{pick([self.name('family'), pick(self.lists['places']).title(), pick(['Oak', 'Cedar', 'Sunny', 'Rose', 'Park']) + ' ' + pick(['View', 'Glen', 'Hill', 'Lodge']), 'The ' + pick(['Beeches', 'Cedars', 'Pines', 'Gables']) + pick([' at ', ' of ']) + pick(self.lists['places']).title()])} {pick(['Nursing Home', 'Care Home', 'Manor', 'Assisted Living', 'Hospice', 'House', 'Rest Home', 'Lodge', 'SNF', 'Care Center', 'Retirement Village'])}"
        if slot == "org":
            return f"{pick([self.name('family'), pick(self.lists['places']).title(), self.name('family') + ' ' + pick(['&', 'and']) + ' ' + self.name('family')])} {pick(['Foods', 'Steel', 'Motors', 'Electric', 'Trucking', 'Farms', 'Logistics', 'Bakery', 'Bros', 'Brothers', 'and Sons', '& Co', 'Inc', 'LLC', 'Ltd', 'Pty Ltd', 'Industries', 'Home Health', 'Medical Supply', 'Ambulance', 'Transport', 'Builders', 'Bank', 'Plumbing', 'School District', 'Fire Department', 'Funeral Home', 'Tool and Die', 'Transit', 'Home Care'])}"
        if slot == "pharmacy":
            return f"{pick([self.name('family') + pick([chr(39) + 's', '']), pick(self.lists['places']).title()])} {pick(['Pharmacy', 'Drugs', 'Drug', 'Drug Store', 'Chemist', 'Chemists', 'Apothecary', 'Discount Pharmacy'])}"
        if slot == "school":
            return f"{pick([self.name('family'), pick(self.lists['places']).title(), 'St. ' + self.name('given'), 'St ' + self.name('given') + chr(39) + 's'])} {pick(['Elementary', 'Elementary School', 'Middle School', 'High', 'High School', 'Primary', 'Primary School', 'Academy', 'Grammar School', 'College', 'University', 'Community College', 'Preschool', 'Daycare'])}"
        if slot == "church":
            return f"{pick(['St. ' + self.name('given'), 'Our Lady of ' + pick(self.lists['places']).title(), 'First', 'Grace', pick(self.lists['places']).title()])} {pick(['Church', 'Lutheran Church', 'Methodist', 'Baptist Church', 'Parish', 'Mosque', 'Temple', 'Synagogue', 'Cathedral', 'Chapel'])}"
        if slot == "initials":
            return pick([self.first[0] + self.last[0], self.first[0] + pick("ABCDEFGHJKLMNPRSTW") + self.last[0], f"{self.first[0]}.{self.last[0]}."])
        if slot == "doctor2":
            return pick("ABCDEFGHJKLMNPRSTVW")
        if slot == "title":
            return pick(["Mr", "Mrs", "Ms", "Miss", "Mr.", "Mrs."])
        if slot == "ext":
            return str(draw.randrange(100, 99999))
        if slot == "month":
            return f"{pick(_MONTHS)}{pick(['', '', f' {draw.randrange(1980, 2026)}'])}"
        if slot == "username":
            return self.last.lower().replace(" ", "") + str(draw.randrange(10, 2010))
        if slot == "plate":
            return pick([f"{draw.choice('ABCDEFGH')}{draw.choice('KLMNPR')}{draw.choice('STVWX')} {draw.randrange(100, 9999)}", f"{draw.randrange(1, 9)}{draw.choice('KLMNPR')}{draw.choice('STVWX')}{draw.choice('ABC')}{draw.randrange(100, 999)}"])
        if slot == "pobox":
            return pick(["PO Box ", "P.O. Box ", "P O Box "]) + str(draw.randrange(1, 9999))
        if slot == "streetname":
            return f"{pick([self.name('family'), pick(self.lists['places']).title()])} {pick(_WAYS)}"
        if slot == "town":
            return pick(_TOWNS) if draw.random() < 0.4 else composed_name(draw, self.lists["places"]).title() + pick(["", "", "ham", "bury", "ton"])
        if slot == "postcode":
            letters = "ABDEFGHJLNPRSTUWY"
            return f"{pick(letters)}{pick(['', pick(letters)])}{draw.randrange(1, 40)} {draw.randrange(1, 9)}{pick(letters)}{pick(letters)}"
        if slot == "austate":
            return pick(["NSW", "VIC", "QLD", "SA", "WA", "TAS", "NT", "ACT", "ON", "BC", "AB"])
        if slot == "auzip":
            return f"{draw.randrange(800, 9000):04}"
        if slot == "city":
            return pick(self.lists["places"]).title() if draw.random() < 0.8 else composed_name(draw, self.lists["places"]).title()
        if slot == "state":
            return pick(_STATES)
        if slot == "zip":
            return f"{draw.randrange(501, 99951):05}" + (f"-{draw.randrange(10000):04}" if draw.random() < 0.2 else "")
        if slot == "street":
            return f"{draw.randrange(1, 20000)} {pick(['', '', 'N. ', 'West '])}{pick([self.name('family'), pick(self.lists['places']).title(), pick(['Oak', 'Main', '5th', '22nd', 'Park'])])} {pick(_WAYS)}" + pick(["", "", f", Apt {draw.randrange(1, 99)}", f" #{draw.randrange(1, 99)}", f", Suite {draw.randrange(100, 900)}"])
        if slot == "age":
            return str(draw.randrange(90, 110))
        if slot == "date":
            y, m, d = draw.randrange(1930, 2030), draw.randrange(1, 13), draw.randrange(1, 29)
            month = _MONTHS[m - 1]
            return pick([f"{m}/{d}/{y}", f"{m:02}/{d:02}/{y}", f"{m}/{d}/{y % 100:02}", f"{m}/{d}", f"{y}-{m:02}-{d:02}", f"{month} {d}, {y}", f"{month[:3]} {d}, {y}", f"{d} {month} {y}", f"{d}-{month[:3]}-{y}", f"{month} {d}", f"the {d}th of {month}", f"{m:02}.{d:02}.{y}", f"{m}-{d}-{y % 100:02}", f"{month} {y}", f"{month[:3]} {d}", f"{d}{month[:3].upper()}{y}"])
        if slot == "phone":
            a, b, c = draw.randrange(200, 999), draw.randrange(200, 999), draw.randrange(10000)
            return pick([f"({a}) {b}-{c:04}", f"{a}-{b}-{c:04}", f"{a}.{b}.{c:04}", f"{b}-{c:04}", f"+1 {a} {b} {c:04}", f"{a} {b} {c:04}", f"x{c:04}", f"0{a} {b}{c:04}"])
        if slot == "email":
            return f"{self.first.lower().replace(' ', '')}{pick(['.', '_', '', '-'])}{self.last.lower().replace(' ', '')}{pick(['', str(draw.randrange(99))])}@{pick(['mail', 'example', 'clinic', 'post'])}.{pick(_ENDS)}"
        if slot == "url":
            return f"{pick(['www.', 'https://www.', 'http://', 'https://'])}{composed_name(draw, self.lists['family'])}.{pick(_ENDS)}{pick(['', '/visit', '/p/12'])}"
        letters = "".join(pick("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(3))
        n = draw.randrange(10**4, 10**9)
        return pick([str(n), str(n), f"{letters[:2]}{n}", f"{letters[0]}-{n}", f"{n // 1000}-{n % 1000:03}", f"{letters}-{n % 10000:04}-{letters[0]}", f"{letters[:1]}{draw.randrange(10, 99)}-{n % 100000}", f"#{n}"])


def synthetic_notes(count: int, seed: int, data: Path) -> Iterator[Note]:
    """``count`` notes; none of the benchmark's test notes, templates or names among them."""
    draw = random.Random(seed)
    texts = [
        row["transcription"]
        for row in pq.read_table(data / "mtsamples/notes.parquet", columns=["sample_id", "transcription"]).to_pylist()
        if row["transcription"] and not in_test_part(row["sample_id"])
    ]
    forbidden = {
        word.lower()
        for note in injected_notes(test=True, data=data)
        for gold in note.gold
        if gold.label in ("PATIENT", "DOCTOR", "RELATIVE", "CITY")
        for word in re.findall(r"\w+", note.text[gold.start : gold.end])
    }
    lists = {
        kind: sorted(word for word in word_list(name) if 2 < len(word) < 26 and word not in forbidden and not reserved(word))
        for kind, name in (("given", "given"), ("family", "family"), ("places", "places-us"), ("facilities", "facilities-us"))
    }
    lists["places"] = [place for place in lists["places"] if not place.endswith(" county")]
    for number in range(count):
        yield _one(draw, draw.choice(texts), _Surrogates(draw, lists), f"training{number}")


def _one(draw: random.Random, text: str, patient: _Surrogates, name: str) -> Note:
    # A stretch of the note is enough: long bodies without identifiers teach little per second.
    start = draw.randrange(max(1, len(text) - 900))
    body = text[start : start + draw.randrange(200, 900)]
    pieces = re.split(r"(?<=[.])[ \n]+", body)
    for _ in range(draw.randrange(4, 11)):
        pieces.insert(draw.randrange(len(pieces) + 1), spoken(draw, draw.choice(SENTENCES)))
    for _ in range(draw.randrange(5)):
        pieces.insert(draw.randrange(len(pieces) + 1), spoken(draw, draw.choice(NEGATIVES)))
    joined = draw.choice([" ", " ", "\n", "  "]).join(pieces)
    heads = [spoken(draw, one) for one in draw.sample(HEADS, draw.randrange(3))] + [header(draw)] * (draw.random() < 0.4)
    tails = [spoken(draw, one) for one in draw.sample(TAILS, draw.randrange(3))]
    template = draw.choice(["\n\n", "\n\n", "\n"]).join([*heads, joined, *tails])
    out, gold, last, size = [], [], 0, 0
    for found in re.finditer(r"\{([a-z]+2?)\}", template):
        slot = found.group(1)
        before, surface = template[last : found.start()], patient.fill(slot)
        out += [before, surface]
        size += len(before)
        gold.append(Gold(start=size, end=size + len(surface), label=_KINDS.get(slot, slot)))
        size += len(surface)
        last = found.end()
    out.append(template[last:])
    whole = "".join(out)
    case = draw.random()
    if case < 0.13:
        whole = whole.upper() if len(whole.upper()) == len(whole) else whole
    elif case < 0.4:
        whole = whole.lower() if len(whole.lower()) == len(whole) else whole
    return Note(name=name, text=whole, gold=tuple(gold))
