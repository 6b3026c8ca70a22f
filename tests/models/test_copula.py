import math

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_shared.errors import ProtocolError, SnapshotError
from synclave_shared.models.anchor import Anchor, anchor_from_marginals, prevalences
from synclave_shared.models.copula import (
    _denoised,
    _tetrachoric,
    copula_of_vector,
    copula_vector,
    expected_norm,
    fit_copula,
    independent_copula,
    moments_size,
    residual_scale,
    second_moments,
)
from synclave_shared.models.copula_drawing import sample_copula
from synclave_shared.models.layout import CodeLayout
from tests.models.small import LAYOUT, small_rows, small_schema
from tests.models.test_anchor import exact_sums


def exact_anchor(features: NDArray[np.uint8], labels: NDArray[np.int64]) -> Anchor:
    return anchor_from_marginals(exact_sums(features, labels), small_schema(), 0.0)


def test_a_patients_contribution_is_as_long_as_its_residual_squared_and_no_longer_than_the_clip_norm() -> None:
    features, labels = small_rows(300)
    anchor = exact_anchor(features, labels)
    centre, scale = prevalences(anchor, LAYOUT), residual_scale(anchor, LAYOUT)
    unit = expected_norm(anchor, LAYOUT)
    lengths = np.square((features - centre[labels]) / scale).sum(axis=1) / unit
    clip_norm = float(np.median(lengths))
    for patient in range(0, 300, 7):
        one = slice(patient, patient + 1)
        whole = second_moments(features[one], labels[one], anchor, LAYOUT, 1e9)
        clipped = second_moments(features[one], labels[one], anchor, LAYOUT, clip_norm)
        assert np.linalg.norm(whole) == pytest.approx(lengths[patient])
        assert np.linalg.norm(clipped) == pytest.approx(min(lengths[patient], clip_norm))
    assert lengths.mean() == pytest.approx(1.0, rel=0.2)


def test_patients_add_up_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = small_rows(50)
    anchor = exact_anchor(features, labels)
    one_by_one = sum(second_moments(features[i : i + 1], labels[i : i + 1], anchor, LAYOUT, 5.0) for i in range(50))
    monkeypatch.setattr("synclave_shared.models.copula.CHUNK_PATIENTS", 7)
    assert second_moments(features, labels, anchor, LAYOUT, 5.0) == pytest.approx(one_by_one)
    assert np.all(second_moments(features[:0], labels[:0], anchor, LAYOUT, 5.0) == 0)


