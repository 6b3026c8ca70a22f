"""Whole networks, those of the benchmark at small size and the project's own, against one backward pass per patient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.private_step import models
from synclave_client.performance import Performance
from synclave_client.training.private import PatientGradients, self_test
from tests.training.clipping.slow_truth import deviation, in_float64

WORKLOADS: dict[str, Callable[[], models.Workload]] = {
    "mlp": lambda: models.mlp(patients=6, columns=11, width=16),
    "mlp with noise levels": lambda: models.mlp(patients=6, levels=3, columns=11, width=16),
    "series transformer": lambda: models.series_transformer(patients=6, places=7, width=16),
    "unet": lambda: models.unet(patients=6, places=12, base=8),
    "bert": lambda: models.bert(rows=6, places=9, vocabulary=40, width=16, layers=2),
    "bert, masked positions": lambda: models.bert_masked_positions(rows=6, places=9, vocabulary=40, width=16, layers=2),
    "bert, lora": lambda: models.bert_lora(rows=6, places=9, vocabulary=40, width=16, layers=2),
}


def workload(name: str, seed: int = 0) -> models.Workload:
    torch.manual_seed(seed)
    work = WORKLOADS[name]()
    with torch.no_grad():
        for parameter in work.network.parameters():
            # Away from the zeros that some layers begin with, where gradients of others vanish.
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return work


def grouped(batch: models.Rows, owners: list[int]) -> models.Rows:
    """The same rows, several of them to a patient."""
    numbers = torch.tensor(owners)
    present = torch.ones(int(numbers.max()) + 1, dtype=torch.bool)
    return dataclasses.replace(batch, present=present, patient_of_row=numbers)


@pytest.mark.parametrize("name", WORKLOADS)
@given(
    seed=st.integers(0, 2**31),
    owners=st.sampled_from([None, [0, 1, 1, 2, 2, 2], [0] * 6, [0, 0, 1, 1, 2, 2]]),
    double=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_clipped_sums_are_those_of_one_backward_pass_per_patient(
    name: str, seed: int, owners: Any, double: bool
) -> None:
    work = workload(name, seed)
    batch = work.batch if owners is None else grouped(work.batch, owners)
    network, tolerance = work.network, 1e-5
    if double:
        network, batch, tolerance = network.double(), in_float64(batch), 1e-11
    assert deviation(network, work.loss, batch) <= tolerance
    assert deviation(network, work.loss, batch.select(torch.tensor([0]))) <= tolerance


@pytest.mark.parametrize("name", WORKLOADS)
def test_bfloat16_passes_stay_near_the_slow_truth(name: str) -> None:
    work = workload(name)
    assert deviation(work.network, work.loss, work.batch, Performance(precision="bfloat16")) <= 5e-2


# The tied head and the position numbers [1, T] of the others are beyond Opacus.
@pytest.mark.parametrize("name", ["mlp", "mlp with noise levels", "series transformer", "unet", "bert"])
@pytest.mark.parametrize("clipping", ["ghost", "hooks"])
def test_opacus_comes_to_the_same_sum_on_what_it_can_clip(name: str, clipping: Any) -> None:
    work = workload(name)
    network = work.opacus_network or work.network
    assert deviation(network, work.loss, work.batch, Performance(clipping=clipping)) <= 1e-5


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_network_passes_the_self_test(name: str) -> None:
    work = workload(name)
    report = self_test(work.network, work.loss, work.batch)
    assert report.sum_deviation < 1e-5
    assert report.norm_deviation < 1e-4
    assert report.parameters == sum(value.numel() for value in work.network.parameters() if value.requires_grad)


def test_masked_positions_give_the_gradients_of_the_stock_head() -> None:
    """Same weights, same loss: leaving the other positions out changes the cost only."""
    torch.manual_seed(0)
    stock = models.bert(rows=5, places=9, vocabulary=40, width=16, layers=1)
    torch.manual_seed(0)
    short = models.bert_masked_positions(rows=5, places=9, vocabulary=40, width=16, layers=1)
    short.network.load_state_dict({f"model.{name}": value for name, value in stock.network.state_dict().items()})
    sums = [
        PatientGradients(work.network, work.loss, 0.5).clipped_sum([stock.batch]).clone() for work in (stock, short)
    ]
    assert torch.allclose(*sums, atol=1e-6)
    assert sums[0].norm() > 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_gpu_comes_to_the_same_sum(name: str, precision: Any) -> None:
    work = workload(name)
    network, batch = work.network.to("cuda"), models.moved(work.batch, torch.device("cuda"))
    report = self_test(network, work.loss, batch, Performance(precision=precision))
    assert report.sum_deviation <= (1e-4 if precision == "float32" else 5e-2)
