"""The sensitivity of a whole step, measured and not assumed: what one patient can move in the *returned numbers*.

A patient is taken out by its ``present``, in a tile of the same shape. The bound is the clip norm itself, no slack:
the ledger states no other number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from bench.private_step.models import ResidualMlp, Rows, SeriesTransformer, Unet
from synclave_client.performance import Performance
from synclave_client.training.codes import DiffusionLoss
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.private.engine import ROUNDING_MARGIN
from synclave_shared.diffusion.preconditioning import prior_logits
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_rows
from tests.training.clipping.slow_truth import Loss, rows, true_clipped_sum, true_gradients

CLIP_NORMS = [1e-6, 1e-3, 1.0, 1e3]
PATIENTS = 8
OWNERS = [0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7]


def returned(gradients: PatientGradients[Any], batches: list[Any]) -> Tensor:
    """The very numbers, in memory of their own; float64 holds each float32 number exactly."""
    return gradients.clipped_sum(batches).double().clone()


def without(batch: Any, patient: int) -> Any:
    present = batch.present.clone()
    present[patient] = False
    return replace(batch, present=present)


def moved(
    network: nn.Module,
    loss: Any,
    batches: list[Any],
    clip_norm: float,
    patients: list[tuple[int, int]],
    performance: Performance | None = None,
) -> float:
    """How far the sum moves with one patient, over the clip norm: the largest of ``patients`` (tile, number)."""
    gradients = PatientGradients(network, loss, clip_norm, performance)
    whole = returned(gradients, batches)
    assert bool(torch.isfinite(whole).all())
    found = []
    for tile, patient in patients:
        others = [without(batch, patient) if number == tile else batch for number, batch in enumerate(batches)]
        found.append(float((whole - returned(gradients, others)).norm()) / clip_norm)
    return max(found)


def pulled(network: Any, batch: Rows) -> Tensor:
    """A loss whose gradient at the network's output is ``batch.y``, whatever the network says."""
    values = (network(batch.x) * batch.y).flatten(1).sum(1)
    if batch.patient_of_row is None:
        return values
    return torch.zeros(len(batch), dtype=values.dtype).index_add(0, batch.patient_of_row, values)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network, its loss, and one tile of patients."""

    network: nn.Module
    loss: Any
    batch: Any


def squared_error(network: Any, batch: Rows) -> Tensor:
    return batch.mean_over_rows((network(batch.x) - batch.y).square().flatten(1).sum(1))


def of_shape(shape: tuple[int, ...], size: float, several: bool) -> Rows:
    generator = torch.Generator().manual_seed(1)
    count = len(OWNERS) if several else PATIENTS
    x = size * torch.randn(count, *shape, generator=generator)
    # The first is louder than all others together, the second says nothing.
    x[0] *= 100
    x[1] = 0
    return rows(x, OWNERS if several else None, y=torch.randn(x.shape, generator=generator))


def mlp(size: float, several: bool) -> Trained:
    batch = of_shape((13,), size, several)
    return Trained(network=ResidualMlp(12, 16, 2), loss=squared_error, batch=replace(batch, y=batch.y[:, :12]))


def transformer(size: float, several: bool) -> Trained:
    return Trained(
        network=SeriesTransformer(channels=3, width=16, layers=1, places=5),
        loss=squared_error,
        batch=of_shape((5, 3), size, several),
    )


def unet(size: float, several: bool) -> Trained:
    return Trained(network=Unet(channels=3, base=8), loss=squared_error, batch=of_shape((3, 8), size, several))


def bert(size: float, several: bool) -> Trained:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=23,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    count = len(OWNERS) if several else PATIENTS
    ids = torch.randint(1, 23, (count, 6), generator=torch.Generator().manual_seed(1))
    ids[1] = 7  # one word six times over: all its places meet at one entry

    def loss(network: Any, batch: Rows) -> Tensor:
        logits = network(input_ids=batch.x).logits
        return batch.mean_over_rows(size * functional.cross_entropy(logits.mT, batch.y, reduction="none").sum(1))

    return Trained(network=BertForMaskedLM(config), loss=loss, batch=rows(ids, OWNERS if several else None, y=ids))


def codes(size: float, several: bool) -> Trained:
    """Several noise levels are this model's several rows."""
    anchor = torch.randn(2, 12, generator=torch.Generator().manual_seed(2))
    loss = DiffusionLoss(
        spec=ModelSpec(noise_levels=4 if several else 1), layout=LAYOUT, prior=prior_logits(anchor, LAYOUT)
    )
    features, labels = small_rows(PATIENTS, 0)
    streams = PatientStreams(SecretRandomness(bytes(32)))
    batch = loss.draw(
        torch.from_numpy(features).float() * size,
        torch.from_numpy(labels),
        streams,
        0,
        np.arange(PATIENTS, dtype=np.int64),
    )
    return Trained(network=build_code_denoiser(LAYOUT, ModelSpec()), loss=loss, batch=batch)


