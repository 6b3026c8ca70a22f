"""The law of noise and coins. Seeds are fixed; the error rate of each statistical test is stated."""

import math
from collections.abc import Iterator
from decimal import Decimal
from statistics import NormalDist

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synclave_client.training.batch_selection import select_patients
from synclave_client.training.noise import CHUNK_VALUES, SecretRandomness, add_gaussian

KEY = bytes(range(32))
MANY = 2**22


@pytest.fixture(scope="module")
def many_values() -> NDArray[np.float64]:
    """16 chunks, enough for several threads."""
    return noise(MANY)


@pytest.fixture
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def noise(count: int, std: float = 1.0, key: bytes = KEY) -> NDArray[np.float64]:
    values = np.zeros(count)
    SecretRandomness(key).add_normal(values, std)
    return values


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
    assert has_std(noise(2_000, std=0.7), 0.7)
    assert not has_std(noise(2_000, std=wrong * 0.7), 0.7)


def test_four_moments_of_the_noise_are_normal(many_values: NDArray[np.float64]) -> None:
    """Each within 4.42 standard errors: 1 in 100,000."""
    assert has_std(many_values, 1.0)
    for power, expected, variance in [(1, 0, 1), (3, 0, 15), (4, 3, 96), (6, 15, 10_170)]:
        found = float(np.mean(many_values**power))
        assert abs(found - expected) < 4.42 * math.sqrt(variance / MANY), power


def test_the_noise_fills_256_equally_likely_bins_equally(many_values: NDArray[np.float64]) -> None:
    """Chi-square with 255 degrees of freedom is above 364 once in 100,000."""
    edges = [NormalDist().inv_cdf(k / 256) for k in range(1, 256)]
    counts = np.bincount(np.searchsorted(edges, many_values), minlength=256)
    expected = MANY / 256
    assert float(np.sum((counts - expected) ** 2) / expected) < 364


