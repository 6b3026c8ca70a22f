"""The law of noise and coins. Seeds are fixed; the error rate of each statistical test is stated."""

import math
from decimal import Decimal

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_client.training.batch_selection import select_patients
from synclave_client.training.noise import SecretRandomness

KEY = bytes(range(32))


def has_std(values: NDArray[np.float64], std: float) -> bool:
    """Whether a normal sample's variance fits ``std``: two-sided, wrong once in 100,000 at the right value."""
    error = math.sqrt(2 / values.size)
    return abs(float(np.mean(np.square(values / std))) - 1) < 4.42 * error


def test_noise_is_standard_normal() -> None:
    values = SecretRandomness(KEY).normal(200_000)
    assert has_std(values, 1.0)
    assert abs(float(values.mean())) < 4.42 / math.sqrt(values.size)
    ordered = np.sort(values)
    normal = 0.5 * (1 + np.vectorize(math.erf)(ordered / math.sqrt(2)))
    distance = float(np.abs(normal - (np.arange(values.size) + 0.5) / values.size).max())
    assert distance < 2.47 / math.sqrt(values.size)  # Kolmogorov-Smirnov, 1 in 100,000


@pytest.mark.parametrize("wrong", [2 / 3, 3 / 2])
def test_noise_of_another_size_would_be_seen(wrong: float) -> None:
    assert not has_std(wrong * SecretRandomness(KEY).normal(2_000), 1.0)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 2**18, 2**18 + 3])
def test_any_count_is_delivered_and_finite(count: int) -> None:
    values = SecretRandomness(KEY).normal(count)
    assert values.shape == (count,)
    assert np.all(np.isfinite(values))


def test_two_streams_of_the_operating_system_differ() -> None:
    assert not np.array_equal(SecretRandomness.from_os().integers(4), SecretRandomness.from_os().integers(4))


def test_a_stream_does_not_repeat_itself() -> None:
    randomness = SecretRandomness(KEY)
    assert not np.array_equal(randomness.uniform(100), randomness.uniform(100))


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        SecretRandomness(b"short")


def test_coins_are_finer_than_float32() -> None:
    coins = SecretRandomness(KEY).uniform(1_000)
    assert np.any(coins != coins.astype(np.float32))
    assert coins.min() >= 0
    assert coins.max() < 1


def test_batch_sizes_are_binomial_and_patients_independent() -> None:
    """Mean and variance within 4.5 standard errors; a shuffled selection would have variance 0."""
    randomness = SecretRandomness(KEY)
    patients, rate, steps = 300, 0.1, 2_000
    chosen = np.zeros((steps, patients), bool)
    for step in range(steps):
        chosen[step, select_patients(patients, Decimal("0.1"), randomness)] = True
    sizes = chosen.sum(axis=1)
    variance = patients * rate * (1 - rate)
    assert abs(float(sizes.mean()) - patients * rate) < 4.5 * math.sqrt(variance / steps)
    assert abs(float(sizes.var()) / variance - 1) < 4.5 * math.sqrt(2 / steps)
    counts = chosen.sum(axis=0)
    assert np.abs(counts - steps * rate).max() < 4.9 * math.sqrt(steps * rate * (1 - rate))


def test_selection_at_the_edges() -> None:
    randomness = SecretRandomness(KEY)
    assert select_patients(5, Decimal(1), randomness).tolist() == [0, 1, 2, 3, 4]
    assert select_patients(0, Decimal("0.5"), randomness).size == 0
