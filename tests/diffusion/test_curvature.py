"""Curvature: products, clipping and solutions against matrices that are written down."""

import math

import pytest
import torch
from torch import Tensor, nn

from synclave_shared.diffusion.curvature import (
    clipped_gradients,
    conjugate_gradients,
    curvature_product,
    noise_damping,
)

PATIENTS = 40


class Scene(nn.Module):
    """A small model of two arguments."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(5, 4), nn.Linear(6, 3)

    def forward(self, rows: Tensor, context: Tensor) -> Tensor:
        found: Tensor = self.head(torch.cat([torch.tanh(self.body(rows)), context], dim=-1))
        return found


@pytest.fixture
def scene() -> tuple[Scene, tuple[Tensor, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    patients = torch.randn(PATIENTS, 5, generator=generator), torch.randn(PATIENTS, 2, generator=generator)
    labels = torch.randint(0, 3, (PATIENTS,), generator=generator)
    return Scene(), patients, labels, torch.rand(PATIENTS, generator=generator) + 0.5


def derivatives(network: nn.Module, patients: tuple[Tensor, ...], patient: int) -> Tensor:
    """Of one patient's logits in the parameters, [L, P], one backward pass each."""
    logits = network(*(part[[patient]] for part in patients))[0]
    rows = [torch.autograd.grad(logit, list(network.parameters()), retain_graph=True) for logit in logits]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def test_a_product_is_that_of_the_matrix_written_out(
    scene: tuple[Scene, tuple[Tensor, Tensor], Tensor, Tensor],
) -> None:
    network, patients, _, weights = scene
    size = sum(parameter.numel() for parameter in network.parameters())
    matrix = torch.zeros(size, size)
    for patient in range(PATIENTS):
        jacobian = derivatives(network, patients, patient)
        chances = network(*(part[[patient]] for part in patients))[0].softmax(dim=-1).detach()
        covariance = torch.diag(chances) - chances[:, None] * chances
        matrix += weights[patient] * jacobian.T @ covariance @ jacobian / PATIENTS
    product = curvature_product(network, patients, weights)
    found = torch.stack([product(unit) for unit in torch.eye(size)])
    assert torch.allclose(found, matrix, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [0.6, math.inf])
def test_every_patients_gradient_is_its_own_and_no_longer_than_the_clip_norm(
    scene: tuple[Scene, tuple[Tensor, Tensor], Tensor, Tensor], clip_norm: float
) -> None:
    network, patients, labels, weights = scene
    found = clipped_gradients(network, patients, labels, weights, clip_norm)
    for patient in range(PATIENTS):
        logits = network(*(part[[patient]] for part in patients))
        loss = weights[patient] * nn.functional.cross_entropy(logits, labels[[patient]])
        slope = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])
        assert torch.allclose(found[patient], slope * min(1.0, clip_norm / float(slope.norm())), atol=1e-5)


def test_conjugate_gradients_solve_and_one_iteration_is_the_best_step_along_the_right_side() -> None:
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix, right = root @ root.T + torch.eye(12), torch.randn(12, generator=generator, dtype=torch.float64)
    found = conjugate_gradients(lambda v: matrix @ v, right)
    assert torch.allclose(matrix @ found, right, atol=1e-2 * float(right.norm()))
    step = (right @ right) / (right @ matrix @ right)
    assert torch.allclose(conjugate_gradients(lambda v: matrix @ v, right, iterations=1), step * right)
    assert not conjugate_gradients(lambda v: matrix @ v, torch.zeros(12)).any()


def test_the_damping_is_near_the_one_with_which_the_step_is_found_best() -> None:
    generator = torch.Generator().manual_seed(3)
    scale = torch.linspace(-4, 0, 200).exp()
    best, damping = [], []
    for _ in range(20):
        step = 0.5 * torch.randn(200, generator=generator)
        noise = 0.05 * scale.sqrt() * torch.randn(200, generator=generator)
        gap = scale * step + noise
        damping.append(noise_damping(lambda v: scale * v, gap, 0.05**2 * float(scale.sum())))
        tried = torch.linspace(-9, 0, 60).exp()
        errors = ((gap / (scale + tried[:, None]) - step) ** 2).sum(dim=1)
        best.append(float(tried[errors.argmin()]))
    assert torch.tensor(damping).median() == pytest.approx(float(torch.tensor(best).median()), rel=0.5)
    assert noise_damping(lambda v: scale * v, 0.01 * torch.ones(200), 1.0) == math.inf
