"""Fixed point: bounded rounding error, refusal of what cannot be represented."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synclave_shared.errors import ProtocolError
from synclave_shared.fixed_point import MAX_MAGNITUDE, SCALE_BITS, from_fixed, to_fixed


@given(arrays(np.float64, st.integers(0, 50), elements=st.floats(-1e6, 1e6)))
def test_rounding_moves_a_coordinate_by_at_most_half_a_unit(values: np.ndarray) -> None:
    back = from_fixed(to_fixed(values))
    assert np.all(np.abs(back - values) <= 0.5 / 2**SCALE_BITS + 1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, MAX_MAGNITUDE * 1.01, -MAX_MAGNITUDE * 1.01])
def test_values_that_cannot_travel_are_refused(value: float) -> None:
    with pytest.raises(ProtocolError, match="finite values of magnitude"):
        to_fixed(np.array([0.0, value]))
