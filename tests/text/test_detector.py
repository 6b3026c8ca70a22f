"""What the detector finds, in ordinary notes and in hostile ones."""

import datetime
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.errors import ConfigurationError
from synclave_shared.text.phi import Detector, RecordIdentifiers, Rules
from synclave_shared.text.spans import PhiClass, Span

ENGLISH = Detector.for_locale("en")
SPANISH = Detector.for_locale("es")


def _found(text: str, detector: Detector = ENGLISH) -> dict[str, Span]:
    return {text[span.start : span.end]: span for span in detector.detect(text)}


@pytest.mark.parametrize(
    ("text", "surface", "phi"),
    [
        ("Mr. Abernathy was seen today.", "Abernathy", PhiClass.NAME),
        ("Reviewed with Dr. Q. Zbornak-Oyelaran in clinic.", "Q. Zbornak-Oyelaran", PhiClass.NAME),
        ("Patient: LINDQVIST, ASTRID M", "LINDQVIST, ASTRID M", PhiClass.NAME),
        ("Her husband Wendell drove her.", "Wendell", PhiClass.NAME),
        ("Signed,\nPriya Raghunathan, MD", "Priya Raghunathan", PhiClass.NAME),
        ("pt seen by dr smith today", "smith", PhiClass.NAME),
        ("Patient ............ LINDQVIST, Astrid", "LINDQVIST, Astrid", PhiClass.NAME),
        ("Delivered by midwife Zornitsa Quell today.", "Zornitsa Quell", PhiClass.NAME),
        ("Yours sincerely\n\nZornitsa Quellman\nConsultant", "Zornitsa Quellman", PhiClass.NAME),
        ("pt quellbrun slept well, son zorniel at bedside", "quellbrun", PhiClass.NAME),
        ("QUELL, Zorn T   MRN 123", "QUELL, Zorn T", PhiClass.NAME),
        ("97M with a fall", "97", PhiClass.DATE),
        ("appointment 4/10 4:10 at noon", "4/10", PhiClass.DATE),
        ("He farms in Brunnell County now", "Brunnell County", PhiClass.PLACE),
        ("VS POLE ON QUELLMAN DRIVE TONIGHT", "QUELLMAN DRIVE", PhiClass.PLACE),
        ("2 Mill Close, Ambleham, LA22 9AB", "Ambleham", PhiClass.PLACE),
        ("Dubbo NSW 2830", "NSW", PhiClass.PLACE),
        ("Medicare 2123 45670 1", "2123 45670 1", PhiClass.HEALTH_PLAN),
        ("Seen on 3/14/2012.", "3/14/2012", PhiClass.DATE),
        ("Seen on 14.03.2012.", "14.03.2012", PhiClass.DATE),
        ("Seen March 3rd, 2012 here.", "March 3rd, 2012", PhiClass.DATE),
        ("Seen on the 3rd of March.", "3rd of March", PhiClass.DATE),
        ("Due Mar-12-2019 again.", "Mar-12-2019", PhiClass.DATE),
        ("Since Tuesday, March 3, he coughs.", "Tuesday, March 3", PhiClass.DATE),
        (
            "on the twenty-second of June, two thousand eleven",
            "the twenty-second of June, two thousand eleven",
            PhiClass.DATE,
        ),
        ("in October 2009", "October 2009", PhiClass.DATE),
        ("DOB: 19470302", "19470302", PhiClass.DATE),
        ("This is a 93-year-old woman.", "93", PhiClass.DATE),
        ("a ninety-four year old man", "ninety-four", PhiClass.DATE),
        ("Call (555) 213-4567 x12.", "(555) 213-4567 x12", PhiClass.PHONE),
        ("Call 020 7946 0958.", "020 7946 0958", PhiClass.PHONE),
        ("Fax: 555-213-4567", "555-213-4567", PhiClass.FAX),
        ("write to jo.smith@mail.example.org", "jo.smith@mail.example.org", PhiClass.EMAIL),
        ("see https://portal.example.org/a?b=1 now", "https://portal.example.org/a?b=1", PhiClass.URL),
        ("from 192.168.10.44 at night", "192.168.10.44", PhiClass.IP),
        ("SSN 123-45-6789", "123-45-6789", PhiClass.SSN),
        ("MRN: 00123456", "00123456", PhiClass.MRN),
        ("medical record number is 88-12-34", "88-12-34", PhiClass.MRN),
        ("Member ID: XGH123456789", "XGH123456789", PhiClass.HEALTH_PLAN),
        ("Acct # 4455-991", "4455-991", PhiClass.ACCOUNT),
        ("DEA: BS1234563", "BS1234563", PhiClass.LICENCE),
        ("license plate 7ABC123", "7ABC123", PhiClass.VEHICLE),
        ("his car, 1M8GDM9AXKP042788, was hit", "1M8GDM9AXKP042788", PhiClass.VEHICLE),
        ("Serial number: PJN600123S", "PJN600123S", PhiClass.DEVICE),
        ("(01)00844588003288(17)141120(10)7654321D", "(01)00844588003288(17)141120(10)7654321D", PhiClass.DEVICE),
        ("Wound photo stored as IMG_20231.jpg", "IMG_20231.jpg", PhiClass.PHOTO),
        ("fingerprint template FP-88213-A on file", "FP-88213-A", PhiClass.BIOMETRIC),
        ("lives at 12 Old Mill Road, Apt 3B", "12 Old Mill Road, Apt 3B", PhiClass.PLACE),
        ("Boise, ID 83702", "83702", PhiClass.PLACE),
        ("transferred from St. Anselm Memorial Hospital", "St. Anselm Memorial Hospital", PhiClass.PLACE),
        ("He moved to Quxville last year.", "Quxville", PhiClass.PLACE),
    ],
)
def test_each_kind_of_identifier_is_found(text: str, surface: str, phi: PhiClass) -> None:
    found = _found(text)
    assert surface in found, sorted(found)
    assert found[surface].phi is phi


