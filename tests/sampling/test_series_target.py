"""What guides: the mean gradient or the step that synthetic patients lack, and only while something is open."""

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
import torch
from torch import Tensor

from synclave_server.sampling.request import SampleRequest, resolve_request
from synclave_server.sampling.series import SeriesGenerator
from synclave_server.sampling.series_target import SeriesTarget
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.diffusion.curvature import clipped_gradients
from synclave_shared.diffusion.series import Belief
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.models.series.anchor import anchor_from_moments, contributions
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.standard import StandardRows
from synclave_shared.plan import InfluenceSpec, SeriesSpec
from tests.models.small_series import SERIES_LAYOUT, series_dataset

PATIENTS = 2000
REAL = series_dataset(PATIENTS)
ANCHOR, SHARES = anchor_from_moments(contributions(REAL, SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
SPEC = InfluenceSpec()
PARAMETERS = 0.3 * torch.randn(
    parameter_vector(build_series_classifier(SERIES_LAYOUT, SPEC)).size, generator=torch.Generator().manual_seed(0)
)
"""Of a clinical model that knows something."""


def standard(dataset: SeriesDataset) -> StandardRows:
    return StandardRows.of(dataset, np.arange(len(dataset)), ANCHOR, SERIES_LAYOUT)


def clinical_model() -> torch.nn.Module:
    network = build_series_classifier(SERIES_LAYOUT, SPEC)
    load_parameter_vector(network, PARAMETERS.numpy())
    return network


def gradients(rows: StandardRows) -> Tensor:
    """Every patient's, [n, P]."""
    parts = [torch.from_numpy(part) for part in (rows.values, rows.observed, rows.context, rows.inside)]
    labels = torch.from_numpy(rows.labels)
    weights = torch.tensor(SPEC.label_weights(SHARES.tolist()))[labels]
    return clipped_gradients(clinical_model(), parts, labels, weights, math.inf)


def target(guidance: Tensor, noise_std: float = 0.0) -> SeriesTarget:
    return SeriesTarget(
        spec=SPEC,
        parameters=PARAMETERS,
        guidance=guidance,
        noise_std=noise_std,
        clip_norm=math.inf,
        patients=PATIENTS,
        label_shares=SHARES.astype(np.float32),
    )


def belief(rows: StandardRows) -> Belief:
    values = torch.from_numpy(rows.values)[:, None]
    row = torch.cat([values, torch.zeros_like(values)], dim=-1)
    return Belief(row=row, spread=torch.full_like(row, 0.5))


def request(curvature: bool = True, seed: int = 3) -> SampleRequest:
    return resolve_request(
        patients=20,
        label_counts={"no": 10, "yes": 10},
        label_values=("no", "yes"),
        label_shares=None,
        corruption="series",
        anchored=False,
        sampler=None,
        steps=None,
        seed=seed,
        guidance=Decimal(0),
        target="0" * 64,
        target_strength=Decimal("0.2"),
        target_curvature=curvature,
    )


def moved(guide: SeriesTarget, trial: StandardRows | None, sigma: float = 0.5) -> Tensor:
    """How far the values of some patients are moved."""
    rows = standard(series_dataset(30, seed=9))
    before = belief(rows)
    levels = torch.full((30, 1), sigma)
    labels, context, inside = (torch.from_numpy(part) for part in (rows.labels, rows.context, rows.inside))
    placed = guide.on(SERIES_LAYOUT, torch.device("cpu"), trial)
    return placed.pushed(before, levels, labels, context, inside, request()).row - before.row


@pytest.fixture(scope="module")
def trial() -> StandardRows:
    """Synthetic patients whose third channel says nothing of the label."""
    rows = standard(series_dataset(PATIENTS, seed=5))
    values = rows.values.copy()
    values[..., 2] = np.random.default_rng(0).permutation(values[..., 2])
    return replace(rows, values=values)


def test_a_step_moves_patients_the_way_that_closes_the_gap(trial: StandardRows) -> None:
    real = gradients(standard(REAL)).mean(dim=0)
    rows = standard(series_dataset(400, seed=9))
    placed = target(real).on(SERIES_LAYOUT, torch.device("cpu"), trial)
    labels, context, inside = (torch.from_numpy(part) for part in (rows.labels, rows.context, rows.inside))
    before = belief(rows)
    after = placed.pushed(before, torch.full((400, 1), 0.5), labels, context, inside, request())
    pushed = replace(rows, values=after.row[:, 0].chunk(2, dim=-1)[0].numpy())
    gap = real - gradients(trial).mean(dim=0)
    change = (gradients(pushed) - gradients(rows)).mean(dim=0)
    assert torch.nn.functional.cosine_similarity(change, gap, dim=0) > 0.3


def test_nothing_is_moved_if_the_gap_is_no_longer_than_its_noise(trial: StandardRows) -> None:
    real = gradients(standard(REAL)).mean(dim=0)
    assert moved(target(real), trial).any()
    assert not moved(target(real, noise_std=1.0), trial).any()
    assert not moved(target(gradients(trial).mean(dim=0)), trial).any()
    assert moved(target(real), None).any()


def test_what_label_shares_explain_moves_nobody(trial: StandardRows) -> None:
    rows, labels = gradients(trial), torch.from_numpy(trial.labels)
    more_ill = 0.4 * rows[labels == 0].mean(dim=0) + 0.6 * rows[labels == 1].mean(dim=0)
    assert not moved(target(more_ill), trial).any()


@pytest.mark.parametrize(("sigma", "still"), [(8.0, True), (2.0, True), (0.5, False), (0.1, True)])
def test_patients_are_moved_only_while_something_is_open_and_seen(sigma: float, still: bool) -> None:
    assert moved(target(gradients(standard(REAL)).mean(dim=0)), None, sigma).any() != still


def test_rows_with_curvature_depend_on_the_request_alone() -> None:
    spec = SeriesSpec()
    parameters = parameter_vector(build_series_denoiser(SERIES_LAYOUT, spec))
    real = gradients(standard(REAL)).mean(dim=0)

    def drawn(numbers: list[int], curvature: bool) -> np.ndarray:
        model = SeriesGenerator(spec, SERIES_LAYOUT, parameters, ANCHOR, target=target(5 * real))
        return model.features(request(curvature), np.array(numbers), np.array(numbers) % 2)

    crowd = drawn(list(range(20)), curvature=True)
    assert np.array_equal(drawn([7, 4], curvature=True), crowd[[7, 4]])
    assert not np.array_equal(drawn([7, 4], curvature=False), crowd[[7, 4]])
