"""Clipping against one-at-a-time backward passes, and what one patient can change."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.training.codes import DiffusionBatch, DiffusionLoss
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.private.engine import ROUNDING_MARGIN
from synclave_shared.diffusion.preconditioning import prior_logits
from synclave_shared.errors import ClippingError
from synclave_shared.models.codes import CodeDenoiser, build_code_denoiser
from synclave_shared.models.coupling import SymmetricCoupling
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_rows


def network(scale: float = 0.1) -> CodeDenoiser:
    """A network whose parameters are all away from zero."""
    model = build_code_denoiser(LAYOUT, ModelSpec())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def loss_of(levels: int = 3) -> DiffusionLoss:
    anchor = torch.randn(2, 12, generator=torch.Generator().manual_seed(2))
    return DiffusionLoss(spec=ModelSpec(noise_levels=levels), layout=LAYOUT, prior=prior_logits(anchor, LAYOUT))


def batch_of(loss: DiffusionLoss, patients: int, seed: int = 0) -> DiffusionBatch:
    features, labels = small_rows(patients, seed)
    streams = PatientStreams(SecretRandomness(seed.to_bytes(32, "big")))
    return loss.draw(
        torch.from_numpy(features).float(), torch.from_numpy(labels), streams, 0, np.arange(patients, dtype=np.int64)
    )


def select(batch: DiffusionBatch, chosen: Tensor) -> DiffusionBatch:
    return DiffusionBatch(**{field.name: getattr(batch, field.name)[chosen] for field in fields(batch)})


def only(batch: DiffusionBatch, patient: int) -> DiffusionBatch:
    return select(batch, torch.arange(len(batch)) == patient)


def clipped(gradients: PatientGradients[Any], batches: list[Any]) -> NDArray[np.float64]:
    """The clipped sum as an array of its own: the engine's memory is used again."""
    return gradients.clipped_sum(batches).numpy().copy()


def gradient(model: nn.Module, loss: DiffusionLoss, batch: DiffusionBatch) -> NDArray[np.float64]:
    """Plain autograd gradient of the summed losses."""
    parts = torch.autograd.grad(loss(model, batch).sum(), list(model.parameters()))
    return torch.cat([part.reshape(-1) for part in parts]).double().numpy()


@pytest.mark.parametrize("clip_norm", [0.05, 1.0, 1000.0])
def test_the_clipped_sum_is_that_of_one_backward_pass_per_patient(clip_norm: float) -> None:
    loss = loss_of()
    batch = batch_of(loss, 17)
    model = network()
    expected = np.zeros(sum(parameter.numel() for parameter in model.parameters()))
    for patient in range(len(batch)):
        own = gradient(model, loss, only(batch, patient))
        expected += own * min(1.0, clip_norm * (1 - ROUNDING_MARGIN) / np.linalg.norm(own))
    pieces = [select(batch, torch.arange(17) < 6), select(batch, torch.arange(17) >= 6)]
    found = clipped(PatientGradients(network(), loss, clip_norm), pieces)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("row", ["zeros", "ones", "common", "loud", "enormous"])
def test_one_patient_moves_the_sum_by_at_most_the_clip_norm(row: str) -> None:
    """Added or removed, whatever the patient's row: far beyond what any schema would let through."""
    clip_norm = 0.5
    loss = loss_of()
    batch = batch_of(loss, 9)
    clean = batch.clean.clone()
    levels, noise = batch.levels.clone(), batch.noise.clone()
    clean[0] = {"zeros": 0.0, "ones": 1.0, "loud": 100.0, "enormous": 1e6}.get(row, clean[0])
    if row == "loud":
        noise[0] *= 50
        levels[0] = -1.0
    extreme = DiffusionBatch(clean=clean, labels=batch.labels, levels=levels, noise=noise, present=batch.present)
    gradients = PatientGradients(network(), loss, clip_norm)
    with_patient = clipped(gradients, [extreme])
    without = clipped(gradients, [select(extreme, torch.arange(9) > 0)])
    assert np.linalg.norm(with_patient - without) <= clip_norm


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 20.0))
@settings(max_examples=25, deadline=None)
def test_no_drawn_patient_exceeds_the_clip_norm(seed: int, clip_norm: float) -> None:
    loss = loss_of()
    found = clipped(PatientGradients(network(0.5), loss, clip_norm), [batch_of(loss, 1, seed)])
    assert np.linalg.norm(found) <= clip_norm


