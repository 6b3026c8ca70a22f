"""A patient at several sites: check values, an independent mixture, and the weight that keeps it to one site's loss."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from dp_accounting.pld import privacy_loss_distribution

from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from synclave_shared.privacy.several_sites import AtSites, epsilon_at_sites, weighted

DELTA = 1e-5


def steps(noise: str, selection: str, count: int) -> PoissonGaussian:
    return PoissonGaussian(
        noise_multiplier=Decimal(noise), clip_norm=Decimal(1), selection_rate=Decimal(selection), steps=count
    )


def release(noise: str) -> GaussianSum:
    return GaussianSum(noise_multiplier=Decimal(noise), clip_norm=Decimal(5))


@pytest.mark.parametrize(("sites", "visible", "in_one_sum"), [(1, 1.83, 1.83), (2, 2.59, 3.98), (3, 3.19, 6.34)])
def test_known_values(sites: int, visible: float, in_one_sum: float) -> None:
    found = epsilon_at_sites([steps("1", "0.01", 1000)], DELTA, sites)
    assert found.visible == pytest.approx(visible, abs=0.006)
    assert found.in_one_sum == pytest.approx(in_one_sum, abs=0.006)


def test_the_mixture_is_that_of_the_library_which_inverts_point_by_point() -> None:
    chance = [math.comb(2, k) * 0.05**k * 0.95 ** (2 - k) for k in range(3)]
    step = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        2.0, [0.0, 1.0, 2.0], chance, value_discretization_interval=1e-3
    )
    expected = step.self_compose(200).get_epsilon_for_delta(DELTA)
    assert epsilon_at_sites([steps("2", "0.05", 200)], DELTA, 2).in_one_sum == pytest.approx(expected, rel=1e-6)


def test_in_one_sum_everybodys_contributions_add_up_and_visible_ones_compose() -> None:
    found = epsilon_at_sites([release("9"), release("12")], DELTA, 3)
    assert found.visible == epsilon([release("9"), release("12")] * 3, DELTA)
    assert found.in_one_sum == pytest.approx(epsilon([release("3"), release("4")], DELTA), rel=0.003)


def test_nothing_costs_nothing_and_what_is_not_computed_is_infinite() -> None:
    assert epsilon_at_sites([], DELTA, 3) == AtSites(visible=0.0, in_one_sum=0.0)
    assert epsilon_at_sites([release("0.15")], DELTA, 2).in_one_sum == math.inf
    with pytest.raises(ValueError, match="one site"):
        epsilon_at_sites([release("1")], DELTA, 0)


@pytest.mark.parametrize("sites", [2, 3, 7, 16])
@pytest.mark.parametrize(
    ("noise", "selection", "count"),
    [("0.6", "0.01", 20), ("1", "0.001", 1000), ("1", "0.02", 500), ("2", "0.3", 50), ("5", "0.05", 1000)],
)
def test_weighted_patients_at_several_sites_lose_what_one_site_costs(
    sites: int, noise: str, selection: str, count: int
) -> None:
    plan = [steps(noise, selection, count), release(str(8 * Decimal(noise)))]
    single = epsilon(plan, DELTA)
    found = epsilon_at_sites(weighted(plan, sites), DELTA, sites)
    assert found.visible <= single
    # What is on top is rounding.
    assert found.in_one_sum <= 1.003 * single + 1e-3
