"""Epsilon against closed forms, dp_accounting's own accountant, Rényi divergences and Opacus."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from decimal import Decimal

import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from synclave_shared.privacy.accountant import (
    MAX_GRID_DISTINCT,
    Continuation,
    bounds,
    distinct,
    epsilon,
    epsilon_over_time,
    epsilon_prv,
    epsilon_rdp,
    merge_equal,
)
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian, to_event

DELTA = 1e-5


def steps(noise: str, selection: str, count: int, clip: str = "1") -> PoissonGaussian:
    return PoissonGaussian(
        noise_multiplier=Decimal(noise), clip_norm=Decimal(clip), selection_rate=Decimal(selection), steps=count
    )


def release(noise: str) -> GaussianSum:
    return GaussianSum(noise_multiplier=Decimal(noise), clip_norm=Decimal(5))


def by_library(mechanisms: list[PoissonGaussian | GaussianSum], grid: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=grid)
    for mechanism in mechanisms:
        accountant.compose(to_event(mechanism))
    return float(accountant.get_epsilon(DELTA))


def gaussian_epsilon(noise: float, delta: float) -> float:
    """Exact epsilon of one Gaussian release (Balle and Wang 2018, theorem 8)."""

    def excess(value: float) -> float:
        a, b = 1 / (2 * noise) - value * noise, -1 / (2 * noise) - value * noise
        return float(norm.cdf(a) - math.exp(value) * norm.cdf(b) - delta)

    return float(brentq(excess, 0, 20 / noise + 2 / noise**2))


SETTINGS = [
    [steps("1", "0.01", 1000)],
    [steps("4.4", "0.0256", 2000), release("10")],
    [steps("21.6", "0.128", 2000)],
    [steps("0.7", "0.005", 400), steps("1.1", "0.02", 100), release("8"), release("8")],
    [steps("0.5", "0.01", 100)],
]


@pytest.mark.parametrize("noise", ["0.5", "1", "3", "10", "50"])
@pytest.mark.parametrize("times", [1, 4])
def test_gaussian_releases_meet_the_closed_form_from_above(noise: str, times: int) -> None:
    exact = gaussian_epsilon(float(noise) / math.sqrt(times), DELTA)
    computed = epsilon([release(noise)] * times, DELTA)
    assert exact <= computed <= 1.002 * exact + 1e-4


def test_a_step_on_everybody_is_a_gaussian_release() -> None:
    assert epsilon([steps("10", "1", 9)], DELTA) == pytest.approx(epsilon([release("10")] * 9, DELTA), rel=1e-9)


@pytest.mark.parametrize("mechanisms", SETTINGS)
def test_it_is_an_upper_bound_a_fifth_of_a_percent_above_the_fine_grid(
    mechanisms: list[PoissonGaussian | GaussianSum],
) -> None:
    fine = by_library(mechanisms, 1e-4)
    assert fine - 1e-9 <= epsilon(mechanisms, DELTA) <= 1.003 * fine


@pytest.mark.parametrize("mechanisms", SETTINGS)
def test_the_renyi_bound_is_above_and_not_far(mechanisms: list[PoissonGaussian | GaussianSum]) -> None:
    assert epsilon(mechanisms, DELTA) <= epsilon_rdp(mechanisms, DELTA) <= 1.45 * epsilon(mechanisms, DELTA)


@pytest.mark.parametrize("mechanisms", SETTINGS)
def test_opacus_comes_to_the_same_up_to_its_error_bound(mechanisms: list[PoissonGaussian | GaussianSum]) -> None:
    other = epsilon_prv(mechanisms, DELTA)
    assert other is not None
    assert other - 0.01 == pytest.approx(epsilon(mechanisms, DELTA), abs=0.005)


def test_without_opacus_there_is_no_third_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    assert epsilon_prv([steps("1", "0.01", 10)], DELTA) is None
    assert epsilon_prv([], DELTA) is None


def test_nothing_costs_nothing() -> None:
    assert epsilon([], DELTA) == epsilon_rdp([], DELTA) == 0.0
    assert epsilon_over_time([], DELTA) == []


@pytest.mark.parametrize("delta", [0, 1, -0.1, 1.5, math.nan])
def test_delta_is_a_probability_in_between(delta: float) -> None:
    for function in (epsilon, epsilon_rdp, epsilon_over_time):
        with pytest.raises(ValueError, match="delta"):
            function([], delta)


def test_what_counts_as_different_is_the_same_for_every_total() -> None:
    # One sum, written as a release and as a step on everybody, with two clip norms; one step, in two lengths.
    same = [
        release("80"),
        steps("80", "1", 7),
        steps("80.0", "1", 1, clip="3"),
        steps("80", "0.5", 2),
        steps("80", "0.5", 9),
    ]
    assert [(type(each), times) for each, times in distinct(same)] == [(GaussianSum, 9), (PoissonGaussian, 11)]
    # At the limit, counting these once or twice decides over the accountant: for the total, over time, for a plan.
    limit = [*(release(str(noise)) for noise in range(81, 80 + MAX_GRID_DISTINCT)), release("80"), steps("80", "1", 7)]
    assert len(distinct(limit)) == MAX_GRID_DISTINCT
    total = bounds(limit, DELTA)
    assert math.isfinite(total.by_distribution)
    assert total.smaller < total.by_divergence
    assert epsilon_over_time(limit, DELTA)[-1] == pytest.approx(total.smaller, rel=1e-3)
    assert Continuation(limit[:-1], DELTA).epsilon(limit[-1:]) == pytest.approx(total.smaller, rel=1e-3)
    beyond = [*limit, release("79")]
    assert math.isinf(bounds(beyond, DELTA).by_distribution)
    assert epsilon_over_time(beyond, DELTA)[-1] == pytest.approx(epsilon_rdp(beyond, DELTA), rel=1e-3)


def test_400_rounds_cost_what_their_steps_cost_at_once() -> None:
    rounds = [steps("1.3", "0.02", 5)] * 400
    assert epsilon(rounds, DELTA) == epsilon([steps("1.3", "0.02", 2000)], DELTA)
    # An accountant that starts anew in each round reports the first of these numbers for the second.
    assert epsilon(rounds[:1], DELTA) < epsilon(rounds, DELTA) / 5


def test_order_and_clip_norm_do_not_matter() -> None:
    parts = [steps("1", "0.01", 50), release("8"), steps("2", "0.02", 30, clip="0.1"), steps("1", "0.01", 20, clip="7")]
    expected = epsilon(parts, DELTA)
    assert epsilon(parts[::-1], DELTA) == expected
    assert epsilon([parts[1], parts[2], steps("1", "0.01", 70)], DELTA) == expected


def test_the_course_over_time_ends_at_the_total_and_never_falls() -> None:
    course = [release("8"), *[steps("1.1", "0.02", 5)] * 12, release("20"), steps("0.9", "0.01", 10)]
    over_time = epsilon_over_time(course, DELTA)
    assert len(over_time) == len(course)
    assert all(before <= after + 1e-9 for before, after in itertools.pairwise(over_time))
    for place in (0, 3, len(course) - 1):
        assert over_time[place] == pytest.approx(epsilon(course[: place + 1], DELTA), rel=1e-3)


EXTREME = [
    [steps("0." + "0" * 39 + "1", "1", 10)],
    [steps("1000000", "0.5", 10**6)] * 1000,
    [steps("1000000", "1", 10**6)] * 1000,
    [steps("1", "0." + "0" * 39 + "1", 10**6)],
    [release("0.0001")],
    [steps("0.1", "0.9", 10**6)],
]


@pytest.mark.parametrize("mechanisms", EXTREME)
@pytest.mark.parametrize("delta", [1e-40, DELTA, 1 - 1e-16])
def test_extreme_settings_come_to_a_number_in_a_moment(
    mechanisms: list[PoissonGaussian | GaussianSum], delta: float
) -> None:
    assert epsilon(mechanisms, delta) >= 0


def test_very_many_steps_are_not_worse_than_the_renyi_bound() -> None:
    mechanisms = [steps("100", "0.01", 1_000_000)]
    assert epsilon(mechanisms, DELTA) <= epsilon_rdp(mechanisms, DELTA)
    # By a grid of 2e-5, which takes long, it is at most 0.3420.
    assert 0.34 < epsilon(mechanisms, DELTA) < 0.38


MECHANISMS = st.lists(
    st.one_of(
        st.builds(steps, st.sampled_from(["1", "2"]), st.sampled_from(["0.1", "0.2"]), st.integers(1, 600_000)),
        st.builds(release, st.sampled_from(["1", "2"])),
    ),
    max_size=12,
)


@given(MECHANISMS)
def test_merging_keeps_the_number_of_steps_and_the_order(mechanisms: list[PoissonGaussian | GaussianSum]) -> None:
    def runs(items: list[PoissonGaussian | GaussianSum]) -> list[tuple[object, int]]:
        counted: list[tuple[object, int]] = []
        for item in items:
            poisson = isinstance(item, PoissonGaussian)
            kind = item.model_copy(update={"steps": 1}) if poisson else item
            count = item.steps if isinstance(item, PoissonGaussian) else 1
            if counted and counted[-1][0] == kind:
                counted[-1] = (kind, counted[-1][1] + count)
            else:
                counted.append((kind, count))
        return counted

    merged = merge_equal(mechanisms)
    assert runs(merged) == runs(mechanisms)
    assert merge_equal(merged) == merged
    for item in merged:
        assert type(item).model_validate(item.model_dump()) == item


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["0.8", "1.5", "6"]), st.sampled_from(["0.005", "0.05"]), st.integers(1, 300))
def test_more_noise_fewer_steps_and_smaller_selections_cost_less(noise: str, selection: str, count: int) -> None:
    cost = epsilon([steps(noise, selection, count)], DELTA)
    assert epsilon([steps(str(Decimal(noise) * 2), selection, count)], DELTA) <= cost
    assert epsilon([steps(noise, str(Decimal(selection) / 2), count)], DELTA) <= cost
    assert epsilon([steps(noise, selection, count + 1)], DELTA) >= cost - 1e-9


def test_it_says_nothing_on_the_screen() -> None:
    script = (
        "from tests.privacy.test_accountant import *\n"
        "for each in EXTREME: epsilon(each, DELTA), epsilon_rdp(each, DELTA)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("", "")