def test_noise_levels_are_averaged_before_clipping() -> None:
    """A patient's gradient is that of the mean over levels: repeating the levels changes nothing, and the norm of the
    clipped gradient is the norm of the mean, not the mean of clipped norms.
    """
    loss = loss_of()
    batch = batch_of(loss, 1)
    twice = DiffusionBatch(
        clean=batch.clean,
        labels=batch.labels,
        levels=batch.levels.repeat(1, 2),
        noise=batch.noise.repeat(1, 2, 1),
        present=batch.present,
    )
    model = network()
    gradients = PatientGradients(model, loss, 1e6)
    assert np.allclose(clipped(gradients, [batch]), clipped(gradients, [twice]), rtol=1e-4, atol=1e-6)

    each = [replace(batch, levels=batch.levels[:, [k]], noise=batch.noise[:, [k]]) for k in range(3)]
    own = [gradient(network(), loss, level) for level in each]
    clip_norm = 0.5 * float(np.linalg.norm(np.mean(own, axis=0)))
    found = clipped(PatientGradients(network(), loss, clip_norm), [batch])
    mean = np.mean(own, axis=0)
    assert np.allclose(found, mean * clip_norm / np.linalg.norm(mean), rtol=4e-3, atol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Levels:
    """What reaches a coupling, put there by hand: inputs and output gradients [B, K, D]."""

    inputs: Tensor
    pulls: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def patient_of_row(self) -> None:
        return None

    def select(self, patients: Tensor) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[patients] for field in fields(self)})


def pulled(model: nn.Module, batch: Levels) -> Tensor:
    """A loss whose gradient at the coupling's output is ``pulls``."""
    return (model(batch.inputs) * batch.pulls).sum((1, 2))


def hostile_levels(kind: str, size: float, patients: int = 40) -> Levels:
    """Patients whose levels cancel: exactly, up to the last bits, or as a random antisymmetric matrix."""
    generator = torch.Generator().manual_seed(3)
    x = size * torch.randn(patients, 4, 12, generator=generator)
    g = size * torch.randn(patients, 4, 12, generator=generator)
    if kind == "opposite":
        x[:, 1::2], g[:, 1::2] = x[:, ::2], -g[:, ::2]
    elif kind == "nearly opposite":
        x[:, 1::2], g[:, 1::2] = x[:, ::2], -g[:, ::2] * (1 + 1e-7)
    elif kind == "antisymmetric":
        x[:, 1], g[:, 1] = -g[:, 0] * (1 + 1e-7), x[:, 0]
        x[:, 2:], g[:, 2:] = 0, 0
    return Levels(inputs=x, pulls=g, present=torch.ones(patients, dtype=torch.bool))


@pytest.mark.parametrize("clip_norm", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e15])
@pytest.mark.parametrize("kind", ["opposite", "nearly opposite", "antisymmetric", "loud"])
def test_levels_that_cancel_do_not_smuggle_a_patient_past_the_clip_norm(
    kind: str, size: float, clip_norm: float
) -> None:
    """The returned sums with and without the patient, among others who are as hostile."""
    levels = hostile_levels(kind, size)
    gradients = PatientGradients(SymmetricCoupling(12), pulled, clip_norm)
    whole = clipped(gradients, [levels])
    for patient in range(3):
        present = levels.present.clone()
        present[patient] = False
        without = clipped(gradients, [replace(levels, present=present)])
        assert np.linalg.norm(whole - without) <= clip_norm
        alone = replace(levels, present=~present)
        assert np.linalg.norm(clipped(gradients, [alone])) <= clip_norm


@pytest.mark.parametrize("clip_norm", [1e-6, 1.0])
@pytest.mark.parametrize("anchor_size", [1.0, 30.0, 1e30])
@pytest.mark.parametrize("model_size", [0.1, 1e4, 1e30])
def test_no_model_and_anchor_moves_one_patient_past_the_clip_norm(
    model_size: float, anchor_size: float, clip_norm: float
) -> None:
    anchor = anchor_size * torch.randn(2, 12, generator=torch.Generator().manual_seed(2))
    loss = DiffusionLoss(spec=ModelSpec(noise_levels=8), layout=LAYOUT, prior=prior_logits(anchor, LAYOUT))
    batch = batch_of(loss, 30)
    gradients = PatientGradients(network(model_size), loss, clip_norm)
    whole = clipped(gradients, [batch])
    for patient in range(30):
        present = batch.present.clone()
        present[patient] = False
        without = clipped(gradients, [replace(batch, present=present)])
        assert np.linalg.norm(whole - without) <= clip_norm


