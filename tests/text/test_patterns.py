"""Patterns read a text the quick way and find what their expressions find."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.pattern import Reading, first_runs, in_small_letters
from synclave_shared.text.phi.universal import UNIVERSAL

_PIECES = (
    "Patient ID: 123-45-6789, MRN 0012345, acct. no 99-1234",
    "on Tuesday, the 3rd of MARCH 2014; d/c 4/12, JAN 5th, 1999",
    "12 Oak St, Apt 4B, Boston, MA 02115-1234 PO Box 12",
    "Tel (617) 555-0123 ext 44 fax: 555-0199 pager#1234",
    "el 3 de enero de 2012, días 12/03/99, Nº historia: 123456",
    "DOB 1/2/1934 aged 93, in her nineties, christmas day",
    "mrn123 _mr#12 MR#12 2mr 12 social 1234 µg ß Ÿ ſs ıd KG",
    "employer: Acme; Works at Foo Bar. school Elm",
)


@pytest.mark.parametrize("code", ["en", "es"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_quick_reading_changes_no_answer(code: str, data: st.DataObject) -> None:
    letters = st.text(alphabet="aAsSmMrRtT019/-.#: \nñÑéſK", max_size=12)
    text = "".join(data.draw(st.lists(st.sampled_from(_PIECES) | letters, max_size=8)))
    text = data.draw(st.sampled_from([text, text.upper(), text.lower(), text.title()]))
    reading = Reading.of(text)
    plain = Reading(text=text, small=None, starts={})
    for pattern in (*UNIVERSAL, *locale_for(code).patterns):
        assert list(pattern.find(reading)) == list(pattern.find(plain)), pattern.name


def test_first_runs_are_told_only_where_they_are_sure() -> None:
    assert first_runs("pt #|medical record|d[ií]a") == {"pt", "medical", "dia", "día"}
    assert first_runs("years?|age") is None
    assert first_runs(r"h\.?c") is None
    assert first_runs("d.l.") is None


def test_expressions_in_small_letters() -> None:
    small = in_small_letters(r"(?i)(?P<v>[A-F\D]+)X\S")
    assert small is not None
    assert small.pattern == r"(?P<v>[a-f\D]+)x\S"
    assert in_small_letters("ABC") is None
    assert in_small_letters("(?i)a(?-i:B)") is None
