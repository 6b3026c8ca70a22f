"""Clinical mentions and headings."""

import itertools

import pytest

from synclave_shared.text.entities import EntityFinder, EntityKind, headings, shipped_entity_network


@pytest.mark.parametrize(
    ("text", "surface", "kind"),
    [
        ("started on metoprolol today", "metoprolol", EntityKind.DRUG),
        ("Metoprolol 25 mg p.o. b.i.d. was given", "25 mg p.o. b.i.d.", EntityKind.DOSE),
        ("takes it twice a day", "twice a day", EntityKind.DOSE),
        ("blood pressure 132/78 today", "132/78", EntityKind.VALUE),
        ("potassium of 4.1, stable", "4.1", EntityKind.VALUE),
        ("history of hypertension", "hypertension", EntityKind.PROBLEM),
        ("type 2 diabetes mellitus", "diabetes mellitus", EntityKind.PROBLEM),
        ("an electrocardiogram was done", "electrocardiogram", EntityKind.TEST),
    ],
)
def test_what_a_note_says_about_health_is_found(text: str, surface: str, kind: EntityKind) -> None:
    found = {text[e.start : e.end]: e.kind for e in EntityFinder().find(text)}
    assert any(surface in one and found[one] is kind for one in found), found


def test_mentions_are_disjoint_and_in_order() -> None:
    text = "Hypertension, type 2 diabetes mellitus, warfarin 5 mg daily, INR 2.3. " * 5
    found = EntityFinder().find(text)
    assert found
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert EntityFinder().find("") == []


def test_the_shipped_network_finds_what_no_list_has() -> None:
    text = "The patient had severe glomerulosclerotic nephritis after treatment with lorazetidine."
    found = {text[e.start : e.end]: e for e in EntityFinder(network=shipped_entity_network()).find(text)}
    assert any(entity.source == "tagger" for entity in found.values()), found


def test_headings_are_found_by_their_colon_or_their_capitals() -> None:
    text = "HISTORY OF PRESENT ILLNESS:\nHe coughs.\nAssessment and Plan: rest\nPHYSICAL EXAM\nnot: this"
    assert [text[s:e] for s, e in headings(text)] == [
        "HISTORY OF PRESENT ILLNESS",
        "Assessment and Plan",
        "PHYSICAL EXAM",
    ]