@pytest.mark.parametrize("threshold", [3.0, 4.0, 4.5])
@pytest.mark.parametrize("side", [-1, 1])
def test_tails_have_the_normal_weight_on_each_side(
    many_values: NDArray[np.float64], threshold: float, side: int
) -> None:
    """Within 5 standard errors (the Poisson law is skew): less than 1 in 100,000."""
    expected = MANY * NormalDist().cdf(-threshold)
    assert abs(np.count_nonzero(side * many_values > threshold) - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("distance", [1, 2, CHUNK_VALUES // 2, CHUNK_VALUES, 2 * CHUNK_VALUES])
def test_neighbours_pairs_and_chunks_are_independent(many_values: NDArray[np.float64], distance: int) -> None:
    """Values and squares are uncorrelated within 4.42 standard errors: half a chunk apart lie the two numbers of one
    radius, one chunk apart the work of another thread."""
    first, second = many_values[:-distance], many_values[distance:]
    error = 4.42 / math.sqrt(first.size)
    assert abs(float(np.mean(first * second))) < error
    assert abs(float(np.mean((first**2 - 1) * (second**2 - 1)))) < 2 * error


def test_no_value_comes_twice_in_four_million(many_values: NDArray[np.float64]) -> None:
    """By chance once in some thousands of keys; a repeated block of the key stream would give thousands."""
    assert np.unique(many_values).size == MANY


@pytest.mark.parametrize(
    "count", [0, 1, 2, 3, 7, CHUNK_VALUES - 1, CHUNK_VALUES, CHUNK_VALUES + 1, 2 * CHUNK_VALUES + 3]
)
def test_every_value_of_any_count_gets_finite_noise(count: int) -> None:
    values = SecretRandomness(KEY).normal(count)
    assert values.shape == (count,)
    assert np.all(np.isfinite(values))
    assert np.all(values != 0)
    assert np.unique(values).size == count


@pytest.mark.parametrize("count", [5, 10_001, CHUNK_VALUES, 3 * CHUNK_VALUES + 5])
@pytest.mark.usefixtures("torch_threads")
def test_the_noise_depends_on_the_key_and_not_on_the_number_of_threads(count: int) -> None:
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(noise(count))
        assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.any(found[0] == noise(count, key=bytes(32)))


def test_each_call_has_noise_of_its_own_and_leaves_the_coins_alone() -> None:
    randomness = SecretRandomness(KEY)
    first, coins, second = randomness.normal(1_000), randomness.integers(1_000), randomness.normal(1_000)
    assert not np.any(np.isin(first, second))
    np.testing.assert_array_equal(coins, SecretRandomness(KEY).integers(1_000))


def test_noise_is_added_to_what_was_there() -> None:
    start = np.linspace(-50.0, 50.0, CHUNK_VALUES + 11)
    values = start.copy()
    SecretRandomness(KEY).add_normal(values, 3.0)
    np.testing.assert_allclose(values - start, noise(start.size, std=3.0), rtol=0, atol=1e-13)


def test_noise_of_size_zero_changes_nothing() -> None:
    values = np.linspace(-1.0, 1.0, 100)
    SecretRandomness(KEY).add_normal(values, 0.0)
    np.testing.assert_array_equal(values, np.linspace(-1.0, 1.0, 100))


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf])
def test_a_senseless_size_is_refused(std: float) -> None:
    values = np.ones(10)
    with pytest.raises(ValueError, match="standard deviation"):
        SecretRandomness(KEY).add_normal(values, std)
    np.testing.assert_array_equal(values, np.ones(10))


@pytest.mark.parametrize(
    "values", [np.ones(10, np.float32), np.ones((2, 5)), np.ones(20)[::2], np.frombuffer(bytes(80))]
)
def test_what_is_no_contiguous_float64_vector_is_refused(values: NDArray[np.float64]) -> None:
    before = values.copy()
    with pytest.raises(ValueError, match="float64 vector"):
        SecretRandomness(KEY).add_normal(values, 1.0)
    np.testing.assert_array_equal(values, before)


def mapped(radius_words: list[int], angle_words: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    half = len(radius_words)
    words = np.array(radius_words + angle_words, np.uint64).view(np.int64)
    values = torch.zeros(2 * half, dtype=torch.float64)
    add_gaussian(values, torch.from_numpy(words), 1.0, torch.empty(half, dtype=torch.float64))
    return values[:half].numpy(), values[half:].numpy()


EXTREME_WORDS = [0, 1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, 3 * 2**62, 2**64 - 2, 2**64 - 1]


@pytest.mark.parametrize("radius_word", EXTREME_WORDS)
def test_extreme_integers_give_finite_numbers_of_opposite_sign(radius_word: int) -> None:
    cosines, sines = mapped([radius_word] * 9, EXTREME_WORDS)
    assert np.all(np.isfinite(cosines))
    assert np.all(np.isfinite(sines))
    # 0 and 2**64 - 1, 1 and 2**64 - 2, ...: a word and its complement.
    np.testing.assert_array_equal(sines[[0, 1, 2, 3]], -sines[[8, 7, 6, 4]])
    np.testing.assert_array_equal(cosines[[0, 1, 2, 3]], cosines[[8, 7, 6, 4]])


def test_the_smallest_uniform_gives_the_largest_radius_and_the_largest_gives_none() -> None:
    farthest = math.sqrt(128 * math.log(2))
    cosines, sines = mapped([0, 2**64 - 1, 2**63, 2**63 - 1], [0, 0, 0, 0])
    np.testing.assert_allclose(np.hypot(cosines, sines), [farthest, farthest, 0, 0], rtol=1e-15)


def test_the_mapping_is_that_of_box_and_muller_to_the_last_digits() -> None:
    """Against the formula in extended precision; u near 1 has spacing 2**-53, which a small radius magnifies."""
    words = SecretRandomness(KEY).integers(20_000).copy()
    # From 1 to 2**63 alike: the tail as well.
    words[:5_000] >>= (np.arange(5_000) % 64).astype(np.uint64)
    cosines, sines = mapped(words[:10_000].tolist(), words[10_000:].tolist())
    exact = words.view(np.int64).astype(np.longdouble) + np.longdouble(0.5)
    radius = np.sqrt(-2 * np.log(np.abs(exact[:10_000]) / np.longdouble(2) ** 63))
    angle = exact[10_000:] / np.longdouble(2) ** 63 * (4 * np.arctan(np.longdouble(1)))
    bound = 1e-15 * (5 + 1 / radius)
    assert np.all(np.abs(cosines - radius * np.cos(angle)) < bound)
    assert np.all(np.abs(sines - radius * np.sin(angle)) < bound)


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
