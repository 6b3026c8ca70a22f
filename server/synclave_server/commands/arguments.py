"""Options that several commands take, and how their text is read."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from synclave_shared.errors import ConfigurationError

__all__ = [
    "DEFAULT_HOME",
    "HomeOption",
    "KeyOption",
    "NetworkPrecision",
    "SiteKeysOption",
    "epsilon_of",
    "number_of",
    "pairs_of",
    "screen",
]

HomeOption = Annotated[Path, typer.Option("--home", help="The coordinator's folder, with its key.", metavar="DIR")]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="The coordinator's key: file:PATH or env:NAME (default: in --home).", metavar="URI"),
]
SiteKeysOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site-key", help="A site's public key as NAME=KEY, from `synclave-site init`; repeat.", metavar="NAME=KEY"
    ),
]
DEFAULT_HOME: Final = Path("synclave-home")


class NetworkPrecision(StrEnum):
    """What a network computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def screen(as_json: bool) -> Console:
    """Where a command talks to a person: with ``--json`` standard output belongs to the document alone."""
    return Console(stderr=as_json)


def pairs_of(items: list[str] | None, what: str) -> dict[str, str]:
    """Read repeated ``NAME=VALUE`` options.

    Raises:
        ConfigurationError: if one is not of that form, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for item in items or []:
        name, separator, value = item.partition("=")
        if not (name and separator and value) or name in pairs:
            raise ConfigurationError(
                expected=f"{what}, each name once", found=item, remedy="Write the name, =, and the value."
            )
        pairs[name] = value
    return pairs


def number_of(text: str, what: str) -> Decimal:
    """An exact number from an option that must not become a binary float.

    Raises:
        ConfigurationError: if it is no number, or below 0.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise ConfigurationError(expected=f"{what}: a number, 0 or above", found=text, remedy="Write it like 3 or 0.5.")
    return number


def epsilon_of(text: str | None, what: str) -> Decimal | None:
    """A privacy budget from an option that may be left away.

    Raises:
        ConfigurationError: if it is no number above 0.
    """
    number = None if text is None else number_of(text, what)
    if number == 0:
        raise ConfigurationError(
            expected=f"{what}: an epsilon above 0", found="0", remedy="With a budget of 0 nothing can be trained."
        )
    return number
