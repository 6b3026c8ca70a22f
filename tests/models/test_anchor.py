import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_shared.errors import ProtocolError
from synclave_shared.models.anchor import anchor_from_marginals, marginals_size
from tests.models.small import small_rows, small_schema


def exact_sums(features: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = np.stack([features[labels == label].sum(axis=0) for label in (0, 1)]).astype(np.float64)
    return np.concatenate([sums.ravel(), np.bincount(labels, minlength=2).astype(np.float64)])


def prevalence(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    found = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found[:, 9:12] = np.exp(logits[:, 9:12])
    return found


def test_without_noise_the_anchor_is_the_prevalence() -> None:
    features, labels = small_rows(20_000)
    anchor = anchor_from_marginals(exact_sums(features, labels), small_schema(), 0.0)
    for label in (0, 1):
        assert np.allclose(prevalence(anchor.logits)[label], features[labels == label].mean(axis=0), atol=0.02)
    assert anchor.label_shares == pytest.approx(np.bincount(labels) / len(labels))


def test_one_hot_groups_sum_to_one_under_any_noise() -> None:
    rng = np.random.default_rng(0)
    sums = rng.normal(scale=300.0, size=marginals_size(small_schema()))
    anchor = anchor_from_marginals(sums, small_schema(), 300.0)
    assert np.all(np.isfinite(anchor.logits))
    assert np.exp(anchor.logits[:, 9:12].astype(np.float64)).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert anchor.label_shares.sum() == pytest.approx(1.0)
    assert np.all(anchor.label_shares > 0)


def test_noise_does_not_invent_rare_codes() -> None:
    """The denoised total of 400 rare codes is closer to the truth than clipping the negative ones at zero."""
    from types import SimpleNamespace

    rng = np.random.default_rng(1)
    truth = np.where(rng.random(400) < 0.9, 2e-5, 0.05) * 20_000
    noise_std = 40.0
    schema = SimpleNamespace(width=400, groups=(), label=SimpleNamespace(values=("no", "yes")))
    sums = np.concatenate([truth * 0.7, truth * 0.3, [14_000.0, 6_000.0]])
    noisy = sums + rng.normal(scale=noise_std, size=sums.size)
    anchor = anchor_from_marginals(noisy, schema, noise_std)  # type: ignore[arg-type]
    found = 1 / (1 + np.exp(-anchor.logits.astype(np.float64)))
    total = (anchor.label_shares[:, None] * found).sum() * 20_000
    clipped = np.maximum(noisy[:400] + noisy[400:800], 0).sum()
    assert abs(total - truth.sum()) < 0.25 * abs(clipped - truth.sum())


def test_a_difference_between_labels_survives_noise_where_it_is_real() -> None:
    features, labels = small_rows(20_000)
    noisy = exact_sums(features, labels) + np.random.default_rng(2).normal(scale=30.0, size=26)
    found = prevalence(anchor_from_marginals(noisy, small_schema(), 30.0).logits)
    assert found[1, 3] - found[0, 3] == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("fault", ["length", "nan"])
def test_sums_of_another_length_or_not_finite_are_refused(fault: str) -> None:
    sums = np.ones(marginals_size(small_schema()))
    sums = sums[:-1] if fault == "length" else sums * np.nan
    with pytest.raises(ProtocolError):
        anchor_from_marginals(sums, small_schema(), 1.0)