def test_a_finite_loss_with_a_gradient_that_is_not_finite_contributes_nothing() -> None:
    """The root's slope at 0 is infinite; the loss there is 0."""

    def rooted(model: nn.Module, batch: Levels) -> Tensor:
        return (model(batch.inputs) * batch.pulls).sum((1, 2)).abs().sqrt()

    model = SymmetricCoupling(12)
    with torch.no_grad():
        model.weight.fill_(0.5)
    levels = hostile_levels("loud", 1.0, 6)
    levels.inputs[2] = 0
    assert bool(torch.isfinite(rooted(model, levels)).all())
    gradients = PatientGradients(model, rooted, 1.0)
    found = clipped(gradients, [levels])
    present = torch.arange(6) != 2
    others = clipped(gradients, [replace(levels, present=present)])
    assert np.array_equal(found, others)
    assert np.abs(found).max() > 0


@pytest.mark.parametrize("poisoned", [False, True])
def test_the_work_is_the_same_whatever_the_data(poisoned: bool) -> None:
    loss = loss_of()
    batch = batch_of(loss, 6)
    if poisoned:
        batch.noise[2] = float("nan")
    calls = []

    def counted(model: nn.Module, batch: DiffusionBatch) -> Tensor:
        calls.append(len(batch))
        return loss(model, batch)

    clipped(PatientGradients(network(), counted, 1.0), [batch])
    assert calls == [6]


def test_no_patient_gives_zeros() -> None:
    loss = loss_of()
    gradients = PatientGradients(network(), loss, 1.0)
    empty = select(batch_of(loss, 3), torch.zeros(3, dtype=torch.bool))
    assert not gradients.clipped_sum([]).any()
    assert not gradients.clipped_sum([empty]).any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_patient_without_finite_gradient_contributes_nothing(poison: float) -> None:
    loss = loss_of()
    batch = batch_of(loss, 6)
    noise = batch.noise.clone()
    noise[2] = poison
    bad = DiffusionBatch(
        clean=batch.clean, labels=batch.labels, levels=batch.levels, noise=noise, present=batch.present
    )
    found = clipped(PatientGradients(network(), loss, 1.0), [bad])
    others = clipped(PatientGradients(network(), loss, 1.0), [select(batch, torch.arange(6) != 2)])
    assert np.allclose(found, others, atol=1e-6)
    assert np.abs(found).max() > 0


def test_if_no_loss_is_finite_the_sum_is_zero() -> None:
    loss = loss_of()

    def nan_loss(model: nn.Module, batch: DiffusionBatch) -> Tensor:
        return loss(model, batch) * float("nan")

    assert not clipped(PatientGradients(network(), nan_loss, 1.0), [batch_of(loss, 5)]).any()


def test_a_loss_that_mixes_patients_into_one_number_is_refused() -> None:
    loss = loss_of()

    def batch_mean(model: nn.Module, batch: DiffusionBatch) -> Tensor:
        return loss(model, batch).mean()

    with pytest.raises(ClippingError, match="one value per patient"):
        clipped(PatientGradients(network(), batch_mean, 1.0), [batch_of(loss, 4)])


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, surprise: Tensor, *seen: Tensor) -> Tensor:
        twice: Tensor = self.inner(surprise, *seen) + self.inner(2 * surprise, *seen)
        return twice


def test_a_coupling_used_twice_is_clipped_by_the_norm_of_both_uses_together() -> None:
    loss = loss_of()
    batch = batch_of(loss, 5)
    own = [gradient(UsedTwice(), loss, only(batch, patient)) for patient in range(5)]
    clip_norm = float(np.median([np.linalg.norm(each) for each in own]))
    limit = clip_norm * (1 - ROUNDING_MARGIN)
    expected = sum(each * min(1.0, limit / np.linalg.norm(each)) for each in own)
    found = clipped(PatientGradients(UsedTwice(), loss, clip_norm), [batch])
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
