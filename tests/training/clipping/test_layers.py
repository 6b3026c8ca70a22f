"""Every layer that has a rule, over shapes, rows per patient and types, against one backward pass per patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from bench.private_step.models import Rows
from synclave_client.performance import Performance
from synclave_client.training.private import PatientGradients, engine, norms
from synclave_client.training.private.book_keeping import SMALLEST_SHARE
from synclave_client.training.private.rules import LAYER_RULES
from synclave_shared.errors import ClippingError
from synclave_shared.models.coupling import SymmetricCoupling
from tests.training.clipping.slow_truth import clipped_sum, deviation, rows, squared_outputs, true_gradients

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes that a layer is tried with."""

    owners: list[int] | None
    count: int
    places: int
    inputs: int
    outputs: int
    bias: bool
    dtype: torch.dtype
    seed: int


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    patients = draw(st.integers(1, 5))
    several = draw(st.booleans())
    owners = [i for i in range(patients) for _ in range(draw(st.integers(1, 3)))] if several else None
    return Shape(
        owners=owners,
        count=patients if owners is None else len(owners),
        places=draw(st.integers(1, 7)),
        # Two at least: a single number may cancel over places, which float32 cannot hold to five digits.
        inputs=draw(st.integers(2, 9)),
        outputs=draw(st.integers(2, 9)),
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        seed=draw(st.integers(0, 2**31)),
    )


def linear(shape: Shape) -> tuple[nn.Module, Tensor]:
    return nn.Linear(shape.inputs, shape.outputs, bias=shape.bias), torch.randn(shape.count, shape.places, shape.inputs)


def linear_of_vectors(shape: Shape) -> tuple[nn.Module, Tensor]:
    return nn.Linear(shape.inputs, shape.outputs, bias=shape.bias), torch.randn(shape.count, shape.inputs)


def linear_of_grids(shape: Shape) -> tuple[nn.Module, Tensor]:
    return nn.Linear(shape.inputs, shape.outputs), torch.randn(shape.count, 2, shape.places, shape.inputs)


def embedding(shape: Shape) -> tuple[nn.Module, Tensor]:
    padding = 0 if shape.bias else None
    return nn.Embedding(shape.inputs + 1, shape.outputs, padding_idx=padding), torch.randint(
        0, shape.inputs + 1, (shape.count, shape.places)
    )


def convolution(shape: Shape) -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(shape.seed)
    pick = lambda *options: options[int(torch.randint(len(options), (), generator=generator))]  # noqa: E731
    groups, kernel = pick(1, 1, 2), pick(1, 2, 3)
    stride = pick(1, 2)
    padding: Any = pick(0, 1, "same") if stride == 1 else pick(0, 1)
    layer = nn.Conv1d(
        groups * shape.inputs,
        groups * shape.outputs,
        kernel,
        stride=stride,
        padding=padding,
        dilation=pick(1, 2),
        groups=groups,
        bias=shape.bias,
    )
    return layer, torch.randn(shape.count, groups * shape.inputs, shape.places + 5)


def layer_norm(shape: Shape) -> tuple[nn.Module, Tensor]:
    over: Any = (shape.places, shape.inputs + 1) if shape.outputs % 2 else shape.inputs + 1
    return nn.LayerNorm(over, bias=shape.bias), torch.randn(shape.count, shape.places, shape.inputs + 1)


def rms_norm(shape: Shape) -> tuple[nn.Module, Tensor]:
    return nn.RMSNorm(shape.inputs, eps=1e-5 if shape.bias else None), torch.randn(
        shape.count, shape.places, shape.inputs
    )


def group_norm(shape: Shape) -> tuple[nn.Module, Tensor]:
    channels = 2 * shape.inputs
    return nn.GroupNorm(2 if shape.bias else 1, channels), torch.randn(shape.count, channels, shape.places + 1)


def coupling(shape: Shape) -> tuple[nn.Module, Tensor]:
    return SymmetricCoupling(shape.inputs), torch.randn(shape.count, shape.places, shape.inputs)


LAYERS = [
    *(linear, linear_of_vectors, linear_of_grids, embedding, convolution, layer_norm, rms_norm, group_norm, coupling)
]


def test_every_rule_is_tried() -> None:
    shape = Shape(owners=None, count=2, places=2, inputs=2, outputs=2, bias=True, dtype=torch.float32, seed=0)
    assert {type(make(shape)[0]) for make in LAYERS} == set(LAYER_RULES)


