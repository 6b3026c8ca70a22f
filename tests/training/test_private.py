"""Clipping against one-at-a-time backward passes, and what one patient can change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.training.loop import DiffusionBatch, DiffusionLoss
from synclave_client.training.private import PatientGradients
from synclave_shared.diffusion.preconditioning import prior_logits
from synclave_shared.models.codes import CodeDenoiser, build_code_denoiser
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_rows


def network(blocks: int, scale: float = 0.1) -> CodeDenoiser:
    """A network whose parameters are all away from zero."""
    model = build_code_denoiser(spec(blocks), LAYOUT)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def spec(blocks: int, levels: int = 3) -> ModelSpec:
    return ModelSpec(hidden=8, blocks=blocks, noise_features=4, noise_levels=levels)


def loss_of(blocks: int, levels: int = 3) -> DiffusionLoss:
    anchor = torch.randn(2, 12, generator=torch.Generator().manual_seed(2))
    return DiffusionLoss(spec=spec(blocks, levels), layout=LAYOUT, prior=prior_logits(anchor, LAYOUT))


def batch_of(loss: DiffusionLoss, patients: int, seed: int = 0) -> DiffusionBatch:
    features, labels = small_rows(patients, seed)
    generator = torch.Generator().manual_seed(seed)
    return loss.draw(torch.from_numpy(features).float(), torch.from_numpy(labels), generator)


def only(batch: DiffusionBatch, patient: int) -> DiffusionBatch:
    return batch.select(torch.arange(len(batch)) == patient)


def gradient(model: nn.Module, loss: DiffusionLoss, batch: DiffusionBatch) -> NDArray[np.float64]:
    """Plain autograd gradient of the summed losses."""
    parts = torch.autograd.grad(loss(model, batch).sum(), list(model.parameters()))
    return torch.cat([part.reshape(-1) for part in parts]).double().numpy()


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("clip_norm", [0.05, 1.0, 1000.0])
def test_the_clipped_sum_is_that_of_one_backward_pass_per_patient(blocks: int, clip_norm: float) -> None:
    loss = loss_of(blocks)
    batch = batch_of(loss, 17)
    model = network(blocks)
    expected = np.zeros(sum(parameter.numel() for parameter in model.parameters()))
    for patient in range(len(batch)):
        own = gradient(model, loss, only(batch, patient))
        expected += own * min(1.0, clip_norm / np.linalg.norm(own))
    pieces = [batch.select(torch.arange(17) < 6), batch.select(torch.arange(17) >= 6)]
    found = PatientGradients(network(blocks), loss, clip_norm).clipped_sum(pieces)
    assert np.linalg.norm(found - expected) <= 2e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize("row", ["zeros", "ones", "common", "loud", "enormous"])
def test_one_patient_moves_the_sum_by_at_most_the_clip_norm(blocks: int, row: str) -> None:
    """Added or removed, whatever the patient's row: far beyond what any schema would let through."""
    clip_norm = 0.5
    loss = loss_of(blocks)
    batch = batch_of(loss, 9)
    clean = batch.clean.clone()
    sigma, noise = batch.sigma.clone(), batch.noise.clone()
    clean[0] = {"zeros": 0.0, "ones": 1.0, "loud": 100.0, "enormous": 1e6}.get(row, clean[0])
    if row == "loud":
        noise[0] *= 50
        sigma[0] = 0.4
    extreme = DiffusionBatch(clean=clean, labels=batch.labels, sigma=sigma, noise=noise)
    gradients = PatientGradients(network(blocks), loss, clip_norm)
    with_patient = gradients.clipped_sum([extreme])
    without = gradients.clipped_sum([extreme.select(torch.arange(9) > 0)])
    assert np.linalg.norm(with_patient - without) <= clip_norm


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 20.0))
@settings(max_examples=25, deadline=None)
def test_no_drawn_patient_exceeds_the_clip_norm(seed: int, clip_norm: float) -> None:
    loss = loss_of(1)
    found = PatientGradients(network(1, 0.5), loss, clip_norm).clipped_sum([batch_of(loss, 1, seed)])
    assert np.linalg.norm(found) <= clip_norm


