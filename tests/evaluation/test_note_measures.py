"""Diversity, fluency and what is preserved, against counts made by hand and what must be so."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synclave_server.evaluation.notes.diversity import distinct_n, self_bleu
from synclave_server.evaluation.notes.fluency import Judge, reading_ease, word_nats
from synclave_server.evaluation.notes.preserved import entity_preservation, flips
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base
from synclave_shared.text.entities import Entity, EntityFinder, EntityKind

WORDS = ["the", "patient", "was", "seen", "in", "clinic", "with", "fever", "cough", "and", "pain"]


def mentions(text: str) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in EntityFinder().find(text)]


def marks(text: str, *parts: str) -> list[Entity]:
    return [
        Entity(start=at, end=at + len(part), kind=EntityKind.PROBLEM, source="test", confidence=1.0)
        for part in parts
        for at in (text.index(part),)
    ]


def test_texts_that_are_alike_have_a_self_bleu_of_one_and_others_less() -> None:
    assert self_bleu(["he came in with a cough and fever"] * 3) == pytest.approx(1)
    assert self_bleu(["a b c d e", "f g h i j"]) == 0
    assert math.isnan(self_bleu(["alone"]))


def test_self_bleu_of_two_texts_is_what_a_hand_counts() -> None:
    # Each against the other: 4 of 5 words; 3 + 1 of 4 + 1 pairs, 2 + 1 of 3 + 1 triples, 1 + 1 of 2 + 1 runs of four.
    expected = (4 / 5 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert self_bleu(["a b c d e", "a b c d f"]) == pytest.approx(expected)


def test_self_bleu_compares_a_text_with_the_others_and_not_with_itself() -> None:
    twice = ["a a b", "a c b", "d e f"]
    # "a a b": one of its two "a" stands in another text.
    first = (2 / 3 * 1 / 3 * 1 / 2 * 1) ** 0.25
    second = (2 / 3 * 1 / 3 * 1 / 2 * 1) ** 0.25
    assert self_bleu(twice) == pytest.approx((first + second + 0) / 3)


def test_more_change_gives_less_self_bleu_and_more_distinct_runs() -> None:
    def drawn(share: float) -> list[str]:
        stream = random.Random(0)
        return [" ".join(f"w{stream.random()}" if stream.random() < share else w for w in WORDS) for _ in range(20)]

    measured = [self_bleu(drawn(share)) for share in (0.1, 0.3, 0.6)]
    assert measured == sorted(measured, reverse=True)
    runs = [distinct_n(drawn(share), 2) for share in (0.1, 0.3, 0.6)]
    assert runs == sorted(runs)


def test_distinct_runs_are_counted_by_hand() -> None:
    assert distinct_n(["a b a b"], 1) == pytest.approx(2 / 4)
    assert distinct_n(["A b a b", "b a"], 2) == pytest.approx(2 / 4)
    assert math.isnan(distinct_n([], 2))


class _Unigram(nn.Module):
    """Always the same distribution, and it counts how often it is asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.rows = 0

    def forward(self, ids: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
        self.rows += len(ids)
        return self.logits.expand(*positions.shape, -1)


def test_a_judge_that_knows_nothing_pays_the_same_for_every_token_of_every_word() -> None:
    tokenizer = find_base(NotesSpec()).tokenizer
    judge = Judge(network=_Unigram(torch.zeros(tokenizer.size)), tokenizer=tokenizer, tokens=32)  # type: ignore[arg-type]
    text = "He has had pneumonia, and 12 mg of xyzzyplugh were given.\n" * 6
    (nats,) = word_nats(judge, [text])
    assert not np.isnan(nats).any()
    pieces = nats / math.log(tokenizer.size)
    assert pieces == pytest.approx(np.round(pieces))
    # The rare word has many pieces; all are paid for, also where a row ends in it.
    assert pieces.min() == pytest.approx(1)
    assert pieces.max() > 2
    rows = -(-len(tokenizer.encode(text).ids) // 29)
    assert judge.network.rows == 8 * rows  # type: ignore[attr-defined]


def test_a_word_is_hidden_from_the_judge_whole() -> None:
    spec = NotesSpec(width=64, blocks=1)
    base = find_base(spec)
    judge = Judge(network=build_note_lm(spec, base), tokenizer=base.tokenizer, tokens=64)
    seen: list[Tensor] = []
    judge.network.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0].clone()))
    before = word_nats(judge, ["The patient, a xyzzyplugh, is well.", ""])
    assert [len(one) for one in before] == [6, 0]
    pieces = base.tokenizer.encode(" xyzzyplugh").ids
    for row in torch.cat(seen).tolist():
        whole = all(piece in row for piece in pieces)
        none = all(piece not in row for piece in pieces)
        assert whole or none


def test_short_words_in_short_sentences_read_easily() -> None:
    assert reading_ease("The cat sat. The dog ran.") == pytest.approx(206.835 - 1.015 * 3 - 84.6)
    hard = "Electroencephalographic abnormalities necessitated multidisciplinary evaluation."
    assert reading_ease(hard) < 0
    assert math.isnan(reading_ease("12 / 7"))


def test_preservation_is_counted_by_the_words_of_mentions() -> None:
    source, output = "fever and cough, then Fever", "fever, rash"
    kept = entity_preservation(
        [(source, [(0, 5), (10, 15), (22, 27)])],
        [(output, [(0, 5), (7, 11)])],
    )
    assert (kept.recall, kept.precision, kept.f1) == (1 / 3, 1 / 2, 2 / 5)
    assert math.isnan(entity_preservation([], []).f1)
    assert entity_preservation([(source, mentions(source))], [(source, mentions(source))]).f1 == 1


@pytest.mark.parametrize(
    ("source", "output", "negation", "side"),
    [
        ("He denies chest pain.", "She reports chest pain.", 1, 0),
        ("He denies chest pain.", "She denied having chest pain.", 0, 0),
        ("He has chest pain.", "There is no chest pain.", 1, 0),
        ("Pain in the left leg with chest pain.", "Pain in the right leg with chest pain.", 0, 1),
        ("No fever. He has chest pain.", "No cough. He has chest pain.", 0, 0),
        ("No fever but chest pain.", "A fever but chest pain.", 0, 0),
        ("His chest pain has resolved.", "His chest pain has not resolved.", 1, 0),
        ("He has chest pain.", "Nothing of the kind.", 0, 0),
    ],
)
def test_a_finding_that_is_denied_or_moved_to_the_other_side_is_a_flip(
    source: str, output: str, negation: int, side: int
) -> None:
    there = marks(output, "chest pain") if "chest pain" in output else []
    found = flips(source, marks(source, "chest pain"), output, there)
    assert (found.negation, found.side) == (negation, side)
    assert found.findings == len(there)
    assert found.either == max(negation, side)
