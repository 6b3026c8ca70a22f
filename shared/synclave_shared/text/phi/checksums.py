"""Checks that tell an identifier from a number that only looks like one."""

from __future__ import annotations

import ipaddress
import re

__all__ = ["iban", "ip_address", "luhn", "nhs_number", "nif", "ssn", "vin"]


def _digits(found: str) -> list[int]:
    return [int(letter) for letter in found if letter.isdecimal()]


def luhn(found: str) -> bool:
    """ISO/IEC 7812-1: payment cards and US provider numbers."""
    numbers = _digits(found)
    if not 12 <= len(numbers) <= 19:
        return False
    doubled = [number if place % 2 == 0 else sum(divmod(2 * number, 10)) for place, number in enumerate(numbers[::-1])]
    return sum(doubled) % 10 == 0


def iban(found: str) -> bool:
    """ISO 13616: the rearranged number is 1 modulo 97."""
    letters = re.sub(r"[^A-Z0-9]", "", found.upper())
    if not 15 <= len(letters) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in letters[4:] + letters[:4])) % 97 == 1


_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ0123456789", "12345678123457923456789" + "0123456789", strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def vin(found: str) -> bool:
    """49 CFR 565.15: the ninth letter of a vehicle identification number is the weighted sum modulo 11."""
    letters = found.upper()
    if len(letters) != 17 or any(letter not in _VIN_VALUES for letter in letters):
        return False
    rest = sum(int(_VIN_VALUES[letter]) * weight for letter, weight in zip(letters, _VIN_WEIGHTS, strict=True)) % 11
    return letters[8] == ("X" if rest == 10 else str(rest))


def nhs_number(found: str) -> bool:
    """NHS Data Dictionary: ten digits, the last one by modulus 11."""
    numbers = _digits(found)
    if len(numbers) != 10:
        return False
    rest = 11 - sum(number * (10 - place) for place, number in enumerate(numbers[:9])) % 11
    return numbers[9] == (0 if rest == 11 else rest)


def nif(found: str) -> bool:
    """Spain's NIF and NIE: the closing letter is the number modulo 23 in a fixed alphabet."""
    letters = re.sub(r"[^A-Z0-9]", "", found.upper())
    if not re.fullmatch(r"[XYZ0-9]\d{7}[A-Z]", letters):
        return False
    number = int(letters[:-1].translate(str.maketrans("XYZ", "012")))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == letters[-1]


def ssn(found: str) -> bool:
    """Nine digits, not all alike; area and serial are not zeros.

    Areas of 900 and more are accepted: they are tax numbers of persons, and the invented numbers of training material.
    """
    numbers = "".join(letter for letter in found if letter.isdecimal())
    return len(numbers) == 9 and len(set(numbers)) > 1 and numbers[:3] != "000" and numbers[5:] != "0000"


def ip_address(found: str) -> bool:
    """Whether Python's own parser takes it for an address of version 4 or 6."""
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return True
