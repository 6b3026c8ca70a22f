"""Names that stand in for names: word by word, so that relatives keep the surname they share, and sex is kept.

Which words are given names tells their place in a full name, then the lists; its sex tells a list, then
the words around it, then its ending.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from synclave_shared.text.phi.lexicon import word_lists
from synclave_shared.text.view import folded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synclave_shared.text.phi.locale import Locale
    from synclave_shared.text.replacements.draws import KeyedDraws

__all__ = ["NAME_PARTS", "NameMap", "Naming", "sex_of_context"]

NAME_PARTS: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]{2,})*")
"""Words of a name; double names are two."""

_PIECES: Final = re.compile(rf"(?<![^\W\d_])(?:[^\W\d_]\.){{2,4}}|{NAME_PARTS.pattern}")
"""The same, and degrees with their dots."""

_TURNED: Final = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*,\s*[^\W\d_]{2,}")
"""``Lopez, Maria``."""

_FEMALE: Final = re.compile(
    r"(?i)\b(?:mrs|ms|miss|she|her|woman|female|girl|lady|wife|mother|daughter|sister|aunt|niece|grandmother|"
    r"granddaughter|sra|srta|señora|esposa|madre|hija|hermana|mujer|ella|paciente mujer)\b"
)
_MALE: Final = re.compile(
    r"(?i)\b(?:mr|he|his|him|man|male|boy|gentleman|husband|father|son|brother|uncle|nephew|grandfather|grandson|sr|"
    r"señor|esposo|marido|padre|hijo|hermano|varón|hombre)\b"
)


@cache
def _given(language: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Sex by folded name, and names by sex."""
    content = tomllib.loads((files("synclave_shared.text") / "data" / "given-by-sex.toml").read_text(encoding="utf-8"))
    lists = content.get(language, content["en"])
    sexes = {folded(name): sex for one in content.values() for sex, names in one.items() for name in names}
    return sexes, {sex: tuple(names) for sex, names in lists.items()}


@cache
def _surnames(lists: tuple[str, ...], ordinary: tuple[str, ...]) -> tuple[str, ...]:
    """Surnames that are no words of the language, so that nobody takes them for something else."""
    return tuple(
        sorted(word for word in word_lists(lists) - word_lists(ordinary) if word.isalpha() and 4 <= len(word) <= 9)
    )


def sex_of_context(words: str) -> str:
    """``women``, ``men``, or nothing where words around a name do not tell."""
    female, male = len(_FEMALE.findall(words)), len(_MALE.findall(words))
    return "" if female == male else "women" if female > male else "men"


class Naming:
    """One occurrence of a name.

    Args:
        surface: as it is written.
        around: the words right before it, which may tell a sex.
    """

    __slots__ = ("around", "surface")

    def __init__(self, surface: str, around: str = "") -> None:
        self.surface, self.around = surface, around


class NameMap:
    """What stands in for each word of the names in one patient's notes.

    Args:
        draws: the patient's.
        locale: language.
        namings: all occurrences, of all notes.
        taken: folded words that must not be used: all that the notes hold.
    """

    def __init__(self, draws: KeyedDraws, locale: Locale, namings: Iterable[Naming], taken: frozenset[str]) -> None:
        self._locale = locale
        # Of the words that begin no name some are names all the same: "Dr. Ronnie June".
        words = {*locale.not_names} - word_lists(locale.given) - word_lists(locale.family)
        self._fixed = {*locale.titles, *locale.credentials, *locale.particles, *words}
        roles, around = self._roles(list(namings))
        sexes, given = _given(locale.code)
        surnames = _surnames(locale.family, (*locale.ordinary, *locale.given, *locale.eponyms))
        self._new: dict[str, str] = {}
        used = set(taken)
        # In the order of the letters, and not of the notes: one more note changes as little as can be.
        for key in sorted(roles):
            pool = surnames
            if roles[key] == "given":
                sex = sexes.get(key) or sex_of_context(" ".join(around[key])) or ("women" if key[-1] == "a" else "men")
                pool = given[sex]
            attempt = 0
            while (new := draws.choice(pool, "name", key, attempt)) and folded(new) in used and attempt < 500:
                attempt += 1
            if folded(new) in used:
                new = draws.choice(surnames, "name", key, "more")
            used.add(folded(new))
            self._new[key] = new.title() if new.islower() else new

    def of(self, surface: str) -> str:
        """The name with every word replaced, initials too; titles, degrees and particles stay."""
        return _PIECES.sub(lambda found: self._piece(found.group()), surface)

    def words(self) -> Mapping[str, str]:
        """Folded words of the names, and what stands in for each."""
        return self._new

    def _roles(self, namings: list[Naming]) -> tuple[dict[str, str], dict[str, list[str]]]:
        roles: dict[str, str] = {}
        around: dict[str, list[str]] = {}
        # Full names first: place tells more than lists.
        for naming in sorted(namings, key=lambda one: -len(NAME_PARTS.findall(one.surface))):
            parts = [found.group() for found in NAME_PARTS.finditer(naming.surface)]
            parts = [part for part in parts if len(part) > 1 and folded(part) not in self._fixed]
            turned = _TURNED.match(naming.surface) is not None
            for place, part in enumerate(parts):
                key = folded(part)
                last = place == 0 if turned else place == len(parts) - 1
                if len(parts) > 1:
                    role = "family" if last else "given"
                else:
                    role = "given" if key in word_lists(self._locale.given) and not self._titled(naming) else "family"
                roles.setdefault(key, role)
                around.setdefault(key, []).append(naming.around[-24:])
        return roles, around

    def _titled(self, naming: Naming) -> bool:
        before = NAME_PARTS.findall(naming.around + naming.surface.partition(" ")[0])
        return any(folded(word) in self._locale.titles for word in before[-2:])

    def _piece(self, piece: str) -> str:
        if "." not in piece:
            return self._word(piece)
        if folded(piece.replace(".", "")) in self._locale.credentials:
            return piece
        return ".".join(self._word(letter) if letter else "" for letter in piece.split("."))

    def _word(self, word: str) -> str:
        key = folded(word)
        if len(word) == 1:
            # The initial of a name that is known, or of nobody: then another letter.
            fitting = [new for old, new in self._new.items() if old[0] == key]
            letter = fitting[0][0] if fitting else "ABCDEFGHJKLMNPRSTW"[ord(key[0]) % 18]
            letter = letter if folded(letter) != key else "ABCDEFGHJKLMNPRSTW"[(ord(key[0]) + 7) % 18]
            return letter.upper() if word.isupper() else letter.lower()
        if key in self._fixed:
            return word
        new = self._new.get(key)
        if new is None:
            # Letters run together: initials, user names.
            new = "".join(self._word(letter) for letter in word)
        return new.upper() if word.isupper() and len(word) > 1 else new.lower() if word.islower() else new
