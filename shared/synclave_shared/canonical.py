"""Canonical JSON (RFC 8785) without floats: one value has one byte string, so it can be hashed and signed."""

from __future__ import annotations

import hashlib
import math
import re
from decimal import Decimal
from typing import Annotated, Any, Final

import rfc8785
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

__all__ = ["ExactDecimal", "FrozenModel", "canonical_bytes", "decimal_text", "finite", "sha256_hex"]

MAX_DIGITS: Final = 40
"""Digits on each side of a decimal point: far beyond any parameter, and small enough to write out."""

_DECIMAL_TEXT = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


def decimal_text(value: Decimal) -> str:
    """The one decimal string of ``value``: no exponent, no trailing zeros (``Decimal("1.50")`` -> ``"1.5"``)."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _exact(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("write it as a decimal string, not as a binary float")
    if isinstance(value, str) and not _DECIMAL_TEXT.fullmatch(value):
        raise ValueError("must be a plain decimal number of at most 40 digits on each side of the point")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("must be a finite number")
    # Its text is written without an exponent: a few bytes like 1E-999999999 must not become a gigabyte.
    if number and not -MAX_DIGITS <= number.adjusted() < MAX_DIGITS:
        raise ValueError("is too large or too small")
    return number


ExactDecimal = Annotated[Decimal, BeforeValidator(_exact), PlainSerializer(decimal_text, return_type=str)]
"""A decimal that never passes through a binary float; serialised as its one canonical string."""


class FrozenModel(BaseModel):
    """Base of all wire and ledger types: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _refuse_floats(value: Any, path: str) -> None:
    if isinstance(value, float):
        raise ValueError(f"float at {path or '/'}: canonical values hold integers and decimal strings only")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_floats(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _refuse_floats(item, f"{path}/{position}")


def canonical_bytes(value: BaseModel | dict[str, Any] | list[Any]) -> bytes:
    """Serialise to canonical JSON (RFC 8785).

    Raises:
        ValueError: if a float occurs anywhere.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    _refuse_floats(plain, "")
    return rfc8785.dumps(plain)


def sha256_hex(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def finite(value: Any) -> Any:
    """A value for a JSON document that people and programs read: infinity and NaN, which JSON lacks, as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
