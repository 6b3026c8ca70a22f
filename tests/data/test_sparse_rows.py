"""Rows kept by their ones behave as the dense matrix that they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from synclave_shared.data import sparse_rows
from synclave_shared.data.sparse_rows import SparseRows

matrices = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7), elements=st.integers(0, 1))


@given(matrices, st.data())
def test_rows_are_those_of_the_matrix(dense, data):
    rows = SparseRows.of(dense)
    assert rows.shape == dense.shape
    assert np.array_equal(rows[:], dense)
    assert np.array_equal(rows[1:3], dense[1:3])
    mask = data.draw(arrays(bool, len(dense)))
    assert np.array_equal(rows[mask], dense[mask])
    places = st.lists(st.integers(0, len(dense) - 1), max_size=9) if len(dense) else st.just([])
    chosen = np.array(data.draw(places), dtype=np.int64)
    assert np.array_equal(rows[chosen], dense[chosen])
    assert np.array_equal(rows.take(chosen)[:], dense[chosen])
    assert np.array_equal(SparseRows.stacked([rows, rows.take(chosen)])[:], np.vstack([dense, dense[chosen]]))
    assert np.array_equal(rows.counts, dense.sum(axis=1))


@given(matrices, st.randoms(use_true_random=False))
def test_places_may_come_in_any_order_and_more_than_once(dense, random):
    places = 2 * np.flatnonzero(dense).tolist()
    random.shuffle(places)
    rows = SparseRows.of_places(np.array(places, dtype=np.int64), *dense.shape)
    assert np.array_equal(rows[:], dense)


@given(matrices, st.data())
def test_sums_of_groups_are_those_of_the_matrix(dense, data):
    groups = data.draw(arrays(np.int64, len(dense), elements=st.integers(0, 2)))
    weights = data.draw(arrays(np.float64, len(dense), elements=st.floats(0, 1)))
    rows = SparseRows.of(dense)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_rows, "CHUNK_ROWS", 3)
        plain, weighted = rows.sums(groups, 3), rows.sums(groups, 3, weights)
    for group in range(3):
        assert np.array_equal(plain[group], dense[groups == group].sum(axis=0))
        assert np.allclose(weighted[group], weights[groups == group] @ dense[groups == group])


def test_what_is_no_matrix_of_zero_and_one_is_refused():
    with pytest.raises(ValueError, match="0 and 1"):
        SparseRows.of(np.full((2, 2), 2, np.uint8))
    with pytest.raises(ValueError, match="outside"):
        SparseRows(starts=np.array([0, 1]), ones=np.array([3], np.int32), width=3)
    with pytest.raises(ValueError, match="rise"):
        SparseRows(starts=np.array([0, 2]), ones=np.array([1], np.int32), width=3)
    with pytest.raises(IndexError):
        SparseRows.of(np.eye(3, dtype=np.uint8))[:, 0]  # type: ignore[index]
