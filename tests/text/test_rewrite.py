"""Rewriting real notes at the site: nothing that identifies a patient comes through, and the medicine stays."""

from __future__ import annotations

import re
from functools import cache

import pytest

from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base
from synclave_shared.text.entities import EntityFinder, single_word_terms
from synclave_shared.text.fill_words import Drawing, WordFiller
from synclave_shared.text.linkage import linkage_rate
from synclave_shared.text.phi import Detector
from synclave_shared.text.polarity import POLARITY
from synclave_shared.text.replacements import KeyedDraws, Replacements
from synclave_shared.text.rewrite import LONGEST_NOTE, PatientNotes, Rewriter, RewriteSettings, Rewritten, SourceNote
from synclave_shared.text.spans import PhiClass, Span

NOTE = """CHIEF COMPLAINT: Chest pain.
Patient: Wilfredo Sheesley, MRN 00482913, seen on 03/04/2015 by Dr. Berkowitz.
His daughter, Hung Sheesley, can be reached at (478) 555-0193. The patient is 94 years old.
He denies chest pain and has hypertension treated with lisinopril 10 mg daily. Mr. Sheesley was seen again on 03/14/2015
and we talked for a long time about what he would like to do when the weather gets better later this year."""
DETECTOR = Detector.for_locale("en")


@cache
def filler() -> WordFiller:
    spec = NotesSpec(width=64, blocks=1)
    base = find_base(spec)
    return WordFiller(build_note_lm(spec, base), base.tokenizer, DETECTOR.locale, 64, Drawing(calls=2))


def rewritten(text: str, key: bytes = b"k" * 32, canaries: tuple[str, ...] = (), **settings: float) -> Rewritten:
    rewriter = Rewriter(filler(), EntityFinder(), key, RewriteSettings(**settings), canaries)  # type: ignore[arg-type]
    patient = PatientNotes(patient="p1", notes=(SourceNote(text=text),), detector=DETECTOR)
    return next(rewriter.rewrite([patient]))[1][0]


def test_no_identifier_survives_and_entities_headings_negation_and_layout_do() -> None:
    found = rewritten(NOTE, ratio=1.0)
    assert found.text is not None
    for part in ("Wilfredo", "Sheesley", "Berkowitz", "Hung", "00482913", "03/04/2015", "0193", "94"):
        assert part not in found.text
    for part in ("CHIEF COMPLAINT:", "denies", "hypertension", "lisinopril", "10 mg daily", "90+"):
        assert part in found.text
    assert found.text.count("\n") == NOTE.count("\n")
    for (start, end), (there, until) in zip(found.kept, found.kept_there, strict=True):
        assert NOTE[start:end] == found.text[there:until]


@pytest.mark.parametrize(
    ("surface", "span", "lost"),
    [
        ("Dr. Ronnie June", Span(start=0, end=15, phi=PhiClass.NAME, kind="doctor", source="t", confidence=1), "June"),
        (
            "Braithwaite, LA 61090",
            Span(start=0, end=21, phi=PhiClass.PLACE, kind="address", source="t", confidence=1),
            "LA",
        ),
        (
            "University General Hospital",
            Span(start=0, end=27, phi=PhiClass.PLACE, kind="facility", source="t", confidence=1),
            "General",
        ),
        ("UT", Span(start=0, end=2, phi=PhiClass.PLACE, kind="state", source="t", confidence=1), "UT"),
    ],
)
def test_names_that_are_words_leave_no_trace(surface: str, span: Span, lost: str) -> None:
    for number in range(40):
        key = bytes([number]) * 16
        new = Replacements(KeyedDraws(key, "p"), DETECTOR.locale, [(surface + " and GA", [span])]).of(span, surface)
        assert lost not in new.split()
        assert "GA" not in new.split()


def test_a_model_writes_no_clinical_term_and_no_other_number() -> None:
    text = "The patient was seen again and took 7 of them on 3 days in May with her other people from there. " * 8
    found = rewritten(text, ratio=1.0)
    assert found.text is not None
    assert re.findall(r"\d+", found.text) == re.findall(r"\d+", text)
    written = {word.casefold() for word in re.findall(r"[^\W\d_]+", found.text)}
    assert not written & single_word_terms() - {word.casefold() for word in text.split()}
    assert not written & POLARITY


def test_letters_that_touch_digits_are_kept_and_long_numbers_are_not() -> None:
    found = rewritten("Staging was T2N0M0 at C5-6 on 3 levels, and the item was 7461928350 there. " * 3, ratio=1.0)
    assert found.text is not None
    assert found.text.count("T2N0M0 ") == found.text.count("C5-6 ") == 3
    assert "7461928350" not in found.text


def test_a_secret_key_makes_the_same_surrogates_again_and_another_key_others() -> None:
    assert rewritten(NOTE) == rewritten(NOTE)
    assert rewritten(NOTE).text != rewritten(NOTE, key=b"j" * 32).text


def test_a_canary_is_refused_with_its_reason_and_never_dropped_silently() -> None:
    found = rewritten(NOTE, canaries=("hypertension",))
    assert found.text is None
    assert found.refusal == "canary"
    assert len(found.rejected) == 3


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_note_is_refused(text: str) -> None:
    assert rewritten(text).refusal == "empty"


def test_a_book_is_refused() -> None:
    assert rewritten("a" * (LONGEST_NOTE + 1)).refusal == "too-long"


@pytest.mark.parametrize(
    "text",
    [
        "John Smith 03/04/2015 555-123-4567",
        "Pt\x00 John Smith\x07 seen by Dr. John Smith\x1b \ud800 pain",
        "El paciente John Smith niega dolor. The patient John Smith denies 疼痛 pain.",
        "Patient John Smith has pain. " * 60,
    ],
)
def test_hostile_notes_give_a_safe_text_or_a_refusal(text: str) -> None:
    found = rewritten(text)
    assert found.text is None or "Smith" not in found.text
    assert found.text is not None or found.refusal


def test_kept_entities_link_a_note_to_its_source() -> None:
    sources = ["fever and cough", "renal failure on dialysis", "broken arm"]
    assert linkage_rate(sources, sources) == 1.0
    assert linkage_rate(sources, ["nothing", None, "words"]) == 0.0
    assert linkage_rate(sources, [None] * 3) is None