MAKERS = [mlp, transformer, unet, bert, codes]
SCALES = [1e-3, 1.0, 1e4]
EITHER = [False, True]


@pytest.mark.parametrize(
    ("make", "weight_scale", "several"),
    [
        *((make, scale, several) for make in (mlp, transformer, bert, codes) for scale in SCALES for several in EITHER),
        *((unet, scale, scale != 1) for scale in SCALES),
    ],
)
def test_no_patient_moves_the_sum_of_a_real_network_by_more_than_the_clip_norm(
    make: Callable[[float, bool], Trained], weight_scale: float, several: bool
) -> None:
    torch.manual_seed(0)
    trained = make(1e3 if several else 1.0, several)
    with torch.no_grad():
        for value in trained.network.parameters():
            value.copy_(weight_scale * torch.randn(value.shape))
    for number, clip_norm in enumerate(CLIP_NORMS):
        # The loud patient, and in turn the silent one.
        patients = [(0, 0), (0, 1)] if number % 2 else [(0, 0)]
        assert moved(trained.network, trained.loss, [trained.batch], clip_norm, patients) <= 1


@pytest.mark.parametrize(
    ("make", "clipping"),
    [*((make, "book-keeping") for make in MAKERS), (mlp, "hooks"), (mlp, "ghost"), (unet, "ghost")],
)
def test_a_clipped_patient_moves_the_sum_by_nearly_the_clip_norm(
    make: Callable[[float, bool], Trained], clipping: Any
) -> None:
    """The control: the measure sees a patient, and nothing is clipped to nothing."""
    torch.manual_seed(0)
    trained = make(1.0, False)
    with torch.no_grad():
        for value in trained.network.parameters():
            value.add_(0.1 * torch.randn(value.shape))
    found = moved(trained.network, trained.loss, [trained.batch], 1e-3, [(0, 0)], Performance(clipping=clipping))
    assert 0.99 < found <= 1


KINDS = ["equal and opposite", "nearly opposite", "last bits", "one loud", "random"]


def cancelling(kind: str, values: Tensor, remainder: float, generator: torch.Generator) -> Tensor:
    """Output gradients [R, T, p] of which every second takes back the one before it."""
    g = values.clone()
    if g.shape[1] > 1:
        half = g.shape[1] // 2
        first = g[:, : 2 * half : 2]
        match kind:
            case "equal and opposite":
                g[:, 1 : 2 * half : 2] = -first
            case "nearly opposite":
                g[:, 1 : 2 * half : 2] = -first * (1 - remainder)
            case "last bits":
                g[:, 1 : 2 * half : 2] = -first * (1 + 2.0**-22 * torch.rand(first.shape, generator=generator))
            case "one loud":
                g[:, 1:] *= 1e-4
    if g.shape[1] % 2 and kind != "random":
        g[:, -1] *= 1e-3
    return g


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What reaches a layer, put there by hand."""

    kind: str
    inputs: int
    outputs: int
    places: int
    several: bool
    size: float
    pull: float
    remainder: float
    clip_norm: float
    seed: int


tokens = st.builds(
    Tokens,
    kind=st.sampled_from(KINDS),
    inputs=st.sampled_from([1, 2, 5, 16, 64]),
    outputs=st.sampled_from([1, 3, 8, 64, 256]),
    places=st.sampled_from([1, 2, 3, 8, 33]),
    several=st.booleans(),
    size=st.sampled_from([1e-6, 1.0, 1e3, 1e6]),
    pull=st.sampled_from([1e-6, 1.0, 1e3, 1e6]),
    remainder=st.floats(2.0**-8, 2.0**-5),
    clip_norm=st.sampled_from(CLIP_NORMS),
    seed=st.integers(0, 2**31),
)


def linear_tokens(case: Tokens, generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    """All places of a row have nearly one input: what remains is for the output gradients to cancel."""
    count = len(OWNERS) if case.several else PATIENTS
    x = torch.randn(count, 1, case.inputs, generator=generator).repeat(1, case.places, 1)
    g = torch.randn(count, 1, case.outputs, generator=generator).repeat(1, case.places, 1)
    return nn.Linear(case.inputs, case.outputs), x, g


def embedding_tokens(case: Tokens, generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    count = len(OWNERS) if case.several else PATIENTS
    ids = torch.randint(case.inputs, (count, 1), generator=generator).repeat(1, case.places)
    g = torch.randn(count, 1, case.outputs, generator=generator).repeat(1, case.places, 1)
    return nn.Embedding(case.inputs, case.outputs), ids, g


class PlacesLast(nn.Module):
    """A convolution whose places stand where a linear layer has them: [R, L, d] -> [R, L, p]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.convolution(x.mT).mT
        return found


