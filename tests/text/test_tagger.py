"""The tagger: the same answer in chunks, a loss per patient that a site can clip, weights that do what they are for."""

import numpy as np
import pytest
import torch

from synclave_client.training.private.engine import PatientGradients
from synclave_shared.text import tagger as module
from synclave_shared.text.features import FLAGS, token_features
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.tagger import PHI_TAGS, shipped_tagger
from synclave_shared.text.phi.words import lexicon_of
from synclave_shared.text.spans import PhiClass
from synclave_shared.text.tagger import NO_TAG, Tagger, TaggerBatch, tag_probabilities, tagger_loss


def _features(text: str):  # type: ignore[no-untyped-def]
    locale = locale_for("en")
    return token_features(text, locale, lexicon_of(locale))


def _batch(patients: int, chunks: int, tokens: int, seed: int = 0) -> TaggerBatch:
    generator = np.random.default_rng(seed)
    numbers = generator.integers(1, 500, (patients, chunks, tokens, 4))
    tags = generator.integers(0, 5, (patients, chunks, tokens))
    numbers[1, -1], tags[1, -1] = 0, NO_TAG
    tags[2] = NO_TAG
    return TaggerBatch(
        numbers=torch.from_numpy(numbers),
        flags=torch.from_numpy(generator.random((patients, chunks, tokens, FLAGS), np.float32)),
        tags=torch.from_numpy(tags),
        present=torch.tensor([True] * patients),
    )


def test_features_cover_every_letter_and_fit_their_tables() -> None:
    text = "Dr. Ab-12é\n\nX" + "a" * 500
    features = _features(text)
    assert [text[s:e] for s, e in features.spans[:6]] == ["Dr", ".", "Ab", "-", "12", "é"]
    assert features.numbers.min() >= 1
    assert features.flags.shape == (len(features.spans), FLAGS)
    assert len(_features("").spans) == 0


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Tagger(5).eval()
    features = _features("Mr. Smith saw Dr. Lee on 3/4/2010 in Boston. " * 30)
    whole = tag_probabilities(network, features)
    monkeypatch.setattr(module, "_CHUNK", 37)
    np.testing.assert_allclose(tag_probabilities(network, features), whole, atol=1e-6)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    network = Tagger(5).eval()
    batch = _batch(4, 1, 12)
    wide = TaggerBatch(
        numbers=torch.nn.functional.pad(batch.numbers, (0, 0, 0, 9)),
        flags=torch.nn.functional.pad(batch.flags, (0, 0, 0, 9), value=3.0),
        tags=torch.nn.functional.pad(batch.tags, (0, 9), value=NO_TAG),
        present=batch.present,
    )
    torch.testing.assert_close(tagger_loss(network, wide), tagger_loss(network, batch))


def test_the_loss_is_each_patients_own() -> None:
    torch.manual_seed(0)
    network, batch = Tagger(5), _batch(4, 2, 10)
    together = tagger_loss(network, batch)
    for patient in range(4):
        torch.testing.assert_close(tagger_loss(network, batch.select(torch.tensor([patient])))[0], together[patient])
    assert together[2] == 0


def test_the_private_engine_clips_it_as_one_patient_at_a_time_does() -> None:
    torch.manual_seed(0)
    network, batch, clip = Tagger(5, width=8), _batch(4, 2, 10), 0.05
    slow: dict[str, torch.Tensor] = {}
    for patient in range(4):
        network.zero_grad()
        tagger_loss(network, batch.select(torch.tensor([patient])))[0].backward()
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        norm = torch.sqrt(sum((g**2).sum() for g in gradients.values()))
        for name, gradient in gradients.items():
            slow[name] = slow.get(name, 0) + gradient * min(1.0, clip / float(norm + 1e-30))
    network.zero_grad()
    total = PatientGradients(network, tagger_loss, clip).clipped_sum([batch])
    # The engine bounds norms from above by a small margin.
    flat = torch.cat([slow[name].flatten() for name, _ in network.named_parameters()])
    torch.testing.assert_close(total.flatten(), flat, rtol=1e-2, atol=1e-4)


def test_the_shipped_tagger_reads_names_that_no_list_has() -> None:
    text = "Vrelobant Oskuvide was seen on May 4, 2011 and lives in Karmodunt, OH.\n\nTrevidal Mukstard, MD"
    spans = shipped_tagger("en").spans(text)
    names = " ".join(text[s.start : s.end] for s in spans if s.phi is PhiClass.NAME)
    assert "Oskuvide" in names
    assert "Mukstard" in names
    assert all(s.source == "tagger" and 0.5 <= s.confidence <= 1 for s in spans)
    assert len(PHI_TAGS) == shipped_tagger("en").network.leave.out_features