@pytest.mark.parametrize(
    ("text", "surface", "phi"),
    [
        ("Paciente: Íñigo Etxeberria Ruiz.", "Íñigo Etxeberria Ruiz", PhiClass.NAME),
        ("Remitido por: Dra. Nuria Vallespín de la Fuente.", "Nuria Vallespín de la Fuente", PhiClass.NAME),
        ("Fecha de nacimiento: 03/03/1946.", "03/03/1946", PhiClass.DATE),
        ("ingresó el 3 de marzo de 2015 por", "3 de marzo de 2015", PhiClass.DATE),
        ("en enero del 2011", "enero del 2011", PhiClass.DATE),
        ("DNI 12345678Z", "12345678Z", PhiClass.OTHER),
        ("Tel. 91 416 97 00", "91 416 97 00", PhiClass.PHONE),
        ("NHC: 7036902.", "7036902", PhiClass.MRN),
        ("Domicilio: Calle Miguel Benítez 90.", "Calle Miguel Benítez 90", PhiClass.PLACE),
        ("CP: 28002.", "28002", PhiClass.PLACE),
        ("Hospital Universitario 12 de Octubre", "Hospital Universitario 12 de Octubre", PhiClass.PLACE),
    ],
)
def test_spanish_is_a_locale_and_no_code(text: str, surface: str, phi: PhiClass) -> None:
    found = _found(text, SPANISH)
    assert surface in found, sorted(found)
    assert found[surface].phi is phi


@pytest.mark.parametrize(
    "text",
    [
        "A Foley catheter was placed; Parkinson disease and Down syndrome are stable.",
        "Strength 5/5 throughout, murmur 2/6, pain 8/10, BP 120/80, vision 20/40.",
        "Metoprolol 25 mg twice daily, Lasix 40 mg p.o., potassium 4.1, platelets 263,000.",
        "HOSPITAL COURSE: The patient did well. REVIEW OF SYSTEMS: negative.",
        "The 54-year-old man smoked 1 pack per day for 30 years.",
        "Babinski sign is absent, Romberg test normal, Glasgow coma scale 15.",
        "Threshold 0.75 V @ 0.4 ms; growth on the 25th centile; Wisconsin Card Sorting Test normal.",
        "may repeat in two weeks; march in place; turn to the left",
    ],
)
def test_medicine_is_left_alone(text: str) -> None:
    assert _found(text) == {}


