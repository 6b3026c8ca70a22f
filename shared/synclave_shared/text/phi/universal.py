"""Identifiers that look the same in every language: mail and web addresses, network numbers, cards, vehicles, devices."""

from __future__ import annotations

from typing import Final

from synclave_shared.text.phi.checksums import iban, ip_address, luhn, vin
from synclave_shared.text.phi.pattern import DIGITS, Pattern, digits, shipped
from synclave_shared.text.spans import PhiClass

__all__ = ["UNIVERSAL"]

_TOP: Final = (
    "com|org|net|edu|gov|mil|int|info|biz|io|co|us|uk|es|fr|de|it|pt|nl|be|ch|at|eu|mx|ar|cl|pe|ca|au|nz|in|ie|se|no|dk|fi|"
    "pl|cz|ru|br|cat|health|hospital|clinic|doctor|care|med|example|test|local|app|dev|me|tv"
)

_DOTS: Final = r"(?:(?: ?\(dot\) ?| ?\[dot\] ?| dot |\.)[\w-]{1,63}){0,3}(?: ?\(dot\) ?| ?\[dot\] ?| dot |\.)"


UNIVERSAL: Final[tuple[Pattern, ...]] = (
    shipped(
        "email",
        PhiClass.EMAIL,
        "email",
        r"(?<![\w.%+'-])[\w.%+'-]{1,64} ?@ ?[\w-]{1,63}(?:\.[\w-]{1,63}){0,5}\.[A-Za-z][\w-]{1,62}",
        0.99,
    ),
    shipped(
        "email-spelled",
        PhiClass.EMAIL,
        "email",
        rf"(?i)(?<![\w.])[\w.+-]{{1,64}} ?(?:\(at\)|\[at\]| at(?= [\w-]{{1,63}} (?:\(?dot\)?|\[dot\]) )) ?[\w-]{{1,63}}{_DOTS}(?:{_TOP})\b",
        0.9,
    ),
    # "jdoe7 at example.org"; "help at example.org" is an address alone.
    shipped(
        "email-said",
        PhiClass.EMAIL,
        "email",
        rf"(?i)(?<![\w.])(?=[\w.+-]{{0,63}}[\d_.])[\w.+-]{{1,63}}[a-z\d] at [\w-]{{1,63}}{_DOTS}(?:{_TOP})\b",
        0.9,
        check=lambda found: not found[0].isdigit() and any(letter.isalpha() for letter in found.split(" at ")[0]),
    ),
    shipped("url", PhiClass.URL, "url", r"(?i)(?<![\w@])(?:https?|s?ftp)://[^\s<>\"')\]]{2,2000}", 0.99),
    shipped("www", PhiClass.URL, "url", r"(?i)(?<![\w@.])www\d?\.[^\s<>\"'),;\]]{3,300}", 0.99),
    shipped(
        "domain",
        PhiClass.URL,
        "url",
        rf"(?i)(?<![\w@.-])(?:[a-z0-9][a-z0-9-]{{0,62}}\.){{1,4}}(?:{_TOP})\b(?:/[^\s<>\"'),;]{{0,200}})?(?!\.?\w)",
        0.7,
        check=lambda found: len(found.split("/")[0].rsplit(".", 1)[0]) > 2 and not found[0].isdigit(),
    ),
    shipped("handle", PhiClass.URL, "handle", r"(?<![\w@.])@[A-Za-z_][\w.]{2,30}", 0.6),
    shipped(
        "ip-v4",
        PhiClass.IP,
        "ip",
        r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)",
        0.95,
        check=ip_address,
        first=DIGITS,
    ),
    shipped(
        "ip-v6",
        PhiClass.IP,
        "ip",
        r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])",
        0.9,
        check=lambda found: ip_address(found) and sum(letter.isalnum() for letter in found) > 4,
    ),
    shipped("mac", PhiClass.DEVICE, "mac", r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])", 0.95),
    shipped(
        "uuid",
        PhiClass.OTHER,
        "uuid",
        r"(?i)(?<![\w-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![\w-])",
        0.99,
    ),
    shipped(
        "card", PhiClass.ACCOUNT, "card", r"(?<![\d-])\d(?:[ -]?\d){11,18}(?![\d-])", 0.9, check=luhn, first=DIGITS
    ),
    shipped(
        "iban",
        PhiClass.ACCOUNT,
        "iban",
        r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)",
        0.97,
        check=iban,
    ),
    shipped("vin", PhiClass.VEHICLE, "vin", r"(?i)(?<!\w)[A-HJ-NPR-Z0-9]{17}(?!\w)", 0.9, check=vin),
    # GS1 application identifiers: (01) device, (11) (17) dates, (10) lot, (21) serial.
    shipped(
        "udi",
        PhiClass.DEVICE,
        "udi",
        r"\(01\) ?\d{14}(?: ?\((?:1[017]|21)\) ?[A-Za-z0-9/-]{1,20}){0,4}",
        0.99,
    ),
    shipped(
        "phone-international",
        PhiClass.PHONE,
        "phone",
        r"(?<![\w+])(?:\+|00(?=[1-9]\d{0,2}[ .(-]))\d{1,3}[ .-]?(?:\(0?\d{0,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}(?![\w])",
        0.9,
        check=digits(8, 15),
    ),
    # Long runs of digits are nobody's laboratory value.
    shipped("number", PhiClass.OTHER, "number", r"(?<![\w.,/-])\d{7,24}(?![\w]|[.,/-]\d)", 0.7, first=DIGITS),
    shipped(
        "number-groups",
        PhiClass.OTHER,
        "number",
        r"(?<![\w.,/-])\d{2,6}(?:-\d{2,7}){1,4}(?![\w]|[.,/-]\d)",
        0.6,
        check=digits(7),
        first=DIGITS,
    ),
    shipped(
        "code",
        PhiClass.OTHER,
        "number",
        r"(?<![\w./-])[A-Z]{1,5}[-#]?\d(?:[A-Z0-9]|-(?=[A-Z0-9])){4,22}(?![\w]|[./-]\w)",
        0.6,
        check=digits(5),
    ),
    shipped(
        "code-dashed",
        PhiClass.OTHER,
        "number",
        r"(?<![\w./-])(?=[A-Z0-9-]{7,40}(?![\w]))[A-Z0-9]{1,12}(?:-[A-Z0-9]{1,12}){1,4}(?![\w]|[./-]\w)",
        0.55,
        check=digits(5),
    ),
)