def made(make: Callable[[Shape], tuple[nn.Module, Tensor]], shape: Shape) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(shape.seed)
    layer, x = make(shape)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    layer = layer.to(shape.dtype)
    return layer, x.to(shape.dtype) if x.is_floating_point() else x


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("make", LAYERS)
@given(shape=shapes(), share=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_clipped_sums_are_those_of_one_backward_pass_per_patient(
    make: Callable[[Shape], tuple[nn.Module, Tensor]], shape: Shape, share: float
) -> None:
    layer, x = made(make, shape)
    # A nonlinear end, so that output gradients differ between places.
    loss = lambda network, batch: batch.mean_over_rows(functional.softplus(network(batch.x)).square().flatten(1).sum(1))  # noqa: E731
    tolerance = TOLERANCE[torch.float32 if make is coupling else shape.dtype]
    assert deviation(layer, loss, rows(x, shape.owners), share=share) <= tolerance


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("clipping", ["hooks", "ghost"])
def test_opacus_engines_come_to_the_same_sum(make: Callable[[Shape], tuple[nn.Module, Tensor]], clipping: Any) -> None:
    shape = Shape(owners=None, count=4, places=3, inputs=4, outputs=5, bias=True, dtype=torch.float32, seed=1)
    layer, x = made(make, shape)
    if make in (linear_of_grids, coupling) and clipping == "ghost":
        # Opacus' ghost norms know two and three axes only, and ghost sums are float32.
        with pytest.raises(ClippingError):
            deviation(layer, squared_outputs, rows(x), Performance(clipping="ghost"))
        return
    if make is layer_norm:
        layer, x = nn.LayerNorm(5), torch.randn(4, 3, 5)
    if make is embedding:
        layer = nn.Embedding(5, 5)
    assert deviation(layer, squared_outputs, rows(x), Performance(clipping=clipping)) <= 1e-5


@pytest.mark.parametrize("make", LAYERS)
def test_hooks_fold_several_rows_into_one_patient(make: Callable[[Shape], tuple[nn.Module, Tensor]]) -> None:
    owners = [0, 0, 1, 2, 2, 2]
    shape = Shape(owners=owners, count=6, places=3, inputs=4, outputs=5, bias=True, dtype=torch.float32, seed=2)
    layer, x = made(make, shape)
    if make is embedding:
        layer = nn.Embedding(5, 5)
    assert deviation(layer, squared_outputs, rows(x, owners), Performance(clipping="hooks")) <= 1e-5


@pytest.mark.parametrize("make", LAYERS)
def test_bfloat16_passes_stay_near_the_slow_truth(make: Callable[[Shape], tuple[nn.Module, Tensor]]) -> None:
    """Norms and sums are formed in float32; what differs is that bfloat16 products round in another order."""
    owners = [0, 1, 1, 2]
    shape = Shape(owners=owners, count=4, places=4, inputs=6, outputs=5, bias=True, dtype=torch.float32, seed=3)
    layer, x = made(make, shape)
    loss = lambda network, batch: squared_outputs(lambda x: network(x).float(), batch)  # noqa: E731
    assert deviation(layer, loss, rows(x, owners), Performance(precision="bfloat16")) <= 2e-2


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("clipping", ["book-keeping", "hooks", "ghost"])
def test_no_patient_gives_zeros(make: Callable[[Shape], tuple[nn.Module, Tensor]], clipping: Any) -> None:
    if make is coupling and clipping == "ghost":
        clipping = "hooks"
    shape = Shape(owners=None, count=3, places=2, inputs=3, outputs=3, bias=True, dtype=torch.float32, seed=4)
    layer, x = made(make, shape)
    performance = Performance(clipping=clipping)
    if make is embedding:
        layer = nn.Embedding(5, 5)
    empty = rows(x).select(torch.zeros(0, dtype=torch.int64))
    assert not clipped_sum(layer, squared_outputs, [], 1.0, performance).any()
    assert not clipped_sum(layer, squared_outputs, [empty], 1.0, performance).any()


@pytest.mark.parametrize("make", [linear, convolution])
def test_both_ways_to_take_norms_agree(
    make: Callable[[Shape], tuple[nn.Module, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few places: Gram matrices; many: gradients of some patients at a time. Chunks of one patient as well."""
    for places in (2, 40):
        for chunk in (1, 2**20):
            monkeypatch.setattr(norms, "CHUNK_VALUES", chunk)
            owners = [0, 0, 1, 2, 3, 3]
            shape = Shape(
                owners=owners, count=6, places=places, inputs=9, outputs=7, bias=True, dtype=torch.float32, seed=5
            )
            layer, x = made(make, shape)
            assert deviation(layer, squared_outputs, rows(x, owners)) <= 1e-5


def test_a_patient_without_rows_contributes_nothing() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2), torch.randn(4, 5, 3)
    with_gap = clipped_sum(layer, squared_outputs, [rows(x, [0, 0, 2, 2], patients=4)], 0.5)
    without = clipped_sum(layer, squared_outputs, [rows(x, [0, 0, 1, 1])], 0.5)
    assert torch.allclose(with_gap, without)
    assert with_gap.any()


def test_padding_patients_contribute_nothing() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2), torch.randn(4, 5, 3)
    batch = rows(x)
    batch.present[1:3] = False
    expected = clipped_sum(layer, squared_outputs, [rows(x[[0, 3]])], 0.5)
    assert torch.allclose(clipped_sum(layer, squared_outputs, [batch], 0.5), expected, atol=1e-6)


@pytest.mark.parametrize("owners", [[1, 0], [0, 5], [-1, 0]])
def test_rows_in_disorder_are_refused(owners: list[int]) -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="ascending"):
        clipped_sum(layer, squared_outputs, [rows(torch.randn(2, 3), owners, patients=2)], 1.0)


def test_any_number_of_tiles_gives_the_sum_of_all_patients() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.LayerNorm(4))
    x = torch.randn(23, 6)
    whole = clipped_sum(layer, squared_outputs, [rows(x)], 0.3)
    pieces = clipped_sum(layer, squared_outputs, [rows(part) for part in x.split(4)], 0.3)
    assert torch.allclose(whole, pieces, atol=1e-5)
    assert whole.norm() > 1


def test_norms_are_exact_for_very_many_places() -> None:
    """Long histories: the bound must not grow with the number of places, only the norm may."""
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(24, 16), torch.randn(3, 4096, 24)),
        (nn.Embedding(50, 16), torch.randint(0, 50, (3, 4096))),
        (nn.Conv1d(6, 8, 3), torch.randn(3, 6, 2048)),
    ):
        batch = rows(x)
        truth = torch.stack([own.norm() for own in true_gradients(layer, squared_outputs, batch)])
        bounds = PatientGradients(layer, squared_outputs, 1.0).norm_bounds(batch)
        assert float((bounds / truth - 1).abs().max()) < 1e-4


def test_a_bound_is_at_least_its_share_of_what_cancels() -> None:
    """Tokens that cancel to a millionth: a weight by the norm alone would blow their terms up a million times."""
    x = torch.ones(2, 4, 2)
    pulls = torch.tensor([1.0, -1.0, 1.0, -1.0 + 1e-6])[None, :, None].expand(2, 4, 2)
    layer = nn.Linear(2, 2, bias=False)
    loss = lambda network, batch: (network(batch.x) * pulls).flatten(1).sum(1)  # noqa: E731
    bounds = PatientGradients(layer, loss, 1.0).norm_bounds(rows(x))
    reach = 4 * 2.0
    assert float(bounds.min()) >= SMALLEST_SHARE * reach * 0.999


def test_the_sum_of_many_patients_is_put_aside_in_float64() -> None:
    layer, x = nn.Linear(1, 1, bias=False), torch.ones(engine.PATIENTS_IN_A_ROW // 2, 1)
    nn.init.constant_(layer.weight, 0.25)  # Sums of such gradients are exact in float32.
    gradients = PatientGradients(layer, squared_outputs, 1.0)
    assert gradients.clipped_sum([rows(x)] * 2).dtype == torch.float32
    assert gradients.clipped_sum([rows(x)] * 3).dtype == torch.float64
    once = gradients.clipped_sum([rows(x)]).double().clone()
    assert torch.allclose(gradients.clipped_sum([rows(x)] * 5), 5 * once, rtol=1e-6)


def test_more_patients_than_the_proof_covers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_PATIENTS", 10)
    gradients = PatientGradients(nn.Linear(1, 1), squared_outputs, 1.0)
    gradients.clipped_sum([rows(torch.ones(5, 1))] * 2)
    with pytest.raises(ClippingError, match="at most 10 patients"):
        gradients.clipped_sum([rows(torch.ones(5, 1))] * 3)


def test_patients_without_any_row_give_zeros() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    batch = Rows(x=torch.zeros(0, 3), y=torch.zeros(0), present=torch.ones(4, dtype=torch.bool), patient_of_row=none)
    assert not clipped_sum(nn.Linear(3, 2), squared_outputs, [batch], 1.0).any()
