"""What cannot be clipped per patient is refused, by a name that leads to it, and never silently wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from bench.private_step.models import Rows
from synclave_client.performance import Performance
from synclave_client.training.private import PatientGradients, check_network, self_test
from synclave_shared.errors import ClippingError
from tests.training.clipping.slow_truth import clipped_sum, deviation, squared_outputs
from tests.training.clipping.unusual import (
    EITHER_ROWS,
    EVERY_ENGINE,
    Unfolded,
    assert_untouched,
    inputs,
    numbers,
    required_by,
    two_layers,
)

# Weights that are borrowed.


class Borrowed(nn.Module):
    """The table decodes too, behind the engine's back."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(9, 6), nn.Linear(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        return functional.linear(torch.tanh(self.inner(self.embedding(ids))), self.embedding.weight)


class ConvolutionAndLinear(nn.Module):
    """One parameter, a convolution's weight [p, d, 1] and, without its last axis, a bare matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(8, 8, 1)
        self.bare = Bare(self.convolution.weight)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.bare(torch.tanh(self.convolution(x.mT).mT))
        return found


class Bare(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight[..., 0])


class NeverCalled(nn.Module):
    """Holds its parameters in a module whose forward is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward(x)


@pytest.mark.parametrize(
    ("make", "batch", "name"),
    [
        (Borrowed, numbers(9, 5), r"embedding\.weight"),
        (NeverCalled, inputs(5, 8), r"inner\.weight, inner\.bias"),
        (ConvolutionAndLinear, inputs(5, 8), r"convolution\.weight"),
    ],
)
def test_a_weight_used_outside_its_layer_is_refused_and_leaves_nothing(
    make: Callable[[], nn.Module], batch: Rows, name: str
) -> None:
    network = make()
    before = required_by(network)
    gradients = PatientGradients(network, squared_outputs, 1.0)
    total = gradients.clipped_sum([])
    with pytest.raises(ClippingError, match=name):
        gradients.clipped_sum([batch])
    assert not total.any()
    assert_untouched(network, before)


@pytest.mark.parametrize("clipping", ["hooks", "ghost"])
def test_opacus_with_a_borrowed_weight_is_stopped_by_the_self_test(clipping: Any) -> None:
    """Its own sums are silently wrong there: the reason why a site proves its clipping before it opens its data."""
    torch.manual_seed(0)
    performance = Performance(clipping=clipping)
    assert deviation(Borrowed(), squared_outputs, numbers(9, 5), performance) > 1e-3
    with pytest.raises(ClippingError):
        self_test(Borrowed(), squared_outputs, numbers(9, 5), performance)


# Losses that mix patients.


def batch_mean(network: Any, batch: Rows) -> Tensor:
    return squared_outputs(network, batch).mean()


def own_and_mean(network: Any, batch: Rows) -> Tensor:
    own = squared_outputs(network, batch)
    return own + own.mean()


def share_of_the_mean(network: Any, batch: Rows) -> Tensor:
    return squared_outputs(network, batch) / len(batch)


def against_the_next(network: Any, batch: Rows) -> Tensor:
    """Contrastive: each patient against the one after it."""
    found = network(batch.x).flatten(1)
    return (found - found.roll(-1, 0)).square().sum(1)


@EVERY_ENGINE
def test_a_loss_that_is_one_number_is_refused_at_once(clipping: Any) -> None:
    network = two_layers()
    before = required_by(network)
    with pytest.raises(ClippingError, match="one value per patient"):
        clipped_sum(network, batch_mean, [inputs(8)], 1.0, Performance(clipping=clipping))
    assert_untouched(network, before)


@EVERY_ENGINE
@pytest.mark.parametrize("loss", [own_and_mean, share_of_the_mean, against_the_next])
def test_losses_that_hold_something_of_others_are_refused_by_the_self_test(loss: Any, clipping: Any) -> None:
    with pytest.raises(ClippingError, match="the loss"):
        self_test(two_layers(), loss, inputs(8), Performance(clipping=clipping))
    self_test(two_layers(), squared_outputs, inputs(8), Performance(clipping=clipping))