def convolution_tokens(case: Tokens, generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    _, x, g = linear_tokens(case, generator)
    return PlacesLast(case.inputs, case.outputs, 3 if case.seed % 2 else 1), x, g


class Tied(nn.Module):
    """Embeds and decodes by one table: [R, T] -> [R, T, V]."""

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(entries, width), nn.Linear(width, entries)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.head(self.table(ids))
        return found


def tied_tokens(case: Tokens, generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    _, ids, _ = embedding_tokens(case, generator)
    g = torch.randn(len(ids), 1, case.inputs, generator=generator).repeat(1, case.places, 1)
    return Tied(case.inputs, case.outputs), ids, g


@pytest.mark.parametrize("make", [linear_tokens, convolution_tokens, embedding_tokens, tied_tokens])
@given(case=tokens)
@settings(max_examples=30, deadline=None)
def test_tokens_that_cancel_do_not_smuggle_a_patient_past_the_clip_norm(
    make: Callable[[Tokens, torch.Generator], tuple[nn.Module, Tensor, Tensor]], case: Tokens
) -> None:
    generator = torch.Generator().manual_seed(case.seed)
    torch.manual_seed(case.seed)
    layer, x, g = make(case, generator)
    x = x * case.size if x.is_floating_point() else x
    g = cancelling(case.kind, g * case.pull, case.remainder, generator)
    batch = rows(x, OWNERS if case.several else None, y=g)
    assert moved(layer, pulled, [batch], case.clip_norm, [(0, 0), (0, 1)]) <= 1


@pytest.mark.parametrize("clip_norm", CLIP_NORMS)
@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_a_patients_rows_that_cancel_do_not_smuggle_it_past_the_clip_norm(clip_norm: float, size: float) -> None:
    """Weights, biases, scales: rows [+, -] of one patient leave a few last bits, which are all that is added."""
    torch.manual_seed(1)
    layer = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8))
    owners = [i for i in range(PATIENTS) for _ in range(2)]
    x = size * torch.randn(PATIENTS, 1, 3, 6).repeat(1, 2, 1, 1).flatten(0, 1)
    g = size * torch.randn(PATIENTS, 1, 3, 8).repeat(1, 2, 1, 1).flatten(0, 1)
    for remainder in (0.0, 1e-7, 1e-3, 2.0**-6):
        g[1::2] = -g[::2] * (1 - remainder)
        assert moved(layer, pulled, [rows(x, owners, y=g)], clip_norm, [(0, 0), (0, 1)]) <= 1


