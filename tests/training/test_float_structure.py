"""The attack on the float structure of noised numbers: it wins against float sums and learns nothing of a release.

The attacker knows two candidate sums, without and with one patient (L2 distance 1, noise of standard deviation 1), and
sees one published vector. It uses no likelihood, which differential privacy allows to be worth something, but asks only
which of the two sums a noise generator of floats could have turned into exactly these numbers. Undecided, it guesses.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synclave_client.training.noise import SecretRandomness
from synclave_client.training.release import fixed_point_update
from synclave_shared.fixed_point import from_fixed

TRIALS = 100
COORDINATES = 1_000
SUM_SIZE = 0.3
"""Typical size of a coordinate of the clipped sum, in standard deviations of the noise."""

Vector = NDArray[np.float64]
Channel = Callable[[Vector, int], Vector]
Score = Callable[[Vector, Vector], int]


def publish_float32(total: Vector, trial: int) -> Vector:
    """What DP-SGD with ``torch.randn`` does: all in float32."""
    noise = torch.randn(total.size, generator=torch.Generator().manual_seed(trial))
    return (torch.from_numpy(total.astype(np.float32)) + noise).numpy().astype(np.float64)


def randomness(trial: int) -> SecretRandomness:
    return SecretRandomness(trial.to_bytes(32, "big"))


def publish_float64(total: Vector, trial: int) -> Vector:
    """Secret noise as float64 numbers, which are then added; not our code path."""
    return total + randomness(trial).normal(total.size)


def released(total: Vector) -> Vector:
    """A model of zeros and a step of size one blur nothing: best for the attacker."""
    return from_fixed(fixed_point_update(np.zeros(total.size, np.float32), total, update_norm=1e6))


def release(total: Vector, trial: int) -> Vector:
    """The code path of a round."""
    noised = total.copy()
    randomness(trial).add_normal(noised, 1.0)
    return released(noised)


def possible(published: Vector, candidate: Vector, dtype: type[np.floating]) -> NDArray[np.bool_]:
    """Where some float of ``dtype`` added to ``candidate`` gives exactly ``published``.

    The reals that do form an interval around ``published - candidate``; if it holds a float, it holds one of the two
    that enclose this difference, hence the rounded difference or a neighbour of it.
    """
    y, x = published.astype(dtype), candidate.astype(dtype)
    nearest = y - x
    found = np.zeros(y.shape, bool)
    for noise in (nearest, np.nextafter(nearest, dtype(-np.inf)), np.nextafter(nearest, dtype(np.inf))):
        found |= x + noise == y
    return np.asarray(found & (y == published))


def possible_in_float32(published: Vector, candidate: Vector) -> int:
    """Coordinates that float32 noise within the reach of torch's 24-bit Box-Muller, 5.77, explains."""
    reachable = np.abs(published - candidate) <= np.sqrt(48 * np.log(2))
    return int(np.count_nonzero(possible(published, candidate, np.float32) & reachable))


def possible_in_float64(published: Vector, candidate: Vector) -> int:
    """Coordinates that float64 noise explains."""
    return int(np.count_nonzero(possible(published, candidate, np.float64)))


def odd_differences(published: Vector, candidate: Vector) -> int:
    """Differences whose lowest bit is set.

    The true difference is often the noise itself, odd half of the time; a wrong one often lies half-way between two
    floats and is rounded to the even one.
    """
    return int(np.count_nonzero((published - candidate).view(np.int64) & 1))


def odd_differences_on_the_grid(published: Vector, candidate: Vector) -> int:
    """The same in units of the grid, against the candidate as it would be rounded."""
    return int(np.count_nonzero(np.rint((published - released(candidate)) * 2.0**20).astype(np.int64) & 1))


def wins(attack: Score, publish: Channel) -> int:
    """How often in 100 trials the attacker tells whether the patient was there."""
    rng = np.random.default_rng(7)
    won = 0
    for trial in range(TRIALS):
        without = SUM_SIZE * rng.standard_normal(COORDINATES)
        patient = rng.standard_normal(COORDINATES)
        with_patient = without + patient / np.linalg.norm(patient)
        present = bool(rng.integers(2))
        published = publish(with_patient if present else without, trial)
        difference = attack(published, with_patient) - attack(published, without)
        guess = bool(rng.integers(2)) if difference == 0 else difference > 0
        won += guess == present
    return won


def test_float32_noise_gives_the_patient_away_in_every_trial() -> None:
    assert wins(possible_in_float32, publish_float32) == TRIALS


def test_float64_noise_without_the_grid_would_give_the_patient_away_in_every_trial() -> None:
    assert wins(possible_in_float64, publish_float64) == TRIALS


def test_the_lowest_bits_of_float64_noise_would_tell_of_the_patient_without_the_grid() -> None:
    """By chance more than 70 wins in 100 come once in 60,000."""
    assert wins(odd_differences, publish_float64) > 70


@pytest.mark.parametrize(
    "attack", [possible_in_float32, possible_in_float64, odd_differences, odd_differences_on_the_grid]
)
def test_a_release_gives_no_attack_on_the_float_structure_more_than_chance(attack: Score) -> None:
    """A fair coin is outside 30 to 70 in 100 with probability 3.2e-5."""
    assert 30 <= wins(attack, release) <= 70
