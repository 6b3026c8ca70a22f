"""What is done with bfloat16 numbers on a GPU, played on the CPU: products of bfloat16 numbers are exact in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.private_step import models
from synclave_client.performance import Performance
from synclave_client.training.private import factors, norms, self_test
from synclave_client.training.private.batch import PatientRows, PatientWeights
from synclave_client.training.private.factors import Outer


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    def product(left: Tensor, right: Tensor) -> Tensor:
        assert left.dtype == right.dtype
        return torch.bmm(left.float(), right.float())

    monkeypatch.setattr(norms, "_on_gpu", lambda _: True)
    monkeypatch.setattr(norms, "product", product)
    monkeypatch.setattr(factors, "product", product)


@pytest.mark.parametrize(("places", "inner", "outer"), [(1, 40, 30), (9, 300, 200), (40, 700, 130), (200, 24, 16)])
def test_bfloat16_factors_have_the_norms_and_sums_of_their_gradients(places: int, inner: int, outer: int) -> None:
    torch.manual_seed(0)
    patients = 5
    x = torch.randn(patients, places, inner).bfloat16()
    g = (torch.randn(patients, places, outer) * torch.logspace(-6, 6, patients)[:, None, None]).bfloat16()
    rows = PatientRows(patients=patients, patient_of_row=None)
    outer_factor = Outer(rows=rows, x=x.clone(), g=g.clone(), ours=True)
    true = torch.einsum("bto,bti->boi", g.double(), x.double())
    lengths = true.flatten(1).norm(dim=1)
    found = outer_factor.norms()
    assert torch.allclose(found.squared.double().sqrt(), lengths, rtol=1e-5)
    # A patient of no weight brings nothing, whatever is in its rows.
    weights = torch.rand(patients) / lengths.float()
    weights[1] = 0.0
    outer_factor.x[1] = torch.nan
    total = torch.full((outer, inner), 7.0)
    outer_factor.put_weighted(PatientWeights.of(weights, rows, torch.float32), total, keep=0)
    expected = torch.einsum("b,boi->oi", weights.double(), true)
    assert float((total - expected).norm() / expected.norm()) < 1e-6


def test_gram_matrices_in_pieces_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    for kind in (torch.float32, torch.bfloat16):
        values = torch.randn(3, 150, 333).to(kind)
        whole = values.double() @ values.double().mT
        assert torch.allclose(norms.gram(values).double(), whole, atol=1e-3)


@pytest.mark.parametrize("name", ["series_transformer", "unet", "bert_masked_positions", "bert_lora"])
def test_a_network_in_bfloat16_passes_the_self_test(name: str) -> None:
    torch.manual_seed(0)
    sizes = {
        "series_transformer": {"patients": 5, "places": 6, "width": 16},
        "unet": {"patients": 5, "places": 8, "base": 8},
    }
    small = {"rows": 5, "places": 140, "vocabulary": 40, "width": 64, "layers": 1}
    work = getattr(models, name)(**sizes.get(name, small))
    report = self_test(work.network, work.loss, work.batch, Performance(precision="bfloat16"))
    assert report.sum_deviation < 5e-2
