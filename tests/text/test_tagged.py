"""What the tagger takes along is left out; what others find stands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from synclave_shared.text.phi import Detector
from synclave_shared.text.spans import PhiClass, Span


@dataclass(frozen=True, slots=True)
class _Says:
    """A tagger that marks one stretch."""

    surface: str
    phi: PhiClass
    kind: str
    confidence: float = 0.95

    def spans(self, text: str) -> list[Span]:
        start = text.index(self.surface)
        end = start + len(self.surface)
        return [Span(start=start, end=end, phi=self.phi, kind=self.kind, source="tagger", confidence=self.confidence)]


@pytest.mark.parametrize(
    ("text", "said", "kept"),
    [
        (
            "Was seen by Zorna Quell today and then later in the day",
            _Says("Zorna Quell today", PhiClass.NAME, "doctor"),
            ["Zorna Quell"],
        ),
        ("Zorna Quell, PsyD wrote this", _Says("Zorna Quell, PsyD", PhiClass.NAME, "doctor"), ["Zorna Quell"]),
        ("We noted Tel 99 12 34 there", _Says("Tel 99 12 34", PhiClass.PHONE, "phone"), ["99 12 34"]),
        ("We saw Quibble's nodes there", _Says("Quibble", PhiClass.NAME, "patient"), []),
        ("The left ICA EDV was low and the flow was slow there", _Says("EDV", PhiClass.NAME, "patient"), []),
        ("Well. Zornly, the pain fell", _Says("Zornly", PhiClass.NAME, "patient", 0.6), []),
        ("Well. Zornly, the pain fell", _Says("Zornly", PhiClass.NAME, "patient", 0.9), ["Zornly"]),
        ("Mother died at 70 of it", _Says("70", PhiClass.DATE, "age"), []),
        ("Mother died there, 97 then", _Says("97", PhiClass.DATE, "age"), ["97"]),
    ],
)
def test_ends_of_what_the_tagger_says_are_looked_at(text: str, said: _Says, kept: list[str]) -> None:
    spans = replace(Detector.for_locale("en"), tagger=said).detect(text)
    assert [text[span.start : span.end] for span in spans if span.source == "tagger"] == kept
