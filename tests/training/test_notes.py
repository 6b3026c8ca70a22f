"""What training hides of a patient's notes, what it asks for, and that it clips exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synclave_client.performance import Performance
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.notes import NotesLearner
from synclave_client.training.private import PatientGradients
from synclave_client.training.rehearsal import rehearse_notes
from synclave_shared.diffusion.notes import draw_notes, normals_of, note_loss
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import LoadedBase, build_note_lm, look_up_base
from synclave_shared.text.chunks import NoteChunks, encode_notes
from synclave_shared.text.masking import masker
from synclave_shared.text.phi import Detector
from tests.models.small_notes import notes_dataset, notes_schema
from tests.models.test_note_base import published

SCHEMA = notes_schema()


def small(**settings: object) -> tuple[NotesSpec, LoadedBase]:
    values = {"width": 64, "blocks": 1, "predicted_tokens": 8, **settings}
    return look_up_base(NotesSpec.model_validate(values), Path())


def chunks_of(base: LoadedBase, patients: int = 8) -> NoteChunks:
    return encode_notes(notes_dataset(patients).masked(masker(Detector.for_locale("en"))), SCHEMA, base.tokenizer)


def test_a_weighted_word_is_worth_what_all_hidden_ones_are() -> None:
    """Sum of weights is 1 while nothing is capped: the loss is a mean per word of the text, whatever is hidden."""
    spec, base = small(smallest_ratio="0.2", chunks_per_step=3, largest_weight=5)
    chunks = chunks_of(base)
    rows = np.arange(8)
    normals = np.random.default_rng(0).standard_normal((8, normals_of(chunks, spec)), dtype=np.float32)
    batch = draw_notes(chunks, base.tokenizer, spec, rows, 10, normals)
    assert batch.ids.shape == (10, 3, SCHEMA.notes.tokens)
    assert batch.present.tolist() == [True] * 8 + [False] * 2
    assert not batch.weights[8:].any()
    masks = (batch.ids == base.tokenizer.mask).sum(dim=2)
    np.testing.assert_allclose(batch.weights[:8].sum(dim=2), 1.0, rtol=1e-5)
    for place in range(8):
        first, last = chunks.starts[place : place + 2]
        for number in range(3):
            ids, asked = batch.ids[place, number], batch.weights[place, number] > 0
            assert int(asked.sum()) == min(int(masks[place, number]), spec.predicted_tokens)
            positions = batch.positions[place, number][asked]
            assert (ids[positions] == base.tokenizer.mask).all()
            restored = ids.clone()
            restored[positions] = batch.targets[place, number][asked]
            # One of the patient's own chunks, and only words of its text were hidden.
            fitting = [
                chunk
                for chunk in range(first, last)
                if ((restored.numpy() == chunks.ids[chunk]) | (restored.numpy() == base.tokenizer.mask)).all()
            ]
            assert fitting
            hidden = (ids == base.tokenizer.mask).numpy()
            assert any(not (hidden & ~chunks.predictable[chunk]).any() for chunk in fitting)


def test_few_hidden_words_weigh_at_most_the_cap() -> None:
    spec, base = small(smallest_ratio="0.02", largest_weight=2)
    chunks = chunks_of(base)
    low = np.zeros((8, normals_of(chunks, spec)), np.float32)
    low[:] = np.random.default_rng(0).standard_normal(low.shape)
    for number in range(spec.chunks_per_step):
        low[:, chunks.most + number * (1 + SCHEMA.notes.tokens)] = -9  # the smallest share
    batch = draw_notes(chunks, base.tokenizer, spec, np.arange(8), 8, low)
    words = np.array([[chunks.predictable[start:].sum(axis=1)[0]] for start in chunks.starts[:-1]])
    assert (batch.ids == base.tokenizer.mask).sum(dim=2).max() == 1
    assert float(batch.weights.max()) == pytest.approx(2 / words.min(), rel=0.5)


def test_a_patient_does_not_change_what_is_hidden_of_another() -> None:
    spec, base = small()
    chunks = chunks_of(base)
    network = build_note_lm(spec, base)
    streams = PatientStreams(SecretRandomness(bytes(32)))
    learner = NotesLearner(network=network, spec=spec, chunks=chunks, tokenizer=base.tokenizer, device="cpu")
    together = learner.batch(np.array([1, 3, 6]), 4, streams, 2)
    alone = learner.batch(np.array([3]), 4, streams, 2)
    for name in ("ids", "positions", "targets", "weights"):
        assert torch.equal(getattr(together, name)[1], getattr(alone, name)[0]), name
    assert not torch.equal(together.ids[1], learner.batch(np.array([3]), 4, streams, 3).ids[0])
    # To the bit: the loss of one, with whoever else is in the tile.
    assert torch.equal(note_loss(network, together)[1], note_loss(network, alone)[0])


def test_the_clipped_sum_is_that_of_one_backward_pass_for_each_patient() -> None:
    spec, base = small()
    network = build_note_lm(spec, base)
    learner = NotesLearner(network=network, spec=spec, chunks=chunks_of(base), tokenizer=base.tokenizer, device="cpu")
    batch = learner.batch(np.arange(5), 6, PatientStreams(SecretRandomness(bytes(32))), 0)
    found = PatientGradients(network, learner.loss, 0.5, Performance()).clipped_sum([batch])
    total = torch.zeros_like(found)
    for patient in range(5):
        network.zero_grad()
        note_loss(network, batch)[patient].backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([value.grad.reshape(-1) for value in network.parameters() if value.grad is not None])
        assert gradient.norm() > 0.5
        total += gradient * (0.5 * (1 - 2.0**-8) / gradient.norm())
    network.zero_grad()
    # A bound of the norm is a little more than the norm.
    assert torch.allclose(found, total, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kind", "rank"), [("Bert", 0), ("Bert", 2), ("ModernBert", 2), ("Roberta", 0)])
def test_published_models_pass_the_sites_self_test(tmp_path: Path, kind: str, rank: int) -> None:
    published(tmp_path / "lm", kind)
    spec, base = look_up_base(NotesSpec(base="lm", adapter_rank=rank, predicted_tokens=8), tmp_path)
    report = rehearse_notes(32, spec, base, Performance(patients_at_once=4))
    assert report.parameters == spec.parameter_count()
