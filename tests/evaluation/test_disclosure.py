import numpy as np
import pytest

from synclave_server.evaluation.comparison import Table, independent_floor
from synclave_server.evaluation.disclosure import copies, disclosure_measures, neighbour_ratio
from synclave_server.evaluation.words import verdict
from tests.evaluation.cohorts import make_schema, make_table

FLOOR = independent_floor(make_schema().groups)


def wide(patients: int, seed: int) -> Table:
    """Patients of 40 independent codes: equal rows do not happen by chance."""
    rng = np.random.default_rng(seed)
    return Table(
        features=(rng.random((patients, 40)) < 0.4).astype(np.uint8), labels=np.zeros(patients, dtype=np.int64)
    )


def measured(real, synthetic, train):
    return {m.key: m for m in disclosure_measures(real, synthetic, train, independent_floor(()), 0, lambda _: None)}


def test_copies_are_rows_that_are_equal_in_every_column():
    table = wide(50, seed=1)
    other = table.take(np.arange(10))
    other.features[0, 3] ^= 1
    np.testing.assert_array_equal(copies(other, table), [False] + [True] * 9)


def test_a_model_that_copies_training_patients_is_caught():
    train, real = wide(600, seed=2), wide(1_200, seed=3)
    copied = train.take(np.random.default_rng(0).integers(0, 600, 400))
    copied.features[::2, 0] ^= 1
    found = measured(real, copied, train)
    assert found["copies_of_training"].value.value == pytest.approx(0.5, abs=0.02)
    assert found["copies_of_held_out"].value.value == 0.0
    ratio = found["neighbour_distance_ratio"]
    assert ratio.value.value < 0.2
    assert ratio.value.value < ratio.ceiling.interval[0]
    assert verdict(ratio).startswith("closer to training")


@pytest.mark.parametrize("seed", range(5))
def test_fresh_patients_of_the_same_law_lie_within_the_range_of_chance(seed):
    rng = np.random.default_rng(seed)
    reading, (low, high) = neighbour_ratio(wide(300, 10 + seed), wide(500, 20 + seed), wide(500, 30 + seed), rng)
    # 95 % range: these five seeds lie inside a slightly widened one.
    assert low - 0.01 <= reading.value <= high + 0.01
    assert low < 1 < high


def test_neighbour_cohorts_of_different_size_are_refused():
    with pytest.raises(ValueError, match="one size"):
        neighbour_ratio(wide(5, 1), wide(6, 2), wide(7, 3), np.random.default_rng(0))


def test_without_training_patients_nothing_is_said_about_them():
    found = {
        m.key: m for m in disclosure_measures(make_table(100, 1), make_table(80, 2), None, FLOOR, 0, lambda _: None)
    }
    assert found["copies_of_training"].value.reason == "no training patients were given"
    assert found["neighbour_distance_ratio"].value.value is None
    assert found["copies_of_held_out"].value.value is not None


def test_a_handful_of_patients_is_not_defined_with_its_reason():
    found = measured(wide(3, 1), wide(2, 2), wide(1, 3))
    assert {m.value.value for m in found.values()} == {None}
    assert "fewer than" in found["copies_of_training"].value.reason
