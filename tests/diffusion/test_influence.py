"""Guidance by a clinical model: the difference of losses is the product of gradients, and its direction raises it."""

import pytest
import torch
from torch import Tensor, nn

from synclave_shared.diffusion.influence import Influence, class_direction, unit_direction
from synclave_shared.models.parameters import parameter_vector


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 2))


def dot_products(rows: Tensor, labels: Tensor, guidance: Tensor) -> Tensor:
    """Slow truth: every patient's own gradient, times the guidance vector."""
    network, found = build(), []
    for row, label in zip(rows, labels, strict=True):
        loss = nn.functional.cross_entropy(network(row[None]), label[None])
        gradient = torch.autograd.grad(loss, list(network.parameters()))
        found.append(torch.cat([part.reshape(-1) for part in gradient]) @ guidance)
    return torch.stack(found)


@pytest.fixture
def scene() -> tuple[Tensor, Tensor, Tensor, Influence]:
    generator = torch.Generator().manual_seed(1)
    parameters = torch.from_numpy(parameter_vector(build()))
    guidance = torch.randn(parameters.shape, generator=generator)
    rows = torch.randn(20, 4, 3, generator=generator)
    labels = torch.randint(0, 2, (20,), generator=generator)
    return rows, labels, guidance, Influence(build, parameters, guidance)


def test_usefulness_is_the_product_of_a_patients_gradient_with_the_guidance_vector(
    scene: tuple[Tensor, Tensor, Tensor, Influence],
) -> None:
    rows, labels, guidance, influence = scene
    found = influence.usefulness(lambda network: network(rows), labels)
    truth = dot_products(rows, labels, guidance)
    factor = (found @ truth) / (truth @ truth)
    assert factor > 0
    assert torch.allclose(found, factor * truth, atol=0.02 * float((factor * truth).abs().max()))


def test_a_patient_moved_along_its_direction_is_more_useful(scene: tuple[Tensor, Tensor, Tensor, Influence]) -> None:
    rows, labels, guidance, influence = scene
    inside = torch.ones(20, 4, dtype=torch.bool)
    leaves = rows.clone().requires_grad_()
    direction = unit_direction(influence.usefulness(lambda network: network(leaves), labels), leaves, inside)
    before = dot_products(rows, labels, guidance)
    assert (dot_products(rows + 0.05 * direction, labels, guidance) > before).all()
    assert (dot_products(rows - 0.05 * direction, labels, guidance) < before).all()


def test_a_direction_has_length_one_within_the_stay_and_is_nothing_after_it() -> None:
    rows = (1e-12 * torch.randn(3, 4, 2)).requires_grad_()
    inside = torch.arange(4) < torch.tensor([1, 3, 4])[:, None]
    score = (rows.sum(dim=-1) ** 3).sum(dim=1)
    direction = unit_direction(score, rows, inside)
    assert torch.equal(direction == 0, ~inside[..., None].expand(3, 4, 2))
    size = direction.square().sum(dim=(1, 2)) / (2 * inside.sum(dim=1))
    assert torch.allclose(size, torch.ones(3))
    still = torch.zeros(2, 4, 2, requires_grad=True)
    assert not unit_direction((still * 0).sum(dim=(1, 2)), still, torch.ones(2, 4, dtype=torch.bool)).any()


def test_classifier_guidance_raises_the_labels_log_probability() -> None:
    rows, labels = torch.randn(6, 4, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    network = build()
    leaves = rows.clone().requires_grad_()
    inside = torch.ones(6, 4, dtype=torch.bool)
    direction = unit_direction(class_direction(network(leaves), labels), leaves, inside)
    before = class_direction(network(rows), labels)
    assert (class_direction(network(rows + 0.05 * direction), labels) > before).all()