def fitted(noise_std: float = 0.0, patients: int = 20_000) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Real and synthetic patients of the small schema."""
    features, labels = small_rows(patients)
    anchor = exact_anchor(features, labels)
    noise_std /= expected_norm(anchor, LAYOUT)
    moments = second_moments(features, labels, anchor, LAYOUT, 2.0)
    moments += np.random.default_rng(3).normal(scale=noise_std, size=moments.size)
    copula = fit_copula(moments, noise_std, anchor, LAYOUT)
    return features, sample_copula(copula, labels, np.random.default_rng(4))


@pytest.mark.parametrize("noise_std", [0.0, 300.0, 1e6])
def test_prevalences_are_the_anchors_whatever_the_noise(noise_std: float) -> None:
    real, synthetic = fitted(noise_std)
    assert np.all(synthetic[:, 9:12].sum(axis=1) == 1)
    # Two samples of 20,000: five standard errors are 0.025.
    assert synthetic.mean(axis=0) == pytest.approx(real.mean(axis=0), abs=0.025)


@pytest.mark.parametrize("noise_std", [0.0, 300.0])
def test_correlations_survive_noise(noise_std: float) -> None:
    real, synthetic = fitted(noise_std)
    truth, found = np.corrcoef(real[:, :9].T), np.corrcoef(synthetic[:, :9].T)
    assert truth[0, 1] > 0.4
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert found[pair] == pytest.approx(truth[pair], abs=0.08)
    assert np.abs(found[4:, :4]).max() < 0.05


def test_noise_alone_makes_independent_patients() -> None:
    _, synthetic = fitted(noise_std=1e6)
    found = np.corrcoef(synthetic[:, :9].T)
    assert np.abs(found - np.eye(9)).max() < 0.05


def test_a_one_hot_group_follows_codes_and_other_groups() -> None:
    rng = np.random.default_rng(5)
    layout = CodeLayout(width=7, categories=((1, 4), (4, 7)), label_values=1)
    code = rng.random(40_000) < 0.4
    kind = np.where(rng.random(40_000) < 0.4, code * 2, rng.integers(0, 3, 40_000))
    other = np.where(rng.random(40_000) < 0.3, kind, rng.integers(0, 3, 40_000))
    features = np.column_stack([code, np.eye(3)[kind], np.eye(3)[other]]).astype(np.uint8)
    labels = np.zeros(len(features), np.int64)
    share = features.mean(axis=0)
    logits = np.concatenate([np.log(share[:1] / (1 - share[:1])), np.log(share[1:])])[None].astype(np.float32)
    anchor = Anchor(logits=logits, label_shares=np.ones(1))
    moments = second_moments(features, labels, anchor, layout, 100.0)
    synthetic = sample_copula(fit_copula(moments, 0.0, anchor, layout), labels, rng)
    assert synthetic.mean(axis=0) == pytest.approx(share, abs=0.02)
    truth, found = np.corrcoef(features.T), np.corrcoef(synthetic.T)
    across = np.ix_([0, 1, 2, 3], [4, 5, 6])
    assert np.corrcoef(truth[across].ravel(), found[across].ravel())[0, 1] > 0.9
    assert np.corrcoef(truth[0, 1:4], found[0, 1:4])[0, 1] > 0.95


def test_a_spike_is_shrunk_as_the_theory_of_large_matrices_says() -> None:
    """Of a spike of length theta, sqrt(value^2 - 4 D s^2) = theta - D s^2 / theta is the best multiple to keep."""
    rng = np.random.default_rng(6)
    width, noise_std, theta = 400, 1.0, 60.0
    direction = rng.normal(size=width)
    direction /= np.linalg.norm(direction)
    noise = rng.normal(scale=noise_std, size=(width, width))
    observed = theta * np.outer(direction, direction) + (noise + noise.T) / math.sqrt(2.0)
    values = np.linalg.eigvalsh(_denoised(observed, noise_std))
    assert values[-1] == pytest.approx(theta - width / theta, rel=0.03)
    # What is left of the noise: the bulk reached from -40 to 40.
    assert np.abs(values[:-1]).max() < 8.0


def test_tetrachoric_correlations_reproduce_covariances() -> None:
    rng = np.random.default_rng(7)
    truth, prevalence = 0.6, np.array([[0.3, 0.05], [0.5, 0.2]])
    shares = np.array([0.75, 0.25])
    latent = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], size=400_000)
    thresholds = np.quantile(rng.standard_normal(400_000), 1 - prevalence)
    covariance = np.zeros((2, 2))
    for share, row in zip(shares, thresholds, strict=True):
        covariance += share * np.cov((latent > row).T)
    assert _tetrachoric(covariance, thresholds, shares)[0, 1] == pytest.approx(truth, abs=0.02)
    impossible = np.array([[0.0, -1.0], [-1.0, 0.0]])
    assert -1.0 < _tetrachoric(impossible, thresholds, shares)[0, 1] < -0.9


@pytest.mark.parametrize("spoil", [lambda m: m[:-1], lambda m: np.full_like(m, np.nan)])
def test_moments_that_are_none_are_refused(spoil: object) -> None:
    features, labels = small_rows(10)
    anchor = exact_anchor(features, labels)
    moments = spoil(np.zeros(moments_size(LAYOUT)))  # type: ignore[operator]
    with pytest.raises(ProtocolError, match="finite moments"):
        fit_copula(moments, 1.0, anchor, LAYOUT)


def test_a_copula_survives_its_vector_whatever_the_number_of_factors() -> None:
    features, labels = small_rows(20_000)
    anchor = exact_anchor(features, labels)
    fit = fit_copula(second_moments(features, labels, anchor, LAYOUT, 2.0), 0.0, anchor, LAYOUT)
    alone = independent_copula(anchor, LAYOUT)
    assert (fit.loadings.shape[1] > 0, alone.loadings.shape[1]) == (True, 0)
    for copula in (fit, alone):
        again = copula_of_vector(copula_vector(copula), copula.label_shares, LAYOUT)
        assert np.array_equal(again.loadings, copula.loadings)
        assert np.array_equal(again.levels, copula.levels)
    for size in (23, 25):
        with pytest.raises(SnapshotError, match="12 columns"):
            copula_of_vector(np.zeros(size, np.float32), np.ones(2), LAYOUT)


def test_without_moments_columns_are_independent_and_as_common_as_the_anchor_says() -> None:
    features, labels = small_rows(20_000)
    synthetic = sample_copula(
        independent_copula(exact_anchor(features, labels), LAYOUT), labels, np.random.default_rng(4)
    )
    assert synthetic.mean(axis=0) == pytest.approx(features.mean(axis=0), abs=0.025)
    within = [np.corrcoef(synthetic[labels == label, :9].T) for label in (0, 1)]
    assert max(np.abs(found - np.eye(9)).max() for found in within) < 0.07