def test_a_name_found_once_is_masked_everywhere() -> None:
    text = "Dr. Okonjo-Vance examined her. OKONJO agreed. Vance's plan stands. Ask okonjo-vance."
    found = sorted(_found(text))
    assert found == ["OKONJO", "Okonjo-Vance", "Vance", "okonjo-vance"]


def test_the_patients_own_record_finds_what_nothing_else_does() -> None:
    record = RecordIdentifiers(
        names=("Grace Young Xylander",),
        relatives=("Tevfik Xylander",),
        birth_date=datetime.date(1951, 3, 9),
        mrns=("AB-1234",),
        phones=("+44 7700 900123",),
        addresses=("7 The Hollows, Nether Wallop",),
    )
    text = "grace xylandr came with tevfik; ab1234; born 9.3.51; 07 03 09; Nether  Wallop; 447700900123; G.Y.X."
    found = _found(text, ENGLISH.of_patient(record))
    for surface in ("xylandr", "tevfik", "ab1234", "9.3.51", "Nether  Wallop", "447700900123", "G.Y.X."):
        assert any(surface in one for one in found), (surface, sorted(found))
    assert "Xylander" not in repr(record)


def test_offsets_are_those_of_the_text_even_behind_marks_without_width() -> None:
    text = "\u200bDr.\u00a0Jo\u00adsé\u0301 Quintana\u2019s wife, 3\u20114\u20112011."
    spans = ENGLISH.detect(text)
    assert [span.phi for span in spans][:1] == [PhiClass.NAME]
    assert text[spans[0].start : spans[0].end].startswith("Jo")
    assert "3\u20114\u20112011" in {text[span.start : span.end] for span in spans}


def test_detection_is_the_same_every_time() -> None:
    text = "Mr. Abernathy, MRN 00123456, saw Dr. Lee on 3/4/2010 at Mercy Hospital." * 3
    assert ENGLISH.detect(text) == ENGLISH.detect(text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_any_text_gives_disjoint_spans_inside_it(text: str) -> None:
    for detector in (ENGLISH, SPANISH):
        spans = detector.detect(text)
        assert all(0 <= span.start < span.end <= len(text) for span in spans)
        assert all(one.end <= other.start for one, other in itertools.pairwise(spans))


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "A. ", "1/", "a.a@", "Dr. ", "\x00", "Ab ", "A1-", "(", "\n", "Hospital of ", "on the ", "Calle A 1 "],
)
@pytest.mark.parametrize("detector", [ENGLISH, SPANISH], ids=["en", "es"])
def test_time_grows_with_length_and_no_faster(unit: str, detector: Detector) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        begun = time.process_time()
        detector.detect(text)
        return time.process_time() - begun

    seconds(1000)
    short, long = seconds(4000), seconds(16000)
    # Four times the text: a quadratic search would take sixteen times as long.
    assert long < 9 * short + 0.1


def test_a_megabyte_of_one_letter_is_no_trouble() -> None:
    begun = time.process_time()
    assert ENGLISH.detect("a" * 1_000_000) == []
    assert time.process_time() - begun < 30


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\x00", "😀"])
def test_nothing_is_found_in_nothing(text: str) -> None:
    assert ENGLISH.detect(text) == []


def test_a_site_keeps_and_adds_words() -> None:
    text = "The Wendover scale; Mr. Hoffmann; RIVERSIDE CAMPUS"
    assert set(_found(text)) == {"Hoffmann"}
    rules = Rules(keep=frozenset({"hoffmann"}), names=frozenset({"wendover"}), places=frozenset({"riverside campus"}))
    assert set(_found(text, Detector.for_locale("en", rules=rules))) == {"Wendover", "RIVERSIDE CAMPUS"}


def test_a_language_that_is_not_there_is_named() -> None:
    assert Detector.for_locale("en-GB").locale.code == "en"
    with pytest.raises(ConfigurationError, match="en, es"):
        Detector.for_locale("tlh")
