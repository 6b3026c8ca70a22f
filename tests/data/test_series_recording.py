"""Synthetic values are recorded as a hospital would: in whole steps within the bounds."""

from decimal import Decimal

import numpy as np
import pytest

from synclave_shared.data.series.channel import Channel
from synclave_shared.data.series.table import recorded
from tests.models.small_series import series_dataset, series_schema


def channel(**changes: object) -> Channel:
    settings = {"name": "potassium", "table": "hours", "column": "k", "unit": "mmol/L", "minimum": 1, "maximum": 12}
    return Channel.model_validate({**settings, "combine": "mean", "outside": "drop", **changes})


def test_values_are_taken_to_the_nearest_step_within_the_bounds() -> None:
    some = channel(resolution=Decimal("0.1"))
    values = np.array([3.449, 3.451, 1.0, 12.0])
    found = some.unscaled(some.recorded(some.scaled(values)))
    assert found == pytest.approx([3.4, 3.5, 1.0, 12.0], abs=1e-5)
    odd = channel(minimum=Decimal("1.05"), resolution=Decimal("0.5"), transform="log")
    found = odd.unscaled(odd.recorded(odd.scaled(np.array([1.05, 1.2, 1.8, 12.0]))))
    assert found == pytest.approx([1.5, 1.5, 2.0, 12.0], abs=1e-5)


def test_without_a_resolution_nothing_changes_and_a_resolution_must_fit() -> None:
    scaled = np.linspace(-1, 1, 50, dtype=np.float32)
    assert np.array_equal(channel().recorded(scaled), scaled)
    with pytest.raises(ValueError, match="resolution"):
        channel(resolution=Decimal(20))


def test_what_was_not_observed_stays_nothing() -> None:
    schema = series_schema()
    coarse = schema.model_copy(
        update={"channels": tuple(one.model_copy(update={"resolution": Decimal(30)}) for one in schema.channels)}
    )
    dataset = series_dataset(50)
    found = recorded(coarse, dataset)
    assert not found.values[found.observed == 0].any()
    units = schema.channels[0].unscaled(found.values[..., 0][found.observed[..., 0] == 1])
    assert set(np.rint(units).astype(int)) <= {0, 30, 60, 90}
    assert np.abs(units - np.rint(units)).max() < 1e-4
