"""A site's notes before training."""

from __future__ import annotations

from synclave_shared.text.masking import masker
from synclave_shared.text.phi import Detector
from synclave_shared.text.slots import SLOT_PATTERN
from tests.models.small_notes import notes_dataset


def test_what_the_patients_own_record_holds_is_found_whatever_it_looks_like() -> None:
    mask = masker(Detector.for_locale("en"))
    text = "Quill Xanthe was seen on March 3, 2019, record 77A-19. Quill has a fever. Phone 555-0142."
    known = [("names", "Quill Xanthe"), ("mrns", "77A-19"), ("dates", "2019-03-03"), ("dates", "in spring")]
    masked = mask(text, known)
    for part in ("Quill", "Xanthe", "2019", "77A", "0142"):
        assert part not in masked, masked
    assert "has a fever" in masked
    assert len(SLOT_PATTERN.findall(masked)) >= 4


def test_a_data_set_is_masked_as_a_whole_and_forgets_the_identifiers() -> None:
    dataset = notes_dataset(12).masked(masker(Detector.for_locale("en")))
    assert dataset.identifiers == ((),) * 12
    for notes in dataset.notes:
        for note in notes:
            assert "Fulwood" not in note.text
            assert "2006" not in note.text
            assert "CHIEF COMPLAINT" in note.text
