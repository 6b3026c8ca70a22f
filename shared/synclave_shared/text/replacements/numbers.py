"""Numbers, mail, web addresses, telephones: of the same shape, valid where there is a checksum, never given out.

Telephones end in 555-01xx (reserved for fiction), social security numbers begin with 9 (never issued), mail and web
addresses end in names of RFC 2606, addresses of the internet come from the documentation ranges of RFC 5737 and 3849.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from synclave_shared.text.phi.checksums import iban, luhn, nhs_number, nif, vin
from synclave_shared.text.spans import PhiClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from synclave_shared.text.replacements.draws import KeyedDraws

__all__ = ["replaced_number"]

_VIN: Final = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
_TRIES: Final = 4000
"""Draws until a checksum fits: of the rarest, one in 97 does."""

_CHECKED: Final[tuple[Callable[[str], bool], ...]] = (vin, iban, nif, luhn, nhs_number)


def replaced_number(draws: KeyedDraws, phi: PhiClass, surface: str) -> str:
    """What stands in for an identifier that is no name, place or date; another string than ``surface``."""
    for attempt in range(16):
        new = _made(draws, phi, surface, attempt)
        if new.casefold() != surface.casefold():
            return new
    return f"[{phi.value.upper()}]"


def _made(draws: KeyedDraws, phi: PhiClass, surface: str, attempt: int) -> str:
    word = "".join(letter for letter in surface.casefold() if letter.isalnum())
    number = draws.number(10**6, phi.value, word, attempt)
    match phi:
        case PhiClass.EMAIL:
            return f"contact{number}@example.org"
        case PhiClass.URL:
            if surface.startswith("@"):
                return f"@user{number}"
            scheme = re.match(r"(?i)[a-z]+://", surface)
            www = "www." if "www" in surface.lower() else ""
            return f"{scheme.group() if scheme else ''}{www}page{number}.example.org"
        case PhiClass.IP:
            return f"2001:db8::{number % 0xFFFF:x}" if ":" in surface else f"192.0.2.{1 + number % 254}"
        case PhiClass.PHONE | PhiClass.FAX if sum(letter.isdecimal() for letter in surface) >= 7:
            return _telephone(surface, number)
        case _ if phi is PhiClass.SSN or re.fullmatch(r"\d{3}-\d{2}-\d{4}", surface):
            new = _shaped(draws, phi, surface, word, attempt)
            place = next((place for place, letter in enumerate(new) if letter.isdecimal()), None)
            long = sum(letter.isdecimal() for letter in new) == 9
            return new if place is None or not long else f"{new[:place]}9{new[place + 1 :]}"
    for check in _CHECKED:
        if check(surface):
            for extra in range(_TRIES):
                new = _shaped(draws, phi, surface, word, f"{attempt}.{extra}")
                if check(new):
                    return new
    return _shaped(draws, phi, surface, word, attempt)


def _telephone(surface: str, number: int) -> str:
    """The last seven digits become 555-01xx, an area code before them another one; marks stay."""
    places = [place for place, letter in enumerate(surface.split("x")[0]) if letter.isdecimal()]
    letters = list(surface)
    area = f"{200 + number // 100 % 800:03}"
    new = f"55501{number % 100:02}"
    for place, digit in zip(places[-7:], new, strict=True):
        letters[place] = digit
    for offset, place in enumerate(reversed(places[:-7])):
        if offset < 3:
            letters[place] = area[2 - offset]
    for place in range(places[-1] + 1, len(letters)):
        if letters[place].isdecimal():
            letters[place] = str((int(letters[place]) + 1 + number % 9) % 10)
    return "".join(letters)


def _shaped(draws: KeyedDraws, phi: PhiClass, surface: str, word: str, attempt: int | str) -> str:
    """Digits for digits and letters for letters; a code of a country or kind before the digits stays."""
    stream = draws.generator(phi.value, word, attempt)
    kept = 2 if re.match(r"[A-Z]{2}\d\d", surface) and len(word) >= 15 and not vin(surface) else 0
    out = []
    for place, letter in enumerate(surface):
        if place < kept:
            out.append(letter)
        elif letter.isdecimal():
            out.append(str(int(stream.integers(1 if place == 0 else 0, 10))))
        elif letter.isalpha() and letter.isupper():
            out.append(_VIN[int(stream.integers(23))])
        elif letter.isalpha() and any(other.isdecimal() for other in surface):
            out.append(_VIN[int(stream.integers(23))].lower())
        elif letter.isalpha():
            out.append("abcdefghijklmnopqrstuvwxyz"[int(stream.integers(26))])
        else:
            out.append(letter)
    return "".join(out)
