"""The sentences of a report that speak of notes: how close they are, and what in them comes from training notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.plots import percent
from synclave_server.evaluation.words import degree, judged, short

__all__ = ["FLOOR", "how_close_notes", "how_kinds_are_told", "what_leaks"]

FLOOR = "independent words"
"""What the report calls the floor of notes."""


def how_close_notes(measures: Mapping[str, Measure]) -> Iterator[str]:
    """Words, variety, medicine, and what a judge makes of the notes."""
    relation = measures["correlation_pearson"]
    if relation.value.value is None:
        yield f"Which words stand in one note could not be judged: {relation.value.reason}."
    else:
        yield (
            f"Which words stand in one note: {degree(relation.way, FLOOR)} (agreement {short(relation.value)}, real "
            f"patients {short(relation.ceiling)}, {FLOOR} {short(relation.floor)})."
        )
    alike, surprise = measures["self_bleu"], measures["word_surprise"]
    if alike.value.value is not None:
        yield (
            f"Notes are {short(alike.value)} times as alike as real ones are among one another (self-BLEU): above 1 "
            "they repeat themselves."
        )
    if surprise.value.value is not None:
        yield (
            f"A reader who knows other real notes is {short(surprise.value)} times as surprised per word as by real "
            f"notes; by {FLOOR} {short(surprise.floor)} times."
        )
    shared = measures["entity_overlap[problem]"]
    if shared.value.value is not None:
        yield (
            f"The problems that are mentioned overlap by {short(shared.value)} with the real ones; those of other real "
            f"patients by {short(shared.ceiling)}."
        )
    yield from judged(measures["discriminator_pairs"], FLOOR)


def how_kinds_are_told(measures: Mapping[str, Measure]) -> Iterator[str]:
    """What a classifier of note types learns."""
    kind = measures.get("type_accuracy")
    if kind is not None and kind.value.value is not None:
        yield (
            f"Telling the type of a note: accuracy {short(kind.value)} after learning from synthetic notes, "
            f"{short(kind.ceiling)} from as many real ones."
        )


def what_leaks(measures: Mapping[str, Measure]) -> Iterator[str]:
    """Shared runs, linkage and identifiers in one sentence each."""
    linked, chance = measures["linked_to_training"], measures["linked_to_held_out"]
    if linked.value.value is not None:
        yield (
            f"Sanity checks, no evidence: a linkage attack traces {percent(linked.value.value)} of the synthetic notes "
            f"to a training note and {percent(chance.value.value or 0)} to a held-out one, which is chance."
        )
    copied = measures["copied_training"]
    if copied.value.value is not None:
        yield f"{copied.title}: {percent(copied.value.value)}."
    named = measures["identifiers_training"]
    if named.value.value is not None:
        yield (
            f"{named.title}: {percent(named.value.value)}; of held-out patients' records: "
            f"{percent(measures['identifiers_held_out'].value.value or 0)}."
        )
