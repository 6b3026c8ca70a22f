import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_server.sampling.philox import PatientRandomness, philox4x32


def words(*values: int) -> tuple[NDArray[np.uint64], ...]:
    return tuple(np.array([value], np.uint64) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_the_random123_library(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert tuple(int(word[0]) for word in philox4x32(words(*counter), key)) == expected


def test_numbers_depend_on_patient_purpose_and_seed_alone() -> None:
    randomness = PatientRandomness(7)
    together = randomness.uniform(np.arange(10), 6, 0)
    assert np.array_equal(together[4:5], randomness.uniform(np.array([4]), 6, 0))
    assert np.array_equal(together[:, :3], randomness.uniform(np.arange(10), 3, 0))
    assert not np.any(together == randomness.uniform(np.arange(10), 6, 1))
    assert not np.any(together == PatientRandomness(7 + 2**32).uniform(np.arange(10), 6, 0))
    assert len(np.unique(together)) == together.size


def test_normal_numbers_are_standard_normal() -> None:
    """200,000 numbers; bounds of 4.5 standard errors."""
    values = PatientRandomness(1).normal(np.arange(2000), 100, 0).astype(np.float64)
    assert abs(values.mean()) < 4.5 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 4.5 * np.sqrt(2 / values.size)
    assert abs(np.corrcoef(values[:, 0], values[:, 50])[0, 1]) < 4.5 / np.sqrt(2000)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        PatientRandomness(seed)
