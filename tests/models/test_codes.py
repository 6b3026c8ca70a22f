import numpy as np
import pytest
import torch

from synclave_shared.diffusion.preconditioning import posterior_logits, posterior_mean, prior_logits
from synclave_shared.errors import SnapshotError
from synclave_shared.models.codes import (
    anchor_size,
    build_code_denoiser,
    model_payload_size,
    parameter_count,
    split_payload,
)
from synclave_shared.models.coupling import SymmetricCoupling
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_schema


def test_the_vector_has_the_stated_size_and_survives_a_round_trip() -> None:
    model = build_code_denoiser(LAYOUT, ModelSpec())
    vector = parameter_vector(model)
    assert vector.size == parameter_count(small_schema(), ModelSpec())
    changed = np.random.default_rng(0).normal(size=vector.size).astype(np.float32)
    load_parameter_vector(model, changed)
    assert np.array_equal(parameter_vector(model), changed)


@pytest.mark.parametrize("fault", ["short", "long", "nan", "matrix"])
def test_a_bad_vector_is_refused_and_the_model_unchanged(fault: str) -> None:
    model = build_code_denoiser(LAYOUT, ModelSpec())
    before = parameter_vector(model)
    bad = {
        "short": before[:-1] + 1,
        "long": np.append(before, 0).astype(np.float32),
        "nan": np.full_like(before, np.nan),
        "matrix": before[None] + 1,
    }[fault]
    with pytest.raises(SnapshotError):
        load_parameter_vector(model, bad)
    assert np.array_equal(parameter_vector(model), before)


def test_the_payload_is_parameters_then_anchor() -> None:
    schema = small_schema()
    size = model_payload_size(schema, ModelSpec())
    payload = np.arange(size, dtype=np.float32)
    parameters, anchor = split_payload(payload, schema, ModelSpec())
    assert anchor.shape == (2, 12)
    assert np.array_equal(np.concatenate([parameters, anchor.ravel()]), payload)
    assert size == parameter_count(schema, ModelSpec()) + anchor_size(schema)
    with pytest.raises(SnapshotError):
        split_payload(payload[:-1], schema, ModelSpec())


def test_a_coupling_is_symmetric_and_uses_every_parameter() -> None:
    coupling = SymmetricCoupling(5)
    with torch.no_grad():
        coupling.weight.copy_(torch.arange(1.0, 16.0))
    matrix = coupling.matrix()
    assert torch.equal(matrix, matrix.T)
    assert sorted(matrix.triu()[matrix.triu() != 0].tolist()) == list(range(1, 16))


def test_the_untrained_model_is_the_exact_posterior_of_independent_columns() -> None:
    """Against Bayes' rule written out with Gaussian densities."""
    generator = torch.Generator().manual_seed(3)
    anchor = torch.randn(2, 12, generator=generator)
    prior = prior_logits(anchor, LAYOUT)
    x = torch.randn(4, 3, 12, generator=generator)
    sigma = torch.tensor([0.4, 1.0, 3.0]).expand(4, 3)
    labels = torch.tensor([0, 1, 0, 1])
    logits = posterior_logits(build_code_denoiser(LAYOUT, ModelSpec()), x, sigma, labels, prior, LAYOUT)
    found = posterior_mean(logits, LAYOUT).double()

    prevalence = posterior_mean(prior, LAYOUT)[labels][:, None].double()
    at_one = torch.exp(-0.5 * ((x.double() - 1) / sigma[..., None]) ** 2)
    at_zero = torch.exp(-0.5 * (x.double() / sigma[..., None]) ** 2)
    codes = prevalence * at_one / (prevalence * at_one + (1 - prevalence) * at_zero)
    group = prevalence[..., 9:12] * at_one[..., 9:12] / at_zero[..., 9:12]
    assert torch.allclose(found[..., :9], codes[..., :9], atol=1e-6)
    assert torch.allclose(found[..., 9:12], group / group.sum(-1, keepdim=True), atol=1e-6)


def test_the_hidden_label_has_the_even_mixture() -> None:
    anchor = torch.randn(2, 12, generator=torch.Generator().manual_seed(1))
    prior = prior_logits(anchor, LAYOUT)
    prevalence = posterior_mean(prior, LAYOUT)
    assert torch.allclose(prevalence[2], prevalence[:2].mean(0), atol=1e-6)


@pytest.mark.parametrize("categories", [((0, 3), (2, 5)), ((3, 3),), ((10, 13),)])
def test_an_impossible_layout_is_refused(categories: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="one-hot group"):
        CodeLayout(width=12, categories=categories, label_values=2)


@pytest.mark.parametrize("categories", [(), ((0, 3),), ((2, 4), (4, 7)), ((9, 12),)])
def test_pieces_cover_every_column_once(categories: tuple[tuple[int, int], ...]) -> None:
    layout = CodeLayout(width=12, categories=categories, label_values=2)
    assert sum(size for size, _ in layout.pieces) == 12
    assert sum(size for size, one_hot in layout.pieces if one_hot) == sum(stop - start for start, stop in categories)
