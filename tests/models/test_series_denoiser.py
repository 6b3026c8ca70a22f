"""The denoiser of time series: exact where channels are independent, blind after the end of a stay."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from synclave_shared.diffusion.series import SeriesPrior, series_loss, series_posterior
from synclave_shared.model_size import parameters_of
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import anchor_from_moments, contributions
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.plan import SeriesSpec
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_dataset, series_schema

ANCHOR, _ = anchor_from_moments(contributions(series_dataset(2000), SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
PRIOR = SeriesPrior.of(ANCHOR)
SPECS = [
    SeriesSpec(),
    SeriesSpec(width=32, blocks=2),
    SeriesSpec(width=64, blocks=1, couplings=False),
    SeriesSpec(width=32, backbone="unet", blocks=3),
    SeriesSpec(width=32, backbone="unet", blocks=1, couplings=False),
]


def rows(patients: int = 5, levels: int = 2) -> tuple[torch.Tensor, ...]:
    """Noisy rows, levels, labels (the hidden one too), context, stays."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(patients, levels, STEPS, 6, generator=generator)
    sigma = torch.tensor([0.3, 2.0]).expand(patients, levels)
    labels = torch.arange(patients) % 3
    context = (torch.rand(patients, SERIES_LAYOUT.context.width, generator=generator) < 0.3).float()
    inside = torch.arange(STEPS) < (torch.arange(patients) % STEPS + 1)[:, None]
    return x, sigma, labels, context, inside


def randomised(spec: SeriesSpec) -> torch.nn.Module:
    network = build_series_denoiser(SERIES_LAYOUT, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("spec", SPECS)
def test_parameters_are_counted_without_building_the_network(spec: SeriesSpec) -> None:
    assert parameter_vector(build_series_denoiser(SERIES_LAYOUT, spec)).size == parameters_of(spec, series_schema())


@pytest.mark.parametrize("spec", SPECS)
def test_the_untrained_denoiser_is_bayes_rule_for_independent_gaussian_channels(spec: SeriesSpec) -> None:
    x, sigma, labels, context, inside = rows()
    found = series_posterior(build_series_denoiser(SERIES_LAYOUT, spec), x, sigma, labels, context, inside, PRIOR)
    lag = np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))
    for patient in range(len(x)):
        length = int(inside[patient].sum())
        for level in range(2):
            for channel in range(3):
                covariance = ANCHOR.inertia[channel].astype(np.float64)[lag[:length, :length]]
                noise = float(sigma[patient, level]) ** 2 * np.eye(length)
                mean = float(PRIOR.shift[labels[patient], channel])
                gain = covariance @ np.linalg.inv(covariance + noise)
                expected = mean + gain @ (x[patient, level, :length, channel].double().numpy() - mean)
                spread = np.sqrt(np.diag(covariance - gain @ covariance))
                values = found.values[patient, level, :length, channel].detach().numpy()
                assert values == pytest.approx(expected, abs=2e-3)
                assert found.spread[patient, level, :length, channel].numpy() == pytest.approx(spread, abs=2e-2)
    seen = x[..., 3:].double()
    logits = PRIOR.observed[labels][:, None, None].double() + (seen - 0.5) / sigma.double()[..., None, None] ** 2
    assert torch.allclose(found.observed.double(), logits.clamp(-30, 30), atol=1e-3)


def test_the_hidden_label_stands_for_the_mean_of_the_label_values() -> None:
    assert torch.allclose(PRIOR.shift[2], PRIOR.shift[:2].mean(dim=0))
    assert torch.allclose(PRIOR.observed[2].sigmoid(), PRIOR.observed[:2].sigmoid().mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_what_stands_after_the_end_of_a_stay_changes_neither_belief_nor_loss_nor_gradient(spec: SeriesSpec) -> None:
    """Padding never leaks."""
    network = randomised(spec)
    x, sigma, labels, context, inside = rows()
    truth, seen = torch.randn(5, STEPS, 3), torch.ones(5, STEPS, 3)

    def results(x_after: float, truth_after: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        noisy = torch.where(inside[:, None, :, None], x, x_after)
        belief = series_posterior(network, noisy, sigma, labels, context, inside, PRIOR)
        loss = series_loss(belief, torch.where(inside[:, :, None], truth, truth_after), seen, inside).sum()
        gradient = torch.autograd.grad(loss, list(network.parameters()))
        shown = torch.where(inside[:, None, :, None], belief.mean(), 0.0)
        return shown, loss, torch.cat([part.reshape(-1) for part in gradient])

    for one, other in zip(results(0.0, 0.0), results(50.0, -7.0), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS[1:])
def test_label_and_fields_move_every_step_of_the_stay(spec: SeriesSpec) -> None:
    network = randomised(spec)
    x, sigma, labels, context, inside = rows()
    others = {"label": ((labels + 1) % 3, context), "fields": (labels, 1.0 - context)}
    surprise = torch.zeros_like(x)
    visible = torch.full(sigma.shape, 0.5)

    def correction(labels: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network(x[..., :3], surprise, visible, labels, context, inside)
        return found.detach()

    for told in others.values():
        moved = (correction(*told) - correction(labels, context)).abs().sum(dim=-1)
        assert (moved > 1e-3)[inside[:, None].expand_as(moved)].all()


def test_the_loss_is_the_same_at_every_level_for_the_true_posterior() -> None:
    """In units of the posterior's spread: an exact denoiser of exact rows loses half a unit per value and step."""
    generator = torch.Generator().manual_seed(3)
    lag = torch.from_numpy(np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS))))
    factors = torch.linalg.cholesky(torch.from_numpy(ANCHOR.inertia)[:, lag].double() + 1e-3 * torch.eye(STEPS))
    clean = torch.einsum("cts,bsc->btc", factors, torch.randn(4000, STEPS, 3, generator=generator).double()).float()
    sigma = torch.tensor([0.1, 1.0, 10.0]).expand(4000, 3)
    row = torch.cat([clean, torch.ones_like(clean)], dim=-1)[:, None]
    x = row + sigma[..., None, None] * torch.randn(4000, 3, STEPS, 6, generator=generator)
    prior = replace(PRIOR, observed=torch.zeros(3, 3), shift=torch.zeros(3, 3))
    inside = torch.ones(4000, STEPS, dtype=torch.bool)
    context = torch.zeros(4000, SERIES_LAYOUT.context.width)
    network = build_series_denoiser(SERIES_LAYOUT, SeriesSpec())
    belief = series_posterior(network, x, sigma, torch.zeros(4000, dtype=torch.int64), context, inside, prior)
    errors = ((belief.values - clean[:, None]) / belief.spread).square().mean(dim=(0, 2, 3))
    assert errors.tolist() == pytest.approx([1, 1, 1], abs=0.1)
