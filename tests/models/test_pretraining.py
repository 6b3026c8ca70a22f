"""Training without privacy: it learns what independent columns cannot tell, and the same from the same seed."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synclave_server.pretraining import PretrainedModel, pretrain
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.diffusion.corruption import corrupt, hidden_cross_entropy
from synclave_shared.diffusion.preconditioning import posterior_logits, prior_logits
from synclave_shared.errors import ConfigurationError, DataError
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_dataset, small_rows, small_schema

SCHEMA = small_schema()
COUPLED = ModelSpec()
TOWER = ModelSpec(coupled_columns=0, width=32, blocks=1)
MASKED = ModelSpec(corruption="masked", coupled_columns=0, width=32, blocks=1)


def trained(spec: ModelSpec, **settings: Any) -> PretrainedModel:
    how = {"steps": 200, "batch_size": 128, "learning_rate": 5e-3, **settings}
    return pretrain(SCHEMA, small_dataset(2000), spec, **how)


def held_out_loss(spec: ModelSpec, parameters: NDArray[np.float32], anchor: NDArray[np.float32]) -> float:
    """Mean loss of patients that were not trained on, in nats."""
    features, labels = small_rows(4000, seed=1)
    network = build_code_denoiser(LAYOUT, spec)
    load_parameter_vector(network, parameters)
    generator = torch.Generator().manual_seed(2)
    clean = torch.from_numpy(features).float()
    levels = torch.randn(len(clean), 1, generator=generator)
    noise = torch.randn(len(clean), 1, LAYOUT.width, generator=generator)
    seen = corrupt(clean, levels, noise, spec, LAYOUT)
    prior = prior_logits(torch.from_numpy(anchor), LAYOUT)
    with torch.inference_mode():
        logits = posterior_logits(network, seen.x, seen.sigma, torch.from_numpy(labels), prior, LAYOUT, seen.known)
    return float(hidden_cross_entropy(logits, clean, seen, LAYOUT).mean())


@pytest.mark.parametrize("spec", [COUPLED, TOWER, MASKED], ids=["couplings", "tower", "masked"])
def test_patients_who_were_not_trained_on_are_told_better_than_by_independent_columns(spec: ModelSpec) -> None:
    model = trained(spec)
    untrained = build_code_denoiser(LAYOUT, spec)
    independent = np.concatenate([value.detach().numpy().ravel() for value in untrained.parameters()])
    # Three codes that occur together: about 0.15 nats are there to be found.
    gain = held_out_loss(spec, independent, model.anchor) - held_out_loss(spec, model.parameters, model.anchor)
    assert gain > 0.05


def test_the_anchor_holds_the_prevalences_of_each_label_value() -> None:
    dataset = small_dataset(2000)
    model = trained(COUPLED, steps=1)
    for label in (0, 1):
        chosen = dataset.features[dataset.labels == label]
        codes = 1 / (1 + np.exp(-model.anchor[label, :9]))
        group = np.exp(model.anchor[label, 9:])
        assert np.allclose(codes, chosen[:, :9].mean(0), atol=0.03)
        assert np.allclose(group, chosen[:, 9:].mean(0), atol=0.03)
        assert model.label_shares[label] == pytest.approx(len(chosen) / 2000)
    # Code 3 hangs on the label, and this is not smoothed away.
    assert model.anchor[1, 3] - model.anchor[0, 3] > 1.5


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_model() -> None:
    first, again, other = (trained(TOWER, steps=5, seed=seed).parameters for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


def test_the_loss_is_told_while_it_falls() -> None:
    told: list[tuple[int, float]] = []
    trained(MASKED, steps=110, progress=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [20, 40, 60, 80, 100, 110]
    assert told[-1][1] < told[0][1]


def test_half_precision_in_the_network_learns_as_well() -> None:
    exact, reduced = (trained(TOWER, steps=100, precision=precision) for precision in ("float32", "bfloat16"))
    losses = [held_out_loss(TOWER, model.parameters, model.anchor) for model in (exact, reduced)]
    assert losses[0] == pytest.approx(losses[1], abs=0.01)
    assert not np.array_equal(exact.parameters, reduced.parameters)


def test_the_average_of_the_weights_begins_at_once_and_lags_behind() -> None:
    # Of the first step's weights, 0.9 and so on: without an average the last ones are the result.
    last = trained(TOWER, steps=40, ema=0.0).parameters
    averaged = trained(TOWER, steps=40).parameters
    start = np.concatenate(
        [value.detach().numpy().ravel() for value in build_code_denoiser(LAYOUT, TOWER).parameters()]
    )
    assert 0 < np.linalg.norm(averaged - start) < np.linalg.norm(last - start)


def test_few_patients_fill_a_batch_more_than_once() -> None:
    model = pretrain(SCHEMA, small_dataset(5), COUPLED, steps=3, batch_size=16)
    assert np.all(np.isfinite(model.parameters))


@pytest.mark.parametrize(
    ("features", "label"),
    [(np.zeros((3, 11), np.uint8), 0), (np.zeros((3, 12), np.uint8), 2), (np.zeros((0, 12), np.uint8), 0)],
)
def test_data_that_do_not_fit_are_refused(features: NDArray[np.uint8], label: int) -> None:
    count = len(features)
    dataset = PatientDataset(
        features=SparseRows.of(features),
        labels=np.full(count, label),
        patient_ids=[str(number) for number in range(count)],
    )
    with pytest.raises(DataError):
        pretrain(SCHEMA, dataset, COUPLED, steps=1)


def test_a_training_that_explodes_says_so() -> None:
    with pytest.raises(ConfigurationError, match="Lower the learning rate"):
        trained(TOWER, steps=60, learning_rate=1e30)
