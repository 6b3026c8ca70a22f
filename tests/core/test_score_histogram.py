"""What a site tells of a clinical model's predictions: a vector of length 1 for each patient, whatever the model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from synclave_shared.score_histogram import BINS, BORDERS, MIDDLES, histogram_size, outcomes, score_histogram


@given(
    st.integers(2, 4).flatmap(
        lambda values: st.tuples(
            arrays.arrays(np.float32, (3, values), elements=st.floats(width=32)),
            arrays.arrays(np.int64, 3, elements=st.integers(0, values - 1)),
        )
    )
)
def test_a_patient_adds_a_vector_of_length_one_whatever_is_predicted(
    patients: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = patients
    alone = [score_histogram(logits[[row]].astype(np.float64), labels[[row]]) for row in range(3)]
    for one in alone:
        assert one.shape == (len(outcomes(logits.shape[1])), 2, BINS)
        assert one.size == histogram_size(logits.shape[1])
        assert np.linalg.norm(one) == pytest.approx(1.0)
    np.testing.assert_allclose(score_histogram(logits.astype(np.float64), labels), np.sum(alone, axis=0))


def test_of_two_values_the_second_is_predicted_and_each_patient_is_in_one_cell() -> None:
    logits = np.array([[0.0, -20.0], [0.0, 0.1], [3.0, 3.1], [0.0, 20.0], [np.nan, 1.0]])
    found = score_histogram(logits, np.array([0, 0, 1, 1, 1]))
    assert found.sum() == 5
    assert (found[0, 0, 0], found[0, 1, -1]) == (1, 2)
    assert found[0, 0, BINS // 2] == found[0, 1, BINS // 2] == 1


def test_bins_hold_the_probabilities_that_they_stand_for() -> None:
    odds = np.log(MIDDLES / (1 - MIDDLES))
    np.testing.assert_allclose(odds, (BORDERS[1:] + BORDERS[:-1]) / 2, atol=1e-12)
    found = score_histogram(np.stack([np.zeros(BINS), odds], axis=1), np.ones(BINS, np.int64))
    assert np.array_equal(found[0, 1], np.ones(BINS))


def test_of_three_values_each_is_predicted_against_the_rest() -> None:
    shares = np.array([[0.7, 0.2, 0.1]])
    found = score_histogram(np.log(shares), np.array([1]))
    for value, share in enumerate(shares[0]):
        of_class, place = np.argwhere(found[value])[0]
        assert of_class == (value == 1)
        assert BORDERS[place] <= np.log(share / (1 - share)) < BORDERS[place + 1]
