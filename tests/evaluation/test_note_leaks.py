"""What a language model of notes gives away of its training patients: the measures, against counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from synclave_server.evaluation.notes.canaries import (
    draw_canaries,
    exposure,
    exposure_of_strangers,
    with_canary,
)
from synclave_server.evaluation.notes.likelihood import nats_per_token
from synclave_server.evaluation.notes.membership import calibrated, membership
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import find_base
from synclave_shared.text.chunks import NoteChunks, encode_notes
from tests.models.small_notes import notes_dataset, notes_schema

TOKENIZER = find_base(NotesSpec()).tokenizer


def chunks_of(patients: int) -> NoteChunks:
    return encode_notes(notes_dataset(patients), notes_schema(), TOKENIZER)


class Frequencies(nn.Module):
    """A model that knows how often each token occurs, and nothing else; it counts what it is asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.shares: list[float] = []

    def forward(self, ids: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
        self.shares += ((ids == TOKENIZER.mask).sum(dim=1) / seen.sum(dim=1)).tolist()
        return self.logits.expand(*positions.shape, -1)


def test_the_bound_of_a_model_that_looks_at_nothing_is_its_cross_entropy() -> None:
    chunks = chunks_of(4)
    uniform = Frequencies(torch.zeros(TOKENIZER.size))
    np.testing.assert_allclose(nats_per_token(uniform, chunks, TOKENIZER), math.log(TOKENIZER.size), rtol=1e-5)
    # Every share of a chunk's words is hidden as often as any other.
    assert np.mean(uniform.shares) == pytest.approx(
        0.5 * chunks.predictable.mean() / (chunks.ids != 0).mean(), abs=0.05
    )

    counts = torch.from_numpy(np.bincount(chunks.ids[chunks.predictable], minlength=TOKENIZER.size) + 1e-6)
    logs = (counts / counts.sum()).log().float()
    found = nats_per_token(Frequencies(logs), chunks, TOKENIZER, draws=25, asked=48)
    for patient in range(4):
        own = slice(*chunks.starts[patient : patient + 2])
        truth = -logs[torch.from_numpy(chunks.ids[own][chunks.predictable[own]]).long()].mean()
        assert found[patient] == pytest.approx(float(truth), rel=0.08)


def test_the_same_words_are_hidden_from_two_models() -> None:
    chunks = chunks_of(6)
    torch.manual_seed(0)
    model = Frequencies(torch.randn(TOKENIZER.size))
    first = nats_per_token(model, chunks, TOKENIZER, seed=3)
    assert np.array_equal(first, nats_per_token(model, chunks, TOKENIZER, seed=3))
    assert not np.array_equal(first, nats_per_token(model, chunks, TOKENIZER, seed=4))
    shifted = Frequencies(model.logits + 5)
    np.testing.assert_allclose(calibrated(nats_per_token(shifted, chunks, TOKENIZER, seed=3), first), 0, atol=1e-5)


def test_members_of_smaller_loss_are_told() -> None:
    rng = np.random.default_rng(0)
    strangers = rng.normal(5, 1, 400)
    told = membership(strangers[:200] - 3, strangers[200:])
    assert told.auc > 0.95
    assert told.hits > 0.8
    blind = membership(strangers[:200], strangers[200:])
    assert blind.interval[0] < 0.5 < blind.interval[1]
    assert blind.hits < 0.15
    assert membership(np.array([1.0, 3.0]), np.array([2.0, 4.0])).auc == 0.75
    assert membership(np.ones(3), np.ones(5)).auc == 0.5
    assert membership(np.ones(3), np.ones(5)).hits == 0


@pytest.mark.parametrize(("members", "strangers"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_an_attack_needs_losses_of_both(members: list[float], strangers: list[float]) -> None:
    with pytest.raises(ValueError, match=r"at least one|finite"):
        membership(np.array(members), np.array(strangers))


def test_calibration_finds_what_the_notes_own_difficulty_hides() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(5, 1, 400)
    attacked = hard + rng.normal(0, 0.01, 400)
    attacked[:200] -= 0.03
    assert membership(attacked[:200], attacked[200:]).auc < 0.6
    gained = calibrated(attacked, hard)
    assert membership(gained[:200], gained[200:]).auc > 0.95


def test_canaries_are_distinct_sentences_of_one_law() -> None:
    words = [f"word{number}" for number in range(30)]
    canaries = draw_canaries(words, 50, length=5, seed=1)
    assert len(set(canaries)) == 50
    assert all(len(one.split()) == len(set(one.lower().split())) == 5 for one in canaries)
    assert canaries == draw_canaries(words, 50, length=5, seed=1)
    assert canaries[:20] == draw_canaries(words, 20, length=5, seed=1)
    assert canaries != draw_canaries(words, 50, length=5, seed=2)
    with pytest.raises(ValueError, match="at least 10"):
        draw_canaries(words[:9], 1, length=5)


@given(st.text(max_size=200), st.integers(1, 20))
def test_a_canary_stands_as_often_as_asked_and_the_note_stays(text: str, times: int) -> None:
    lines = with_canary(text, "Seven quiet lemons.", times).split("\n")
    assert lines[0] == "Seven quiet lemons."
    assert lines.count("Seven quiet lemons.") == times
    assert "\n".join(line for line in lines if line != "Seven quiet lemons.") == text


def test_exposure_counts_the_controls_that_are_known_better() -> None:
    controls = np.arange(1, 1024, dtype=float)
    assert exposure(np.array([0.0, 1.5, 2000.0]), controls).tolist() == [10, 9, 0]
    assert exposure(np.array([1.0]), np.ones(3)).tolist() == [pytest.approx(2 - math.log2(2.5))]
    assert exposure_of_strangers(1023) == pytest.approx(1 / math.log(2), abs=0.01)
    # Never-inserted canaries, each among all the others, have just that exposure.
    rng = np.random.default_rng(0)
    losses = rng.normal(size=256)
    own = [exposure(losses[[at]], np.delete(losses, at))[0] for at in range(256)]
    assert np.mean(own) == pytest.approx(exposure_of_strangers(255), rel=1e-9)
