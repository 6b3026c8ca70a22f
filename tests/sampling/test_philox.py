import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from synclave_server.sampling.philox import PatientRandomness, philox4x32

U64 = np.uint64


def slow_truth(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10 in unsigned arithmetic, without a sign to think of; counter [4, ...]."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product_0, product_1 = c0 * U64(0xD2511F53), c2 * U64(0xCD9E8D57)
        c0, c2 = (product_1 >> U64(32)) ^ c1 ^ U64(k0), (product_0 >> U64(32)) ^ c3 ^ U64(k1)
        c1, c3 = product_1 & U64(0xFFFFFFFF), product_0 & U64(0xFFFFFFFF)
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack([c0, c1, c2, c3])


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
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    first, second, third, fourth = (torch.tensor([word]) for word in counter)
    assert tuple(int(word[0]) for word in philox4x32((first, second, third, fourth), key)) == expected


word = st.integers(0, 2**32 - 1)


@given(st.integers(0, 2**64 - 1), st.lists(word, min_size=1, max_size=5), st.integers(1, 30), word)
def test_words_and_uniform_numbers_are_exactly_those_of_unsigned_arithmetic(
    seed: int, patients: list[int], width: int, purpose: int
) -> None:
    blocks = -(-width // 4)
    counter = np.zeros((4, len(patients), blocks), U64)
    counter[0], counter[1], counter[2] = np.arange(blocks), np.array(patients, U64)[:, None], purpose
    truth = np.moveaxis(slow_truth(counter, (seed % 2**32, seed >> 32)), 0, -1).reshape(len(patients), -1)[:, :width]
    found, numbers = PatientRandomness(seed), torch.tensor(patients)
    assert np.array_equal(found.words(numbers, width, purpose).numpy().astype(U64), truth)
    assert np.array_equal(found.words(numbers, width, torch.tensor(purpose)).numpy().astype(U64), truth)
    assert np.array_equal(found.uniform(numbers, width, purpose).numpy(), (truth.astype(float) + 0.5) / 2**32)


def test_numbers_depend_on_patient_purpose_and_seed_alone() -> None:
    randomness = PatientRandomness(7)
    together = randomness.uniform(torch.arange(10), 6, 0)
    assert torch.equal(together[4:5], randomness.uniform(torch.tensor([4]), 6, 0))
    assert torch.equal(together[:, :3], randomness.uniform(torch.arange(10), 3, 0))
    assert not torch.any(together == randomness.uniform(torch.arange(10), 6, 1))
    assert not torch.any(together == PatientRandomness(7 + 2**32).uniform(torch.arange(10), 6, 0))
    assert len(torch.unique(together)) == together.numel()


def test_normal_numbers_are_standard_normal() -> None:
    """200,000 numbers; bounds of 4.5 standard errors."""
    values = PatientRandomness(1).normal(torch.arange(2000), 100, 0).double().numpy()
    assert abs(values.mean()) < 4.5 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 4.5 * np.sqrt(2 / values.size)
    assert abs((values**4).mean() - 3) < 4.5 * np.sqrt(96 / values.size)
    for column in (25, 50, 75):
        assert abs(np.corrcoef(values[:, 0], values[:, column])[0, 1]) < 4.5 / np.sqrt(2000)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        PatientRandomness(seed)