def test_noise_levels_are_averaged_before_clipping() -> None:
    """A patient's gradient is that of the mean over levels: repeating the levels changes nothing, and the norm of the
    clipped gradient is the norm of the mean, not the mean of clipped norms.
    """
    loss = loss_of(0)
    batch = batch_of(loss, 1)
    twice = DiffusionBatch(
        clean=batch.clean,
        labels=batch.labels,
        sigma=batch.sigma.repeat(1, 2),
        noise=batch.noise.repeat(1, 2, 1),
    )
    model = network(0)
    gradients = PatientGradients(model, loss, 1e6)
    assert np.allclose(gradients.clipped_sum([batch]), gradients.clipped_sum([twice]), rtol=1e-4, atol=1e-6)

    each = [
        DiffusionBatch(clean=batch.clean, labels=batch.labels, sigma=batch.sigma[:, [k]], noise=batch.noise[:, [k]])
        for k in range(3)
    ]
    own = [gradient(network(0), loss, level) for level in each]
    clip_norm = 0.5 * float(np.linalg.norm(np.mean(own, axis=0)))
    found = PatientGradients(network(0), loss, clip_norm).clipped_sum([batch])
    mean = np.mean(own, axis=0)
    assert np.allclose(found, mean * clip_norm / np.linalg.norm(mean), rtol=1e-3, atol=1e-6)


def test_no_patient_gives_zeros() -> None:
    loss = loss_of(1)
    gradients = PatientGradients(network(1), loss, 1.0)
    empty = batch_of(loss, 3).select(torch.zeros(3, dtype=torch.bool))
    assert not gradients.clipped_sum([]).any()
    assert not gradients.clipped_sum([empty]).any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_patient_without_finite_gradient_contributes_nothing(poison: float) -> None:
    loss = loss_of(1)
    batch = batch_of(loss, 6)
    noise = batch.noise.clone()
    noise[2] = poison
    bad = DiffusionBatch(clean=batch.clean, labels=batch.labels, sigma=batch.sigma, noise=noise)
    found = PatientGradients(network(1), loss, 1.0).clipped_sum([bad])
    others = PatientGradients(network(1), loss, 1.0).clipped_sum([batch.select(torch.arange(6) != 2)])
    assert np.allclose(found, others, atol=1e-6)
    assert np.abs(found).max() > 0


def test_if_no_loss_is_finite_the_sum_is_zero() -> None:
    loss = loss_of(1)

    def nan_loss(model: nn.Module, batch: DiffusionBatch) -> Tensor:
        return loss(model, batch) * float("nan")

    assert not PatientGradients(network(1), nan_loss, 1.0).clipped_sum([batch_of(loss, 5)]).any()


def test_a_loss_that_mixes_patients_into_one_number_is_refused() -> None:
    loss = loss_of(0)

    def batch_mean(model: nn.Module, batch: DiffusionBatch) -> Tensor:
        return loss(model, batch).mean()

    with pytest.raises(ValueError, match="one value per patient"):
        PatientGradients(network(0), batch_mean, 1.0).clipped_sum([batch_of(loss, 4)])


class BareParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize("module", [BareParameter(), nn.BatchNorm1d(3), nn.Sequential(nn.Conv1d(1, 1, 1))])
def test_a_network_that_cannot_be_clipped_exactly_is_refused(module: nn.Module) -> None:
    with pytest.raises(ValueError, match="holds"):
        PatientGradients(module, loss_of(0), 1.0)


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network(0)

    def forward(self, evidence: Tensor, condition: Tensor) -> Tensor:
        twice: Tensor = self.inner(evidence, condition) + self.inner(2 * evidence, condition)
        return twice


def test_a_layer_used_twice_is_refused() -> None:
    loss = loss_of(0)
    with pytest.raises(NotImplementedError, match="tying"):
        PatientGradients(UsedTwice(), loss, 1.0).clipped_sum([batch_of(loss, 4)])