@pytest.mark.parametrize(("tile", "places"), [(32, 1), (256, 2), (256, 16)])
def test_many_patients_who_are_clipped_and_aligned_do_not_add_up_to_a_breach(tile: int, places: int) -> None:
    """Rounding grows with the sum, and the sum is largest when thousands of patients say the same."""
    patients = 4096
    torch.manual_seed(0)
    x = (1 + torch.rand(1, 1, 6)).repeat(patients, places, 1)
    g = 100 * (1 + torch.rand(1, 1, 5)).repeat(patients, places, 1)
    g[:, 1::2] *= -(1 - 2.0**-6)
    x *= 1 + 0.01 * torch.rand(patients, 1, 1)
    tiles = [rows(a, y=b) for a, b in zip(x.split(tile), g.split(tile), strict=True)]
    layer = nn.Linear(6, 5)
    found = moved(layer, pulled, tiles, 1.0, [(0, 0), (len(tiles) // 2, 3), (len(tiles) - 1, tile - 1)])
    assert 0.1 < found <= 1


@pytest.mark.parametrize("make", MAKERS)
def test_the_rounding_of_a_sum_is_some_millionth_of_it(make: Callable[[float, bool], Trained]) -> None:
    """Measured, as the engine's docstring says: against the same weights on float64 gradients of each patient."""
    torch.manual_seed(0)
    trained = make(1.0, True)
    with torch.no_grad():
        for value in trained.network.parameters():
            value.add_(0.1 * torch.randn(value.shape))
    assert rounding(trained.network, trained.loss, trained.batch) <= 5e-6


def rounding(network: nn.Module, loss: Loss, batch: Any) -> float:
    if isinstance(batch, Rows):
        truth = true_gradients(network, loss, batch)
    else:
        truth = [
            _gradient(network, loss, batch.select(torch.tensor([patient]))) for patient in range(len(batch.present))
        ]
    clip_norm = float(torch.stack([own.norm() for own in truth]).median())
    gradients = PatientGradients(network, loss, clip_norm)
    bounds = gradients.norm_bounds(batch)
    weights = (clip_norm * (1 - ROUNDING_MARGIN) / bounds).clamp_max(1.0)
    expected = torch.stack([w * own for w, own in zip(weights, truth, strict=True)]).sum(0)
    assert float((true_clipped_sum(truth, clip_norm) - expected).norm()) <= 0.01 * float(expected.norm())
    return float((returned(gradients, [batch]) - expected).norm() / expected.norm())


def _gradient(network: nn.Module, loss: Any, alone: Any) -> Tensor:
    parts = torch.autograd.grad(loss(network, alone).sum(), list(network.parameters()))
    return torch.cat([part.reshape(-1).double() for part in parts])


def underflowing(layer: str, places: int) -> tuple[nn.Module, Rows]:
    """Inputs whose squares are 0 in float32, output gradients whose squares are just not infinite."""
    x, g = torch.full((1, places, 64), 2.5e-23), torch.full((1, places, 64), 1e18)
    made = nn.Linear(64, 64, bias=False) if layer == "linear" else PlacesLast(64, 64, 3, bias=False)
    return made, rows(x, y=g)


@pytest.mark.parametrize(("layer", "places"), [("linear", 1), ("linear", 8), ("convolution", 8)])
@pytest.mark.parametrize("clip_norm", [1e-6, 1e-3])
def test_inputs_so_small_that_their_squares_vanish_are_clipped_too(layer: str, places: int, clip_norm: float) -> None:
    network, batch = underflowing(layer, places)
    assert moved(network, pulled, [batch], clip_norm, [(0, 0)]) <= 1


def test_a_model_with_tiny_first_weights_is_clipped_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 1000, bias=False), nn.Linear(1000, 16, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(2e-24)
        network[1].weight.zero_()

    def loss(network: Any, batch: Rows) -> Tensor:
        return network(batch.x).sum(1) * 1e18

    assert moved(network, loss, [rows(torch.rand(4, 16))], 1e-6, [(0, 0)]) <= 1


@pytest.mark.parametrize(
    ("inputs", "outputs", "places"), [(64, 64, 2), (64, 4096, 2), (256, 4096, 16), (1024, 1024, 64)]
)
def test_constant_inputs_and_pulls_that_nearly_cancel_are_clipped_exactly(
    inputs: int, outputs: int, places: int
) -> None:
    """Float32 products of equal entries all round one way: Gram matrices alone came out 2 % short here. A mean over
    outputs pulls with a constant, so it takes no malice."""
    generator = torch.Generator().manual_seed(0)
    x = (1 + torch.rand(64, 1, 1, generator=generator)).repeat(1, places, inputs)
    g = (1 + torch.rand(64, 1, 1, generator=generator)).repeat(1, places, outputs)
    g[:, 1::2] *= -(1 - 2.0**-6 * (0.7 + 0.6 * torch.rand(64, 1, 1, generator=generator)))
    network = nn.Linear(inputs, outputs, bias=False)
    worst = int(
        (
            x[:, 0].double().norm(dim=1)
            * g.double().sum(1).norm(dim=1)
            / PatientGradients(network, pulled, 1.0).norm_bounds(rows(x, y=g))
        ).argmax()
    )
    assert moved(network, pulled, [rows(x[[worst]], y=g[[worst]])], 1.0, [(0, 0)]) <= 1


class Scale(nn.Module):
    """A bare scale of each column."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(columns))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def test_a_weight_that_float32_can_hardly_hold_does_not_round_up() -> None:
    """Long gradients are measured in float64, so that a norm may reach 3e38; a weight below 1e-38 is denormal."""
    x = torch.zeros(1, 2**16 + 1)
    x[0, 0] = 1
    batch = rows(x, y=torch.full_like(x, 3e38))
    assert moved(Scale(x.shape[1]), pulled, [batch], 1.06e-6, [(0, 0)]) <= 1


def test_a_patient_with_very_many_places_at_one_entry_is_clipped_exactly() -> None:
    """A word of a long history, whose places are added one after another: half pull one way, half nearly back."""
    places, generator = 2**18, torch.Generator().manual_seed(0)
    g = (1 + torch.rand(4, 1, 1, generator=generator)).repeat(1, places, 4)
    g[:, places // 2 :] *= -(1 - 2.0**-6 * (0.7 + 0.6 * torch.rand(4, 1, 1, generator=generator)))
    batch = rows(torch.zeros(4, places, dtype=torch.int64), y=g)
    found = [
        moved(nn.Embedding(8, 4), pulled, [batch.select(torch.tensor([patient]))], 1.0, [(0, 0)])
        for patient in range(4)
    ]
    assert max(found) <= 1
