import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_server.sampling.labels import KeyedPermutation, LabelAssignment


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_every_place_is_taken_once(size: int, seed: int) -> None:
    places = KeyedPermutation(size, seed)(np.arange(size))
    assert np.array_equal(np.sort(places), np.arange(size))


@settings(max_examples=20)
@given(st.integers(1, 2**32), st.data())
def test_a_patient_has_the_same_place_alone_and_in_a_crowd(size: int, data: st.DataObject) -> None:
    patients = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20, unique=True)))
    place = KeyedPermutation(size, 3)
    together = place(patients)
    assert [int(place(patients[[index]])[0]) for index in range(len(patients))] == together.tolist()
    assert np.all((together >= 0) & (together < size))
    assert len(set(together.tolist())) == len(patients)


def test_a_million_and_three_patients_have_exactly_the_labels_asked_for() -> None:
    counts = [1_000_003 - 12_345 - 1, 12_345, 0, 1]
    labels = LabelAssignment(counts, 5)
    found = sum(
        np.bincount(labels.of(np.arange(start, min(start + 16_384, 1_000_003))), minlength=4)
        for start in range(0, 1_000_003, 16_384)
    )
    assert np.array_equal(found, counts)


@pytest.mark.parametrize("size", [997, 40_000])
def test_the_order_looks_random(size: int) -> None:
    """No trend, no memory of the neighbour, the right number of hits in any stretch; bounds of 4.5 standard errors."""
    places = KeyedPermutation(size, 11)(np.arange(size)).astype(float)
    bound = 4.5 / np.sqrt(size)
    assert abs(np.corrcoef(places, np.arange(size))[0, 1]) < bound
    assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < bound
    chosen = places < size // 4
    tenths = np.array([part.mean() for part in np.array_split(chosen, 10)])
    assert np.abs(tenths - 0.25).max() < 4.5 * np.sqrt(0.25 * 0.75 / (size / 10))


def test_another_seed_gives_another_order() -> None:
    orders = {tuple(KeyedPermutation(64, seed)(np.arange(64)).tolist()) for seed in range(50)}
    assert len(orders) == 50
