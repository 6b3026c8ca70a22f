"""Samplers against closed forms: Gaussian data, for which the probability-flow equation can be solved by hand."""

import math
import re
from functools import partial

import pytest
import torch
from torch import Tensor

from synclave_shared.diffusion.guidance import guided_logits
from synclave_shared.diffusion.losses import cross_entropy
from synclave_shared.diffusion.multistep import sample_dpmpp_2m, sample_sde_dpmpp_2m, sample_unipc
from synclave_shared.diffusion.one_step import sample_ancestral, sample_ddim, sample_heun
from synclave_shared.diffusion.preconditioning import posterior_mean
from synclave_shared.diffusion.samplers import CATALOGUE, SAMPLERS, Sampler, calls_in_sequence, evaluations
from synclave_shared.diffusion.schedules import karras_sigmas
from tests.models.small import LAYOUT

MEAN, STD = 0.3, 0.7


def gaussian_denoiser(x: Tensor, sigma: float | Tensor) -> Tensor:
    """E[x0 | x] for x0 ~ N(MEAN, STD**2)."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def exact_end(x: Tensor, first: float, last: float) -> Tensor:
    """The probability-flow equation keeps (x - mean) / std of the marginals."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + last**2) / (STD**2 + first**2))


def error(sampler: Sampler, levels: int) -> float:
    x = torch.tensor([-8.0, 0.5, 11.0], dtype=torch.float64)
    sigmas = karras_sigmas(0.1, 5.0, levels)
    found = sampler(gaussian_denoiser, x, sigmas, noise=None)
    return float((found - exact_end(x, 5.0, 0.1)).abs().max())


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (sample_ddim, 1),
        (sample_heun, 2),
        (sample_dpmpp_2m, 2),
        (partial(sample_unipc, order=1), 2),
        (partial(sample_unipc, order=2), 3),
    ],
)
def test_the_order_of_convergence(sampler: Sampler, order: int) -> None:
    coarse, fine = error(sampler, 161), error(sampler, 321)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("sampler", "levels"), [(sample_ancestral, 200), (sample_sde_dpmpp_2m, 60)])
def test_stochastic_sampling_has_the_right_mean_and_spread(sampler: Sampler, levels: int) -> None:
    """100,000 draws; each bound is more than 4 standard errors wide."""
    generator = torch.Generator().manual_seed(0)

    def normal(_step: int) -> Tensor:
        return torch.randn(100_000, generator=generator, dtype=torch.float64)

    x = MEAN + math.sqrt(STD**2 + 25.0) * normal(0)
    found = sampler(gaussian_denoiser, x, karras_sigmas(0.1, 5.0, levels), noise=normal)
    assert found.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert found.std().item() == pytest.approx(math.sqrt(STD**2 + 0.01), rel=0.02)


@pytest.mark.parametrize("sampler", [sample_ancestral, sample_sde_dpmpp_2m])
def test_stochastic_sampling_without_noise_is_refused(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="noise"):
        sampler(gaussian_denoiser, torch.zeros(1), karras_sigmas(0.1, 5.0, 3))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("levels", [1, 2, 7, 23])
def test_calls_of_the_denoiser_are_as_stated(name: str, levels: int) -> None:
    calls = rows = 0

    def counted(x: Tensor, sigma: float | Tensor) -> Tensor:
        nonlocal calls, rows
        calls += 1
        rows += len(sigma) if isinstance(sigma, Tensor) else 1
        return gaussian_denoiser(x, sigma).clamp(0, 1)

    SAMPLERS[name](counted, torch.ones(2), karras_sigmas(0.1, 5.0, levels), noise=lambda _: torch.zeros(2))
    assert (rows + 1, calls + 1) == (evaluations(name, levels), calls_in_sequence(name, levels))


def test_names_can_be_typed_and_summaries_fit_a_line() -> None:
    for name, card in CATALOGUE.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert 0 < len(card.summary) < 90


def test_the_schedule_runs_from_the_first_to_the_last_level() -> None:
    sigmas = karras_sigmas(0.4, 5.0, 9)
    assert sigmas[0].item() == pytest.approx(5.0)
    assert sigmas[-1].item() == pytest.approx(0.4)
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize(("low", "high", "levels"), [(0.0, 1.0, 3), (2.0, 1.0, 3), (0.1, 1.0, 0)])
def test_an_impossible_schedule_is_refused(low: float, high: float, levels: int) -> None:
    with pytest.raises(ValueError, match="schedule"):
        karras_sigmas(low, high, levels)


def test_guidance_of_weight_zero_changes_nothing_and_more_moves_away_from_the_hidden_label() -> None:
    given, hidden = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    assert torch.equal(guided_logits(given, hidden, 0.0), given)
    assert torch.equal(guided_logits(given, hidden, 2.0), torch.tensor([2.0, -4.0]))


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_the_cross_entropy_is_least_at_the_true_probabilities(factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, generator=generator, dtype=torch.float64)
    truth = posterior_mean(logits, LAYOUT)

    def expected(candidate: Tensor) -> float:
        """Expectation over all 2**9 * 3 rows: the loss is a sum over columns, so per-column terms do."""
        codes = sum(
            truth[j] * cross_entropy(candidate, row(j, 1.0), LAYOUT)
            + (1 - truth[j]) * cross_entropy(candidate, row(j, 0.0), LAYOUT)
            - cross_entropy(candidate, row(j, 0.0), LAYOUT)
            for j in range(9)
        )
        group = sum(truth[j] * cross_entropy(candidate, category(j), LAYOUT) for j in range(9, 12))
        return float(codes + group)

    def row(column: int, value: float) -> Tensor:
        clean = torch.zeros(12, dtype=torch.float64)
        clean[9] = 1.0
        clean[column] = value
        return clean

    def category(column: int) -> Tensor:
        clean = torch.zeros(12, dtype=torch.float64)
        clean[column] = 1.0
        return clean

    assert expected(logits) < expected(logits * factor)


def test_the_loss_is_one_number_per_row() -> None:
    logits = torch.zeros(4, 3, 12)
    clean = torch.zeros(4, 3, 12)
    clean[..., 9] = 1.0
    loss = cross_entropy(logits, clean, LAYOUT)
    assert loss.shape == (4, 3)
    assert torch.allclose(loss, torch.full((4, 3), 9 * math.log(2) + math.log(3)))
