"""What one noisy sum tells of time series."""

from dataclasses import replace

import numpy as np
import pytest

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.filling import filled
from synclave_shared.errors import ProtocolError
from synclave_shared.models.anchor import Anchor, prevalences
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.series.anchor import (
    BINS,
    EARLY_WEIGHT,
    EVER_WEIGHT,
    PAIR_WEIGHT,
    RELATIONS_PART,
    SeriesAnchor,
    anchor_from_moments,
    context_columns,
    contributions,
    moments_size,
    usual_anchor,
)
from synclave_shared.models.series.inertia import lags
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.relations import relations_size
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_dataset


def test_gaps_are_filled_from_the_patients_own_record_forward_and_back() -> None:
    values = np.array([[[0.0], [0.5], [0.0], [-0.25], [0.0]], [[0.0], [0.0], [0.0], [0.0], [0.0]]], np.float32)
    observed = np.array([[[0], [1], [0], [1], [0]], [[0], [0], [0], [0], [0]]], np.uint8)
    found = filled(values, observed)
    assert found[0, :, 0].tolist() == [0.5, 0.5, 0.5, -0.25, -0.25]
    assert not found[1].any()


def test_a_patients_moments_are_what_the_text_says() -> None:
    """One patient, worked out by hand: a stay of two of three steps, one channel."""
    layout = SeriesLayout(steps=3, channels=1, context=CodeLayout(width=5, categories=((0, 2), (2, 5)), label_values=2))
    patient = SeriesDataset(
        values=np.array([[[0.5], [0.0], [0.0]]], np.float32),
        observed=np.array([[[1], [1], [0]]], np.uint8),
        lengths=np.array([2]),
        static=np.array([[0, 1]], np.uint8),
        labels=np.array([1]),
        patient_ids=["p"],
    )
    assert lags(3) == (0, 1, 2)
    context, share, ever, mean = [0, 1, 0, 1, 0], [1.0], [EVER_WEIGHT], [0.25]
    nobody = [0.0] * 8
    square = [(0.25 + 0.0) / 2]
    variogram = [0.125, PAIR_WEIGHT, 0, 0]  # half of 0.5 squared at lag 1; nothing is two steps apart
    bins = np.zeros(BINS)
    bins[[BINS // 2, 3 * BINS // 4]] = 0.5  # the bins that begin at 0 and at 0.5
    early = [EARLY_WEIGHT, EARLY_WEIGHT, 0.0]  # both steps were measured; the third is none of the stay
    expected = [*nobody, *context, *share, *ever, *mean, 0, 1, *square, *variogram, *bins, *early]
    found = contributions(patient, layout, 100.0)
    assert found[: len(expected)].tolist() == expected
    assert len(found) == len(expected) + relations_size(layout)
    bounded = np.sqrt(1 - RELATIONS_PART) / np.sqrt(np.square(expected).sum())
    np.testing.assert_allclose(contributions(patient, layout, 1.0)[: len(expected)], np.array(expected) * bounded)


@pytest.mark.parametrize("clip_norm", [0.5, 2.0, 50.0])
def test_a_patient_more_moves_the_sum_by_at_most_the_clip_norm(clip_norm: float) -> None:
    everybody = series_dataset(40)
    extreme = replace(
        series_dataset(1, seed=5),
        values=np.ones((1, STEPS, 3), np.float32),
        observed=np.ones((1, STEPS, 3), np.uint8),
        lengths=np.array([STEPS]),
        patient_ids=["extreme"],
    )
    for one in (extreme, series_dataset(1, seed=9)):
        moved = contributions(one, SERIES_LAYOUT, clip_norm)
        assert np.linalg.norm(moved) <= clip_norm * (1 + 1e-12)
    total = contributions(everybody, SERIES_LAYOUT, clip_norm)
    alone = sum(contributions(everybody.select(np.array([i])), SERIES_LAYOUT, clip_norm) for i in range(40))
    np.testing.assert_allclose(total, alone)


def processes(patients: int, seed: int) -> SeriesDataset:
    """Half of the variance between patients, the rest fading by 0.6 a step; mean -0.2, deviation 0.2."""
    rng = np.random.default_rng(seed)
    course = np.empty((patients, STEPS, 3))
    state = rng.normal(size=(patients, 3))
    level = rng.normal(size=(patients, 3))
    for step in range(STEPS):
        course[:, step] = -0.2 + 0.2 * np.sqrt(0.5) * (level + state)
        state = 0.6 * state + 0.8 * rng.normal(size=(patients, 3))
    labels = (rng.random(patients) < 0.4).astype(np.int64)
    course[:, :, 2] += 0.2 * labels[:, None]
    return replace(
        series_dataset(patients, seed),
        values=np.clip(course, -1, 1).astype(np.float32),
        observed=np.ones((patients, STEPS, 3), np.uint8),
        lengths=np.full(patients, STEPS),
        labels=labels,
    )


@pytest.mark.parametrize("noise_std", [0.0, 30.0])
def test_the_anchor_finds_quantiles_inertia_and_the_labels_shift(noise_std: float) -> None:
    sums = contributions(processes(6000, 0), SERIES_LAYOUT, 1e6)
    sums = sums + noise_std * np.random.default_rng(1).standard_normal(sums.size)
    anchor, shares = anchor_from_moments(sums, SERIES_LAYOUT, noise_std)
    assert shares == pytest.approx([0.6, 0.4], abs=0.02)
    middle, upper = (anchor.values(np.full(3, score, np.float32)) for score in (0.0, 1.0))
    assert middle[:2] == pytest.approx([-0.2, -0.2], abs=0.02)
    assert (upper - middle)[:2] == pytest.approx([0.2, 0.2], abs=0.02 if noise_std == 0 else 0.05)
    expected = 0.5 + 0.5 * 0.6 ** np.arange(STEPS)
    tolerance = 0.06 if noise_std == 0 else 0.25
    assert np.abs(anchor.inertia[:2] - expected).max() < tolerance
    # 0.2 apart at a deviation of 0.22.
    assert anchor.shift[1, 2] - anchor.shift[0, 2] == pytest.approx(0.9, abs=0.15)
    assert np.abs(anchor.shift[:, :2]).max() < 0.15


def test_of_noise_alone_comes_an_anchor_that_claims_little() -> None:
    sums = 500.0 * np.random.default_rng(0).standard_normal(moments_size(SERIES_LAYOUT))
    anchor, _ = anchor_from_moments(sums, SERIES_LAYOUT, 500.0)
    assert np.abs(anchor.shift).max() < 1.0
    assert np.array_equal(SeriesAnchor.from_vector(anchor.to_vector(), SERIES_LAYOUT).quantiles, anchor.quantiles)


def test_noise_in_the_empty_bins_of_wide_bounds_does_not_become_patients() -> None:
    """Channels within a tenth of their bounds: of what noise puts outside little is left."""
    narrow = processes(3000, 0)
    narrow = replace(narrow, values=np.clip(0.25 * narrow.values, -1, 1))
    sums = contributions(narrow, SERIES_LAYOUT, 1e6) + 15.0 * np.random.default_rng(1).standard_normal(
        moments_size(SERIES_LAYOUT)
    )
    anchor, _ = anchor_from_moments(sums, SERIES_LAYOUT, 15.0)
    beyond = anchor.scores(np.array([[-0.4] * 3, [0.4] * 3], np.float32))
    assert beyond[0].max() < -1.8
    assert beyond[1].min() > 1.8


def test_scores_are_normal_and_values_come_back() -> None:
    dataset = processes(4000, 2)
    anchor, _ = anchor_from_moments(contributions(dataset, SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
    scores = anchor.scores(dataset.values)
    assert np.abs(scores.mean(axis=(0, 1))).max() < 0.02
    assert np.abs(scores.std(axis=(0, 1)) - 1).max() < 0.03
    inside = np.abs(dataset.values) < 0.9
    assert np.abs(anchor.values(scores) - dataset.values)[inside].max() < 1e-3


def test_what_is_recorded_how_often_and_how_long_are_prevalences() -> None:
    dataset = series_dataset(3000)
    anchor, _ = anchor_from_moments(contributions(dataset, SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
    context = SERIES_LAYOUT.context
    known = prevalences(Anchor(logits=anchor.context, label_shares=np.ones(2) / 2), context)
    for label in (0, 1):
        chosen = dataset.labels == label
        truth = context_columns(dataset.static[chosen], dataset.lengths[chosen], SERIES_LAYOUT).mean(axis=0)
        assert np.abs(known[label] - truth).max() < 0.02
        shares = (dataset.observed[chosen].sum(axis=1) / dataset.lengths[chosen, None]).mean(axis=0)
        assert 1 / (1 + np.exp(-anchor.observed[label])) == pytest.approx(shares, abs=0.02)


def test_shares_measured_are_told_apart_by_step() -> None:
    """The first hour is another than the rest."""
    dataset = series_dataset(4000)
    observed = dataset.observed.copy()
    observed[:, 0, 1], observed[:, 0, 2] = 0, 1
    dataset = replace(dataset, observed=observed, values=np.where(observed, dataset.values, 0))
    sums = contributions(dataset, SERIES_LAYOUT, 1e6)
    for noise_std, tolerance in ((0.0, 0.03), (20.0, 0.1)):
        noisy = sums + noise_std * np.random.default_rng(0).standard_normal(sums.size)
        measured = anchor_from_moments(noisy, SERIES_LAYOUT, noise_std)[0].measured().mean(axis=0)
        inside = np.arange(STEPS) < dataset.lengths[:, None]
        truth = observed.sum(axis=0) / inside.sum(axis=0)[:, None]
        assert np.abs(measured[:2] - truth[:2]).max() < 0.08 + tolerance


def test_an_anchor_travels_as_one_vector_and_impossible_ones_are_refused() -> None:
    anchor, _ = anchor_from_moments(contributions(series_dataset(300), SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
    vector = anchor.to_vector()
    again = SeriesAnchor.from_vector(vector, SERIES_LAYOUT)
    for name in ("context", "observed", "pace", "quantiles", "shift", "inertia"):
        assert np.array_equal(getattr(again, name), getattr(anchor, name))
    usual = usual_anchor(SERIES_LAYOUT)
    wrong = [
        vector[:-1],
        np.where(np.arange(vector.size) == 3, np.nan, vector),
        replace(usual, quantiles=np.zeros((3, BINS + 1), np.float32)).to_vector(),
        replace(usual, inertia=np.full((3, STEPS), 2.0, np.float32)).to_vector(),
    ]
    for one in wrong:
        with pytest.raises(ProtocolError):
            SeriesAnchor.from_vector(one.astype(np.float32), SERIES_LAYOUT)


def test_moments_of_another_length_or_not_finite_are_refused() -> None:
    sums = np.zeros(moments_size(SERIES_LAYOUT))
    for wrong in (sums[1:], np.full_like(sums, np.inf)):
        with pytest.raises(ProtocolError):
            anchor_from_moments(wrong, SERIES_LAYOUT, 1.0)


@pytest.mark.parametrize("seed", range(25))
def test_every_anchor_that_is_estimated_is_one_that_sites_take(seed: int) -> None:
    """Whatever noise, or a site that makes its sums up: or the budget of the marginals would be spent for nothing."""
    rng = np.random.default_rng(seed)
    two_valued = processes(200, seed)
    two_valued = replace(two_valued, values=np.where(two_valued.values > -0.2, 0.5, -0.5).astype(np.float32))
    sums = contributions(two_valued, SERIES_LAYOUT, 1e6) + 6.0 * rng.standard_normal(moments_size(SERIES_LAYOUT))
    for hostile in (sums, 1e6 * rng.standard_normal(sums.size), np.where(np.arange(sums.size) % 2, 1e9, -1e9)):
        anchor, _ = anchor_from_moments(hostile, SERIES_LAYOUT, 6.0)
        assert np.array_equal(SeriesAnchor.from_vector(anchor.to_vector(), SERIES_LAYOUT).shift, anchor.shift)
