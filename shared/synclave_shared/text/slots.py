"""Typed slots: what stands in a note where an identifier of a person stood.

A slot is written into the text in brackets, such as ``[DATE]``. The language model sees slots and never predicts them;
what fills them in a synthetic note comes from public lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["SLOTS", "SLOT_PATTERN", "slot_of", "with_slots"]

SLOTS: Final = (
    "PATIENT",
    "DOCTOR",
    "RELATIVE",
    "NAME",
    "HOSPITAL",
    "STREET",
    "CITY",
    "STATE",
    "ZIP",
    "PLACE",
    "DATE",
    "AGE",
    "PHONE",
    "FAX",
    "EMAIL",
    "SSN",
    "MRN",
    "HEALTH-PLAN",
    "ACCOUNT",
    "LICENCE",
    "VEHICLE",
    "DEVICE",
    "URL",
    "IP",
    "BIOMETRIC",
    "PHOTO",
    "OTHER",
)
"""Every slot: the classes of HIPAA's Safe Harbor rule, names and places and dates more finely. Part of the embedded
vocabulary: a new one makes another tokenizer."""

SLOT_PATTERN: Final = re.compile(r"\[(?:" + "|".join(SLOTS) + r")\]")
"""A slot in a text."""

_SAME: Final = {"FACILITY": "HOSPITAL"}


def slot_of(phi: str, kind: str = "") -> str:
    """The slot of an identifier by its finer kind if there is one of that name, else by its class.

    Args:
        phi: class of the identifier, such as ``name``.
        kind: its finer kind, such as ``doctor``.
    """
    for word in (kind.upper(), phi.upper()):
        word = _SAME.get(word, word)
        if word in SLOTS:
            return f"[{word}]"
    return "[OTHER]"


def with_slots(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """The text with a slot in place of each span.

    Args:
        text: of a note.
        spans: disjoint (start, end, slot), in order.
    """
    pieces, at = [], 0
    for start, end, slot in spans:
        pieces += [text[at:start], slot]
        at = end
    return "".join([*pieces, text[at:]])