# Layers that nobody can clip.


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(3),
    "BatchNorm1d without parameters": lambda: nn.BatchNorm1d(3, affine=False),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(3),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(4, 2, 4),
    "GRU": lambda: nn.GRU(3, 3),
    "LSTM": lambda: nn.LSTM(3, 3),
    "GRUCell": lambda: nn.GRUCell(3, 3),
    "Conv2d": lambda: nn.Conv2d(3, 3, 1),
    "Bilinear": lambda: nn.Bilinear(3, 3, 3),
    "EmbeddingBag": lambda: nn.EmbeddingBag(3, 3),
    "PReLU": lambda: nn.PReLU(),
    "circular": lambda: nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular"),
    "max_norm": lambda: nn.Embedding(3, 3, max_norm=1.0),
    "scale_grad_by_freq": lambda: nn.Embedding(3, 3, scale_grad_by_freq=True),
    "sparse": lambda: nn.Embedding(3, 3, sparse=True),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(3, 3)),
    "parameter list": lambda: nn.ParameterList([nn.Parameter(torch.zeros(3))]),
    "LazyLinear": lambda: nn.LazyLinear(3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_cannot_be_clipped_are_refused_by_name_at_construction(name: str) -> None:
    network = nn.ModuleDict({"good": nn.Linear(3, 3), "the_bad_one": REFUSED[name]()})
    with pytest.raises(ClippingError, match="the_bad_one") as refused:
        PatientGradients(network, squared_outputs, 1.0)
    assert "good" not in refused.value.found
    check_network(nn.ModuleDict({"good": nn.Linear(3, 3)}))


def test_all_faults_are_named_in_one_error() -> None:
    bad = {f"bad_{number}": make() for number, make in enumerate(REFUSED.values())}
    with pytest.raises(ClippingError) as refused:
        check_network(nn.ModuleDict({"good": nn.Linear(3, 3), **bad}))
    assert [name for name in bad if name not in refused.value.found] == []


@pytest.mark.parametrize("freeze", [True, False])
def test_a_network_with_nothing_to_train_is_refused(freeze: bool) -> None:
    network = nn.Linear(3, 3).requires_grad_(not freeze) if freeze else nn.Tanh()
    with pytest.raises(ClippingError, match="nothing to train"):
        check_network(network)


# Networks that mix patients.


class HandMadeBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (1 + x.std(0, correction=0)) * self.scale


class BatchCentred(nn.Module):
    """A bare bias, and the batch's mean taken off."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True) + self.bias


class AcrossPatients(nn.Module):
    """Attention whose softmax goes over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.query(x) @ self.key(x).mT, dim=0) @ x


class FromThoseBefore(nn.Module):
    """The first patient sees nobody; each other sees all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x + 0.1 * x.cumsum(0))
        return found


@EITHER_ROWS
@pytest.mark.parametrize("make", [HandMadeBatchNorm, BatchCentred, AcrossPatients])
def test_a_module_that_mixes_patients_is_refused_by_name(make: type[nn.Module], owners: list[int] | None) -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"inner": nn.Linear(8, 8), "mixer": make(), "outer": nn.Linear(8, 2)})
    loss = lambda model, batch: squared_outputs(  # noqa: E731
        lambda x: model["outer"](model["mixer"](model["inner"](x))), batch
    )
    batch = inputs(8, owners=owners) if make is not AcrossPatients else inputs(5, 8, owners=owners)
    with pytest.raises(ClippingError, match="mixer"):
        self_test(network, loss, batch)


@EITHER_ROWS
def test_mixing_that_spares_the_first_patient_is_refused(owners: list[int] | None) -> None:
    torch.manual_seed(0)
    with pytest.raises(ClippingError, match=r"patients are mixed|change with the other patients"):
        self_test(FromThoseBefore(), squared_outputs, inputs(8, owners=owners))


class PlaceMajor(Unfolded):
    """Rows [K B, D]: the patients' levels are interleaved."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


class PlacesWithoutRows(nn.Module):
    """Position numbers [T]: where T is a multiple of the rows, each place would pass for a patient's."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.table, self.out, self.places = nn.Embedding(places, 8), nn.Linear(8, 3), places

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(x + self.table(torch.arange(self.places))))
        return found


@EITHER_ROWS
def test_rows_unfolded_with_the_places_first_are_refused_by_the_self_test(owners: list[int] | None) -> None:
    torch.manual_seed(0)
    with pytest.raises(ClippingError):
        self_test(PlaceMajor(), squared_outputs, inputs(5, 8, owners=owners))


@pytest.mark.parametrize("places", [5, 7, 14])
def test_a_layer_that_sees_no_rows_is_refused_by_the_self_test_whatever_the_sizes(places: int) -> None:
    torch.manual_seed(0)
    with pytest.raises(ClippingError):
        self_test(PlacesWithoutRows(places), squared_outputs, inputs(places, 8))
