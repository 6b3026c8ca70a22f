"""A site's notes before training: every identifier that its detector finds becomes a typed slot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from synclave_shared.text.slots import with_slots

__all__ = ["mask_phi"]

_PATTERNS: Final = (
    ("[EMAIL]", re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")),
    ("[SSN]", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("[PHONE]", re.compile(r"(?:\(\d{3}\)\s?|\b\d{3}[-. ])?\b\d{3}[-. ]\d{4}\b")),
    ("[DATE]", re.compile(r"\b\d{1,4}[/-]\d{1,2}(?:[/-]\d{1,4})?\b")),
    ("[MRN]", re.compile(r"\b\d{6,}\b")),
)


def mask_phi(text: str, identifiers: Sequence[str] = ()) -> str:
    """The text with a typed slot in place of each identifier.

    Args:
        text: of a note.
        identifiers: what the patient's own record holds: found in the text, they are masked whatever they look like.
    """
    own = [re.escape(word) for word in sorted(identifiers, key=len, reverse=True) if len(word) > 1]
    found = [] if not own else [("[PATIENT]", re.compile(rf"(?<!\w)(?:{'|'.join(own)})(?!\w)", re.IGNORECASE))]
    spans: list[tuple[int, int, str]] = []
    for slot, pattern in (*found, *_PATTERNS):
        for match in pattern.finditer(text):
            if all(match.end() <= start or end <= match.start() for start, end, _ in spans):
                spans.append((*match.span(), slot))
    return with_slots(text, sorted(spans))
