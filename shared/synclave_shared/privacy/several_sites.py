"""What a patient loses who is treated at several sites of one plan, and how little weight keeps it to what one costs.

Adjacency: the patient is added or removed at all of the sites at once. Two ways in which sites release:

* *visible*: every site's noised sum is seen. The losses at the sites compose: as many mechanisms, one for each site.
* *in one sum*: only the sum over the sites is seen, with the noise that a plan gives each of them once in it (secure
  aggregation with distributed noise). Sites select independently, so the patient is in a step's sum k times with
  binomial probability, and adds up to k clip norms to noise for one: a mixture of Gaussians, which dominates whatever
  directions the contributions have (Choquette-Choo et al. 2024, "Privacy amplification for matrix mechanisms",
  theorem 3.1 and lemma 4.5). That is far more than the visible releases cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.privacy.accountant import (
    FINE_GRID,
    FINE_UP_TO,
    GRID,
    MAX_GRID_STEPS,
    MIN_GRID_NOISE,
    distinct,
    epsilon,
)
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

__all__ = ["SEVERAL", "AtSites", "epsilon_at_sites", "weighted"]

SEVERAL: Final = (2, 3)
"""Numbers of sites for which the loss is shown."""

MAX_EPSILON: Final = 30.0
"""Visible epsilon above which the one in a sum is not computed: it is larger still, and its grid grows with it."""

TAIL: Final = 10.0
"""Deviations of the noise up to which losses are told apart. What is beyond, with 1e-23 of probability, is infinite."""

BISECTIONS: Final = 44
"""Halvings that find the place of a loss to 1e-11. The delta is largest there, so it errs by the square of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSites:
    """Cumulative epsilon of a patient at several sites.

    Attributes:
        visible: if every site's releases are seen.
        in_one_sum: if only their sum is, with one site's noise in it; infinite where it is not computed.
    """

    visible: float
    in_one_sum: float


def epsilon_at_sites(mechanisms: Sequence[PoissonGaussian | GaussianSum], delta: float, sites: int) -> AtSites:
    """What ``mechanisms`` at each of ``sites`` sites cost a patient of all of them, in both ways of release.

    Args:
        mechanisms: what each site does, in any order.
        delta: at which epsilon is asked.
        sites: number of sites that treat the patient, 1 or more.

    Raises:
        ValueError: unless ``0 < delta < 1`` and ``sites >= 1``.
    """
    if sites < 1:
        raise ValueError(f"a patient is at one site at least, not at {sites}")
    visible = epsilon([*mechanisms] * sites, delta)
    if sites == 1 or not mechanisms:
        return AtSites(visible=visible, in_one_sum=visible)
    if visible > MAX_EPSILON:
        return AtSites(visible=visible, in_one_sum=math.inf)
    grid = FINE_GRID if visible <= FINE_UP_TO else GRID
    return AtSites(visible=visible, in_one_sum=_in_one_sum(tuple(distinct(mechanisms)), delta, sites, grid))


@lru_cache(maxsize=256)
def _in_one_sum(
    counts: tuple[tuple[PoissonGaussian | GaussianSum, int], ...], delta: float, sites: int, grid: float
) -> float:
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = None
    for mechanism, times in counts:
        noise = float(mechanism.noise_multiplier)
        if noise < sites * MIN_GRID_NOISE or times > MAX_GRID_STEPS:
            return math.inf
        rate = float(mechanism.selection_rate) if isinstance(mechanism, PoissonGaussian) else 1.0
        if rate == 1.0:
            added = pld.from_gaussian_mechanism(noise / sites / math.sqrt(times), value_discretization_interval=grid)
        else:
            added = _step_in_one_sum(noise, rate, sites, grid).self_compose(times)
        total = added if total is None else total.compose(added)
    return 0.0 if total is None else float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=16)
def _step_in_one_sum(noise: float, rate: float, sites: int, grid: float) -> PrivacyLossDistribution:
    """Loss distribution of N(K, noise^2) against N(0, noise^2), K binomial; rounded up by connecting dots.

    As ``dp_accounting``'s ``from_mixture_gaussian_mechanism``, which inverts the loss point by point: here all points
    of the grid are bisected at once, a hundred times quicker.
    """
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    chosen = np.arange(sites + 1)
    shares = np.array([math.comb(sites, int(k)) * rate**k * (1.0 - rate) ** (sites - k) for k in chosen])
    least = math.log(shares[0])

    def loss(x: NDArray[np.float64]) -> NDArray[np.float64]:
        terms = np.log(shares) + (2.0 * x[..., None] * chosen - chosen**2) / (2.0 * noise**2)
        value: NDArray[np.float64] = np.logaddexp.reduce(terms, axis=-1)
        return value

    edge = TAIL * noise
    low, high = loss(np.array([-edge, sites + edge]))

    def place(losses: NDArray[np.float64]) -> NDArray[np.float64]:
        below, above = np.full_like(losses, -4.0 * edge), np.full_like(losses, sites + 4.0 * edge)
        for _ in range(BISECTIONS):
            middle = 0.5 * (below + above)
            short = loss(middle) < losses
            below, above = np.where(short, middle, below), np.where(short, above, middle)
        return 0.5 * (below + above)

    def distribution(first: int, last: int, removed: bool) -> pld_pmf.PLDPmf:
        epsilons = np.arange(first, last + 1) * grid
        signed = epsilons if removed else -epsilons
        # No place has a loss below the smallest one: then the whole line is beyond it, or nothing is.
        reached = signed > least
        x = np.where(reached, place(np.where(reached, signed, 0.0)), -np.inf)[:, None]
        side = 1.0 if removed else -1.0
        mixed = _normal_share(side * (chosen - x) / noise) @ shares
        plain = _normal_share(side * -x / noise)[:, 0]
        first_law, second_law = (mixed, plain) if removed else (plain, mixed)
        deltas = np.clip(first_law - np.exp(epsilons) * second_law, 0.0, 1.0)
        return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(grid, first, last, np.minimum.accumulate(deltas))

    smallest, largest = math.floor(low / grid), math.ceil(high / grid)
    return PrivacyLossDistribution(distribution(smallest, largest, True), distribution(-largest, -smallest, False))


def _normal_share(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """The standard normal distribution function."""
    from scipy.special import ndtr

    share: NDArray[np.float64] = ndtr(z)
    return share


def weighted(mechanisms: Sequence[PoissonGaussian | GaussianSum], sites: int) -> list[PoissonGaussian | GaussianSum]:
    """The mechanisms as they are for a patient who counts for 1 / ``sites`` of the clip norm: with more noise.

    At that weight, ``sites`` sites together cost such a patient no more than one site costs others, in both ways of
    release: ``epsilon_at_sites(weighted(mechanisms, sites), delta, sites)`` is at most ``epsilon(mechanisms, delta)``.
    Of sums this is plain: visible, noise sites * s in ``sites`` sums is that of one with noise sqrt(sites) * s; in one
    sum, contributions add up to one clip norm. Of selected steps it is computed, not proved: over a grid of rates,
    noises and numbers of steps in tests/privacy/test_several_sites.py.
    """
    return [
        mechanism.model_copy(update={"noise_multiplier": sites * mechanism.noise_multiplier})
        for mechanism in mechanisms
    ]
