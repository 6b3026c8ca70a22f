"""The denoiser of time series: exact where all is Gaussian, blind after the end of a stay."""

import numpy as np
import pytest
import torch

from synclave_shared.diffusion.series import SeriesPrior, series_loss, series_posterior, series_start
from synclave_shared.model_size import parameters_of
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import anchor_from_moments, contributions
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.process import cosines, covariances, expectations
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
def test_the_untrained_denoiser_is_bayes_rule_for_the_gaussian_process(spec: SeriesSpec) -> None:
    x, sigma, labels, context, inside = rows()
    network = build_series_denoiser(SERIES_LAYOUT, spec)
    found = series_posterior(network, x, sigma, labels, context, PRIOR, PRIOR.stays(inside))
    effect = (context.double().numpy() - ANCHOR.relations.usual) @ ANCHOR.relations.effect
    means = expectations(ANCHOR)
    means = np.concatenate([means, means.mean(axis=0, keepdims=True)])
    for patient in range(len(x)):
        length = int(inside[patient].sum())
        waves = cosines(length)
        whole = np.einsum("tk,sk,kcd->tcsd", waves, waves, covariances(ANCHOR, length)).reshape(6 * length, -1)
        mean = (means[labels[patient], :length] + effect[patient]).reshape(-1)
        for level in range(2):
            noise = float(sigma[patient, level]) ** 2 * np.eye(6 * length)
            gain = whole @ np.linalg.inv(whole + noise)
            expected = mean + gain @ (x[patient, level, :length].double().numpy().reshape(-1) - mean)
            assert found.row[patient, level, :length].detach().numpy().reshape(-1) == pytest.approx(expected, abs=5e-3)
            variance = np.diag(whole - gain @ whole)
            # The spread is that of a quantity by itself: what the others tell it makes it smaller.
            spread = found.spread[patient, level, :length].numpy().reshape(-1)
            assert (spread > np.sqrt(variance) - 2e-2).all()


def test_the_hidden_label_stands_for_the_mean_of_the_label_values() -> None:
    assert torch.allclose(PRIOR.expected[2], PRIOR.expected[:2].mean(dim=0))


def test_what_sampling_begins_with_has_the_law_of_the_process_seen_through_noise() -> None:
    inside = torch.ones(6000, STEPS, dtype=torch.bool)
    context = torch.from_numpy(ANCHOR.relations.usual).expand(6000, -1)
    noise = torch.randn(6000, STEPS, 6, generator=torch.Generator().manual_seed(0))
    start = series_start(noise, 2.0, torch.ones(6000, dtype=torch.int64), context, PRIOR, PRIOR.stays(inside))
    waves = cosines(STEPS)
    whole = np.einsum("tk,sk,kcd->tcsd", waves, waves, covariances(ANCHOR, STEPS)).reshape(6 * STEPS, -1)
    found = np.cov(start.reshape(6000, -1).double().numpy().T)
    assert np.abs(found - whole - 4.0 * np.eye(6 * STEPS)).max() < 0.4
    assert np.abs(start.mean(dim=0).numpy() - expectations(ANCHOR)[1]).max() < 0.15


@pytest.mark.parametrize("spec", SPECS)
def test_what_stands_after_the_end_of_a_stay_changes_neither_belief_nor_loss_nor_gradient(spec: SeriesSpec) -> None:
    """Padding never leaks."""
    network = randomised(spec)
    x, sigma, labels, context, inside = rows()
    truth, seen = torch.randn(5, STEPS, 6), torch.ones(5, STEPS, 3)

    def results(x_after: float, truth_after: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        noisy = torch.where(inside[:, None, :, None], x, x_after)
        belief = series_posterior(network, noisy, sigma, labels, context, PRIOR, PRIOR.stays(inside))
        loss = series_loss(belief, torch.where(inside[:, :, None], truth, truth_after), seen, inside).sum()
        gradient = torch.autograd.grad(loss, list(network.parameters()))
        shown = torch.where(inside[:, None, :, None], belief.row, 0.0)
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


def test_the_loss_is_about_the_same_at_every_level() -> None:
    """In units of the posterior's spread: rows of the process lose half a unit per number, or a little less."""
    noise = torch.randn(4000, STEPS, 6, generator=torch.Generator().manual_seed(3))
    stays = PRIOR.stays(torch.ones(4000, STEPS, dtype=torch.bool))
    labels, context = torch.zeros(4000, dtype=torch.int64), torch.zeros(4000, SERIES_LAYOUT.context.width)
    clean = series_start(noise, 0.0, labels, context, PRIOR, stays)
    sigma = torch.tensor([0.1, 1.0, 10.0]).expand(4000, 3)
    x = clean[:, None] + sigma[..., None, None] * torch.randn(4000, 3, STEPS, 6)
    network = build_series_denoiser(SERIES_LAYOUT, SeriesSpec())
    belief = series_posterior(network, x, sigma, labels, context, PRIOR, stays)
    errors = ((belief.row - clean[:, None]) / belief.spread).square().mean(dim=(0, 2, 3))
    assert errors.tolist() == pytest.approx([1, 1, 1], abs=0.35)
