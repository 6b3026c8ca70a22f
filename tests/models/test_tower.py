from typing import Any

import pytest
import torch

from synclave_shared.diffusion.preconditioning import posterior_logits, prior_logits
from synclave_shared.models.codes import build_code_denoiser, most_prevalent
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.tower import LevelFeatures, ResidualTower, smooth_gate
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT

SPEC = ModelSpec(width=16, blocks=2)


def test_the_untrained_network_is_public_everywhere_the_same_and_corrects_nothing() -> None:
    torch.manual_seed(1)
    first = build_code_denoiser(LAYOUT, SPEC)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1)), "building a network must not touch the caller's random numbers"
    assert (parameter_vector(first) == parameter_vector(build_code_denoiser(LAYOUT, SPEC))).all()
    prior = prior_logits(torch.randn(2, 12), LAYOUT)
    found = first(torch.randn(3, 2, 12), torch.rand(3, 2), torch.tensor([0, 1, 2]), prior)
    assert torch.equal(found, torch.zeros(3, 2, 12))


def test_the_levels_features_are_a_partition_and_distinct_over_the_range() -> None:
    features = LevelFeatures()
    visible = torch.tensor([0.0, 1e-6, 1 / (1 + 25.0), 0.5, 1 / 1.09, 1.0])
    found = features(visible)
    assert torch.allclose(found.sum(-1), torch.ones(6))
    assert torch.equal(found[0], found[1]), "below the range nothing is told apart"
    assert all(not torch.allclose(found[i], found[j]) for i in range(2, 6) for j in range(1, i))


def test_a_row_is_its_patients_own() -> None:
    tower = ResidualTower(12, 2, 16, 2)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.normal_(std=0.3)
    evidence, visible, labels = torch.randn(5, 3, 12), torch.rand(5, 3), torch.tensor([0, 1, 2, 1, 0])
    whole = tower(evidence, visible, labels)
    assert torch.allclose(tower(evidence[2:4], visible[2:4], labels[2:4]), whole[2:4], atol=1e-5)
    assert not torch.allclose(tower(evidence, visible, labels.roll(1)), whole, atol=1e-2), "labels matter"
    assert not torch.allclose(tower(evidence, visible / 2, labels), whole, atol=1e-2), "levels matter"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"width": 16},
        {"width": 7, "blocks": 3, "coupled_columns": 0},
        {"width": 5, "blocks": 1, "coupled_columns": 4},
    ],
)
def test_the_number_of_parameters_is_known_without_torch(spec: dict[str, Any]) -> None:
    found = ModelSpec.model_validate(spec)
    assert found.parameter_count(12, 2) == parameter_vector(build_code_denoiser(LAYOUT, found)).size


def test_far_below_zero_the_gate_has_no_slope_and_no_nan() -> None:
    values = torch.tensor([-300.0, -100.0, -88.0, -1.0, 0.0, 50.0]).requires_grad_()
    smooth_gate(values).sum().backward()
    other = values.detach().clone().requires_grad_()
    torch.nn.functional.silu(other).sum().backward()
    assert values.grad is not None
    assert other.grad is not None
    assert torch.allclose(values.grad, other.grad, atol=1e-6)


def test_only_the_most_prevalent_columns_are_coupled_where_there_are_more() -> None:
    layout = CodeLayout(width=6, categories=(), label_values=2)
    anchor = torch.tensor([[-1.0, -5.0, 0.0, -4.0, -3.0, -9.0], [-6.0, -5.0, 0.0, -4.0, 1.0, -9.0]])
    prior = prior_logits(anchor, layout)
    assert most_prevalent(prior, 3).tolist() == [0, 2, 4]
    network = build_code_denoiser(layout, ModelSpec(coupled_columns=3))
    assert network.coupling is not None
    assert network.coupling.width == 3
    with torch.no_grad():
        network.coupling.weight.fill_(1.0)
    found = network(torch.ones(1, 1, 6), torch.rand(1, 1), torch.tensor([0]), prior)[0, 0]
    assert (found != 0).nonzero().flatten().tolist() == [0, 2, 4]


def test_what_is_known_decides_alone_and_what_is_hidden_is_the_prior() -> None:
    """Masked diffusion: infinite sigma; an untrained network knows no correlations."""
    prior = prior_logits(torch.randn(2, 12), LAYOUT)
    known = torch.zeros(4, 1, 12, dtype=torch.bool)
    known[..., :5] = True
    x = torch.zeros(4, 1, 12)
    labels = torch.tensor([0, 1, 2, 0])
    nothing = torch.full((4, 1), torch.inf)
    network = build_code_denoiser(LAYOUT, SPEC)
    found = posterior_logits(network, x, nothing, labels, prior, LAYOUT, known)
    assert torch.allclose(found[:, 0, :9], prior[labels][:, :9])
    with torch.no_grad():
        assert network.tower is not None
        network.tower.write.weight.normal_()
    before = posterior_logits(network, x, nothing, labels, prior, LAYOUT, known)
    after = posterior_logits(network, x + known.float(), nothing, labels, prior, LAYOUT, known)
    assert not torch.allclose(before, after), "known values are evidence for all others"
    hidden = posterior_logits(network, x + 7.0 * (~known).float(), nothing, labels, prior, LAYOUT, known)
    assert torch.equal(before, hidden), "what stands in a hidden place is not looked at"
