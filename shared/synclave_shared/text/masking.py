"""A site's notes before training: every identifier that its detector finds becomes a typed slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from synclave_shared.text.phi import Detector, RecordIdentifiers, Rules
from synclave_shared.text.phi.tagger import shipped_tagger
from synclave_shared.text.slots import slot_of, with_slots

__all__ = ["masked_text", "masker", "record_identifiers", "site_detector"]


def site_detector(language: str, rules: Rules | None = None) -> Detector:
    """Everything that comes with Synclave, and a site's own rules.

    Args:
        language: ``en`` or ``es``.
        rules: of the site; None: none.
    """
    return Detector.for_locale(language, rules=rules, tagger=shipped_tagger(language))


def masker(detector: Detector) -> Callable[[str, Sequence[tuple[str, str]]], str]:
    """What masks the notes of a data set: text and the patient's identifiers, as (kind, value), to text with slots."""

    def mask(text: str, identifiers: Sequence[tuple[str, str]]) -> str:
        return masked_text(detector.of_patient(record_identifiers(identifiers)), text)

    return mask


def masked_text(detector: Detector, text: str) -> str:
    """The text with a typed slot in place of every identifier that the detector finds."""
    return with_slots(
        text, [(span.start, span.end, slot_of(span.phi.value, span.kind)) for span in detector.detect(text)]
    )


def record_identifiers(identifiers: Sequence[tuple[str, str]]) -> RecordIdentifiers:
    """A patient's identifiers, as a data set has them, for the detector."""
    values: dict[str, list[str]] = {}
    for kind, value in identifiers:
        values.setdefault(kind, []).append(value)
    dates = tuple(found for text in values.pop("dates", []) if (found := _day(text)) is not None)
    others: dict[str, Any] = {kind: tuple(found) for kind, found in values.items()}
    return RecordIdentifiers(dates=dates, **others)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None
