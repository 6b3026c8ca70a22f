"""Samplers on 0/1 data with an exact denoiser: orders, distributions, and what rare codes lose in few calls."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from synclave_shared.diffusion.anderson import sample_anderson, sample_parallel
from synclave_shared.diffusion.flow import sample_flow
from synclave_shared.diffusion.multistep import sample_dpmpp_2m, sample_sde_dpmpp_2m, sample_unipc
from synclave_shared.diffusion.one_step import sample_ancestral, sample_ddim, sample_heun
from synclave_shared.diffusion.samplers import SAMPLERS, Sampler
from synclave_shared.diffusion.schedules import karras_sigmas
from tests.diffusion.exact import coupled_joint, independent_joint

JOINT = coupled_joint()
FIRST, LAST = 4.0, 0.3


def normals(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return sample_heun(JOINT.denoise, FIRST * normals(64, 7), karras_sigmas(LAST, FIRST, 2000))


@pytest.mark.parametrize(
    ("sampler", "least"),
    [
        (sample_ddim, 0.9),
        (sample_heun, 1.8),
        (sample_dpmpp_2m, 1.8),
        (partial(sample_unipc, order=2), 1.8),
        (partial(sample_unipc, order=3), 1.8),
        (sample_flow, 1.8),
    ],
)
def test_the_order_of_convergence_on_dependent_columns(sampler: Sampler, least: float, truth: Tensor) -> None:
    def error(levels: int) -> float:
        found = sampler(JOINT.denoise, FIRST * normals(64, 7), karras_sigmas(LAST, FIRST, levels))
        return float((found - truth).square().mean().sqrt())

    assert math.log2(error(61) / error(121)) > least


def test_higher_orders_are_nearer_at_ten_calls(truth: Tensor) -> None:
    def error(name: str) -> float:
        found = SAMPLERS[name](JOINT.denoise, FIRST * normals(64, 7), karras_sigmas(LAST, FIRST, 10))
        return float((found - truth).square().mean().sqrt())

    assert max(error("unipc"), error("flow")) < error("dpmpp-2m") < error("ddim") < error("anderson")


@pytest.mark.parametrize("last", [0.2, 0.4])
@pytest.mark.parametrize("levels", [2, 5, 9])
def test_the_flow_of_independent_columns_is_exact_in_any_number_of_calls(last: float, levels: int) -> None:
    """The flow keeps the quantile of each column's mixture of two normal distributions."""
    prevalence = torch.tensor([0.4, 0.02, 1e-4], dtype=torch.float64)
    joint = independent_joint(prevalence)

    def quantile(x: Tensor, sigma: float) -> Tensor:
        return (1 - prevalence) * torch.special.ndtr(x / sigma) + prevalence * torch.special.ndtr((x - 1) / sigma)

    x = torch.linspace(-12, 13, 41, dtype=torch.float64)[:, None].expand(-1, 3)
    end = sample_flow(joint.denoise, x, karras_sigmas(last, 4.0, levels))
    assert torch.allclose(quantile(end, last), quantile(x, 4.0), atol=5e-3)


def test_flow_keeps_rare_codes_where_other_solvers_lose_them() -> None:
    prevalence = torch.tensor([0.01, 0.001], dtype=torch.float64)
    joint = independent_joint(prevalence)
    middles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    start = prevalence + 4.0 * torch.special.ndtri(middles)[:, None]

    def kept(sampler: Sampler) -> Tensor:
        end = sampler(joint.denoise, start, karras_sigmas(LAST, 4.0, 6))
        return joint.denoise(end, LAST).mean(0) / prevalence

    assert torch.allclose(kept(sample_flow), torch.ones(2, dtype=torch.float64), atol=0.03)
    assert bool((kept(sample_dpmpp_2m) < 0.9).all())


@pytest.mark.parametrize(("sampler", "levels"), [(sample_ancestral, 300), (sample_sde_dpmpp_2m, 40), (sample_flow, 10)])
def test_sampled_rows_have_the_joint_distribution(sampler: Sampler, levels: int) -> None:
    """Means and covariances of 6,000 rows before the final draw: 4.5 standard errors and the last level's own loss."""
    calls = iter(range(1, 1000))
    x = JOINT.weights @ JOINT.states + FIRST * normals(6000, 7)
    end = sampler(JOINT.denoise, x, karras_sigmas(0.2, FIRST, levels), noise=lambda _: normals(6000, 7, next(calls)))
    found = JOINT.denoise(end, 0.2)
    mean = JOINT.weights @ JOINT.states
    covariance = (JOINT.states * JOINT.weights[:, None]).T @ JOINT.states - mean[:, None] * mean
    assert torch.allclose(found.mean(0), mean, atol=4.5 * 0.5 / math.sqrt(6000))
    pairs = ~torch.eye(7, dtype=torch.bool)
    assert torch.allclose(torch.cov(found.T)[pairs], covariance[pairs], atol=4.5 * 0.25 / math.sqrt(6000))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_patient_does_not_depend_on_the_others(name: str) -> None:
    x, sigmas = FIRST * normals(9, 7), karras_sigmas(LAST, FIRST, 7)
    whole = SAMPLERS[name](JOINT.denoise, x, sigmas, noise=lambda step: normals(9, 7, step))
    alone = SAMPLERS[name](JOINT.denoise, x[4:6], sigmas, noise=lambda step: normals(9, 7, step)[4:6])
    assert torch.allclose(whole[4:6], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_float32_stays_float32(name: str) -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        return torch.sigmoid(-1.0 + (x - 0.5) / sigma**2)

    found = SAMPLERS[name](denoise, x, karras_sigmas(LAST, FIRST, 6), noise=lambda _: torch.zeros(3, 2))
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


def test_undamped_mixing_is_no_solver_and_no_mixing_is_ddim() -> None:
    x, sigmas = FIRST * normals(32, 7), karras_sigmas(LAST, FIRST, 33)
    ddim = sample_ddim(JOINT.denoise, x, sigmas)

    def distance(damping: float, window: int = 2) -> float:
        return float((sample_anderson(JOINT.denoise, x, sigmas, damping=damping, window=window) - ddim).abs().mean())

    assert distance(0.0) == 0.0
    assert distance(0.01) < distance(0.1) < distance(1.0)
    assert math.isfinite(distance(1.0, window=5))


def test_parallel_is_ddim_when_it_may_iterate_as_often_as_there_are_steps() -> None:
    x, sigmas = FIRST * normals(16, 7), karras_sigmas(LAST, FIRST, 13)
    found = sample_parallel(JOINT.denoise, x, sigmas, iterations=12)
    assert torch.allclose(found, sample_ddim(JOINT.denoise, x, sigmas), rtol=0, atol=1e-12)
