"""Canonical JSON (RFC 8785) without floats: one value has one byte string, so it can be hashed and signed."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Annotated, Any

import rfc8785
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

__all__ = ["ExactDecimal", "FrozenModel", "canonical_bytes", "decimal_text", "sha256_hex"]


def decimal_text(value: Decimal) -> str:
    """The one decimal string of ``value``: no exponent, no trailing zeros (``Decimal("1.50")`` -> ``"1.5"``)."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _exact(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("write it as a decimal string, not as a binary float")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("must be a finite number")
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
