"""Server-side optimisation against the formulas written out one coordinate at a time."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from synclave_server.aggregate import ADAPTIVITY, averaged_model, initial_state, server_step, weighted_mean
from synclave_shared.plan import Federation


def federation(aggregator: str) -> Federation:
    return Federation(rounds=1, steps_per_round=1, aggregator=aggregator, server_learning_rate=Decimal("0.1"))  # type: ignore[arg-type]


def slowly(aggregator: str, model: NDArray[np.float32], updates: list[NDArray[np.float64]]) -> list[float]:
    """Reddi et al. 2021, Algorithm 2, one coordinate after the other."""
    result = []
    for coordinate, start in enumerate(model):
        x, m, v = float(start), 0.0, ADAPTIVITY**2
        for update in updates:
            d = float(update[coordinate])
            if aggregator == "fedavg":
                x = float(np.float32(x + 0.1 * d))
                continue
            m = d if aggregator == "fedadagrad" else 0.9 * m + 0.1 * d
            if aggregator == "fedadagrad":
                v += d * d
            elif aggregator == "fedadam":
                v = 0.99 * v + 0.01 * d * d
            else:
                v = v - 0.01 * d * d * math.copysign(1, v - d * d) if v != d * d else v
            x = float(np.float32(x + 0.1 * m / (math.sqrt(v) + ADAPTIVITY)))
        result.append(x)
    return result


@pytest.mark.parametrize("aggregator", ["fedavg", "fedadam", "fedyogi", "fedadagrad"])
def test_server_step_follows_the_published_algorithm(aggregator: str) -> None:
    random = np.random.default_rng(1)
    model = random.standard_normal(5).astype(np.float32)
    updates = [random.standard_normal(5) for _ in range(4)]
    expected = slowly(aggregator, model, updates)
    settings = federation(aggregator)
    state = initial_state(settings, 5)
    for update in updates:
        model, state = server_step(settings, model, update, state)
    assert model.dtype == np.float32
    assert np.allclose(model, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("aggregator", ["fedavg", "fedadam", "fedyogi", "fedadagrad"])
def test_a_zero_update_moves_nothing(aggregator: str) -> None:
    settings = federation(aggregator)
    model = np.ones(3, np.float32)
    after, _ = server_step(settings, model, np.zeros(3), initial_state(settings, 3))
    assert np.array_equal(after, model)


sites = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100), min_size=1)


@given(sites, st.integers(0, 2**32 - 1))
def test_the_mean_does_not_depend_on_the_order_of_arrival(weights: dict[str, float], seed: int) -> None:
    random = np.random.default_rng(seed)
    updates = {site: random.standard_normal(4) for site in weights}
    backwards = dict(reversed(updates.items()))
    assert weighted_mean(updates, weights).tobytes() == weighted_mean(backwards, weights).tobytes()


@given(sites)
def test_the_mean_of_equal_updates_is_that_update(weights: dict[str, float]) -> None:
    update = np.array([1.5, -2.0])
    assert np.allclose(weighted_mean(dict.fromkeys(weights, update), weights), update)


def test_a_missing_site_leaves_its_share_to_the_others() -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    mean = weighted_mean({"b": np.array([1.0]), "c": np.array([2.0])}, weights)
    assert mean == pytest.approx(1.4)


@given(
    ema=st.sampled_from(["0.1", "0.5", "0.9", "0.999"]),
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12),
)
def test_the_average_is_the_sum_of_all_models_with_weights_that_fade(ema: str, values: list[float]) -> None:
    settings = Federation(rounds=1, steps_per_round=1, ema=Decimal(ema))
    average = np.array([1e6], np.float32)  # the model before the first round, which has no part in it
    for number, value in enumerate(values, start=1):
        average = averaged_model(settings, average, np.array([value], np.float32), number)
    weights = [float(ema) ** age for age in reversed(range(len(values)))]
    assert average[0] == pytest.approx(np.average(values, weights=weights), rel=1e-5, abs=1e-4)


def test_without_an_average_the_model_is_left_to_the_bit() -> None:
    model = np.random.default_rng(0).standard_normal(5).astype(np.float32)
    assert averaged_model(federation("fedavg"), np.zeros(5, np.float32), model, 3).tobytes() == model.tobytes()
