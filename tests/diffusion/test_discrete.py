"""Masked samplers against an enumerated joint distribution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from synclave_shared.diffusion.discrete import REVEALERS, Order, Schedule, Uniform, Units, reveal, revealed_counts
from synclave_shared.models.layout import CodeLayout
from tests.diffusion.exact import coupled_joint

JOINT = coupled_joint()
UNITS = Units.of(JOINT.layout)
ROWS = 8000


def numbers(rows: int, seed: int = 0) -> Uniform:
    """Streams of numbers: another for each purpose, a row the same however many rows there are."""

    def uniform(purpose: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + purpose)
        return torch.rand(rows, 7, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)

    return uniform


def chi_square_deviation(rows: Tensor, weights: Tensor) -> float:
    """Pearson's statistic in standard deviations from its mean; states of less than five expected rows as one."""
    expected, found = weights * len(rows), JOINT.counts(rows).double()
    common = expected >= 5
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    found = torch.cat([found[common], found[~common].sum()[None]])
    freedom = len(expected) - 1
    return (float(((found - expected).square() / expected).sum()) - freedom) / math.sqrt(2 * freedom)


def test_units_follow_the_layout() -> None:
    units = Units.of(CodeLayout(width=8, categories=((1, 3), (5, 8)), label_values=1))
    assert units.of_column.tolist() == [0, 1, 1, 2, 3, 4, 4, 4]
    assert units.first_column.tolist() == [0, 1, 3, 4, 5]
    assert units.single.tolist() == [True, False, True, True, False]


def test_the_entropy_of_codes_and_groups() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.0, 1.0, 0.2, 0.2, 0.6]], dtype=torch.float64)
    group = -(0.4 * math.log(0.2) + 0.6 * math.log(0.6))
    coin = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert UNITS.entropy(probabilities)[0].tolist() == pytest.approx([math.log(2), coin, 0.0, 0.0, group])


@pytest.mark.parametrize("order", ["random", "certain", "uncertain"])
def test_one_unit_at_a_time_draws_from_the_exact_joint_distribution(order: Order) -> None:
    """Five standard deviations of the statistic: less than one in 10,000 for the exact sampler."""
    values, known = reveal(JOINT.predict, UNITS, len(UNITS), uniform=numbers(ROWS), order=order, shuffle=0.5)
    assert bool(known.all())
    assert chi_square_deviation(values, JOINT.weights) < 5


def test_one_call_draws_independent_columns() -> None:
    values, _ = reveal(JOINT.predict, UNITS, 1, uniform=numbers(ROWS))
    assert chi_square_deviation(values, JOINT.weights) > 50
    mean = JOINT.weights @ JOINT.states
    assert torch.allclose(values.mean(0), mean, atol=4.5 * 0.5 / math.sqrt(ROWS))


def test_corrections_one_unit_at_a_time_leave_the_exact_distribution_as_it_is() -> None:
    values, known = reveal(JOINT.predict, UNITS, 9, uniform=numbers(ROWS), corrections=4, redraw=0.2)
    assert bool(known.all())
    assert chi_square_deviation(values, JOINT.weights) < 5


def test_corrections_repair_what_was_drawn_together() -> None:
    """One call draws all columns independently; ten corrections of one unit each bring them near the joint."""

    def deviation(corrections: int) -> float:
        values, _ = reveal(
            JOINT.predict, UNITS, 1 + corrections, uniform=numbers(ROWS), corrections=corrections, redraw=0.2
        )
        return chi_square_deviation(values, JOINT.weights)

    assert deviation(10) < deviation(4) < deviation(0)


@pytest.mark.parametrize("name", sorted(REVEALERS))
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_every_name_calls_once_per_step_and_reveals_all(name: str, steps: int) -> None:
    calls = 0

    def counted(values: Tensor, known: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return JOINT.predict(values, known)

    _, known = REVEALERS[name](counted, UNITS, steps, uniform=numbers(5))
    assert calls == steps
    assert bool(known.all())


@pytest.mark.parametrize("order", ["random", "certain", "uncertain"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_patient_does_not_depend_on_the_others(order: Order, schedule: Schedule) -> None:
    uniform = numbers(20)
    whole, _ = reveal(JOINT.predict, UNITS, 3, uniform=uniform, order=order, schedule=schedule, corrections=1)
    alone, _ = reveal(
        JOINT.predict, UNITS, 3, uniform=lambda p: uniform(p)[7:9], order=order, schedule=schedule, corrections=1
    )
    assert torch.equal(whole[7:9], alone)


def test_known_columns_are_given_to_the_network_and_hidden_ones_are_not() -> None:
    seen: list[int] = []

    def predict(values: Tensor, known: Tensor) -> Tensor:
        assert bool((values[~known] == 0).all())
        assert bool((known[:, 4:] == known[:, 4:5]).all())
        seen.append(int(known[0, :5].sum()))
        return JOINT.predict(values, known)

    values, known = reveal(predict, UNITS, 5, uniform=numbers(50), corrections=2)
    assert seen == [0, 2, 3, 4, 4]  # three calls reveal five units, two corrections hide one each
    assert bool(known.all())
    assert bool((values[:, 4:].sum(-1) == 1).all())


@given(units=st.integers(1, 3000), steps=st.integers(1, 200), schedule=st.sampled_from(["linear", "cosine"]))
def test_schedules_rise_to_all_units(units: int, steps: int, schedule: Schedule) -> None:
    counts = revealed_counts(units, steps, schedule)
    assert len(counts) == steps
    assert counts[-1] == units
    assert counts == sorted(counts)


def test_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        revealed_counts(5, 0)
