"""The embedded vocabulary, and slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.text.slots import SLOT_PATTERN, SLOTS, slot_of, with_slots
from synclave_shared.text.tokenizer import embedded_digest, embedded_tokenizer


@given(st.text(max_size=80))
def test_every_text_comes_back(text: str) -> None:
    tokenizer = embedded_tokenizer()
    encoded = tokenizer.encode(text)
    assert tokenizer.decode(encoded.ids) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert len(encoded.ids) == len(encoded.offsets)


def test_slots_are_tokens_and_special_tokens_cannot_be_written() -> None:
    tokenizer = embedded_tokenizer()
    assert tokenizer.size == 8192
    for slot in SLOTS:
        (number,) = tokenizer.encode(f"[{slot}]").ids
        assert number in tokenizer.never_drawn
        assert SLOT_PATTERN.fullmatch(f"[{slot}]")
    written = set(tokenizer.encode("[PAD] [CLS] [SEP] [MASK]").ids)
    assert not written & {tokenizer.pad, tokenizer.begin, tokenizer.separator, tokenizer.mask}


def test_a_note_takes_few_tokens() -> None:
    text = "CHIEF COMPLAINT: Chest pain.\n\nHISTORY OF PRESENT ILLNESS: The patient denies shortness of breath.\n"
    assert len(embedded_tokenizer().encode(text).ids) < len(text) / 3


def test_a_surface_form_cannot_begin_with_a_token_that_is_kept_back() -> None:
    tokenizer = embedded_tokenizer()
    kept_back = tokenizer.tokens_of(["Fulwood", "St. Mary"])
    for form in ("Fulwood", " FULWOOD", " st. mary", "St. Mary"):
        assert tokenizer.encode(form).ids[0] in kept_back, form


def test_slots_stand_where_spans_were() -> None:
    assert slot_of("name", "doctor") == "[DOCTOR]"
    assert slot_of("name", "nickname") == "[NAME]"
    assert slot_of("place", "facility") == "[HOSPITAL]"
    assert slot_of("riddle") == "[OTHER]"
    assert with_slots("Dr. Brest on 12/15.", [(4, 9, "[DOCTOR]"), (13, 18, "[DATE]")]) == "Dr. [DOCTOR] on [DATE]."


def test_the_vocabulary_is_named_by_its_content() -> None:
    assert embedded_digest() == embedded_digest()
    assert len(embedded_digest()) == 64
