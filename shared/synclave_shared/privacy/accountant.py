"""What mechanisms cost: cumulative epsilon at a given delta, for add-or-remove-one patient.

The other adjacency, one patient replaced by another, is that of :func:`epsilon_replace_one` alone.

The number that counts comes from privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022, by
``dp_accounting``). Rényi divergences (Mironov 2017) and Opacus' PRV accountant (Gopi et al. 2021) check it.

Discretisation: losses are rounded *up* to a grid of 1e-3, so the number is an upper bound, and about 0.2 % above the
one of a ten times finer grid in the settings this project trains in (tests/privacy). Up to a Rényi epsilon of 1 the
grid is 1e-4, because there the rounding would be a visible share of the value. The Rényi bound replaces it where it is
lower (very many very small steps), where a distribution would not fit into memory, and beyond
:data:`MAX_GRID_DISTINCT` different mechanisms; both are upper bounds, and so
is the smaller of the two.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from synclave_shared.privacy.mechanism import MAX_STEPS, GaussianSum, PoissonGaussian, to_event

if TYPE_CHECKING:
    from dp_accounting import rdp
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

__all__ = [
    "FINE_GRID",
    "FINE_UP_TO",
    "GRID",
    "MAX_GRID_DISTINCT",
    "Bounds",
    "Continuation",
    "bounds",
    "bounds_over_time",
    "distinct",
    "epsilon",
    "epsilon_over_time",
    "epsilon_prv",
    "epsilon_rdp",
    "epsilon_replace_one",
    "merge_equal",
]

GRID: Final = 1e-3
FINE_GRID: Final = 1e-4

FINE_UP_TO: Final = 1.0
"""Rényi epsilon up to which the fine grid is used: losses are narrow there, so it is cheap."""

MAX_GRID_EPSILON: Final = 100.0
"""Above this (Rényi) epsilon no distribution is computed: nothing is protected, and its grid grows without bound."""

MIN_GRID_NOISE: Final = 0.1
"""Below this noise multiplier a single step's losses alone would fill the memory."""

MAX_GRID_STEPS: Final = 1_000_000
"""Above this number of steps the rounding of each one adds up to more than the steps themselves, and takes minutes."""

MAX_GRID_DISTINCT: Final = 64
"""Above this number of different mechanisms the Rényi bound stands alone. A plan has one to three, so a data set comes
here after some twenty plans that have no noise and no rate in common. The limit is there for time: each distribution
takes a tenth of a second and stays in memory to be composed (as many are kept), and whoever verifies a ledger must be
done in seconds, whatever an adversary wrote into it. What counts as different, :func:`distinct` says."""

# The fractional ones matter for a large epsilon; where their series does not converge, an order is left out.
# An order costs time in proportion to itself, hence few large ones.
_FRACTIONAL = (1.25, 1.5, 1.75, 2.25, 2.5, 3.5)
_WHOLE: Final = (*range(2, 17), *range(18, 34, 2), 36, 40, 48, 56, 64, 96, 128, 256)
_ORDERS: Final = (*_FRACTIONAL, *_WHOLE)

_Mechanism = PoissonGaussian | GaussianSum


def merge_equal(mechanisms: Sequence[_Mechanism]) -> list[_Mechanism]:
    """Write neighbours that differ only in their number of steps as one mechanism; the order is kept.

    Composing is associative, so this changes no epsilon. It makes a plan of thousands of rounds a short list.
    """
    merged: list[_Mechanism] = []
    for mechanism in mechanisms:
        last = merged[-1] if merged else None
        if isinstance(last, PoissonGaussian) and isinstance(mechanism, PoissonGaussian):
            total = last.steps + mechanism.steps
            if total <= MAX_STEPS and last == mechanism.model_copy(update={"steps": last.steps}):
                merged[-1] = last.model_copy(update={"steps": total})
                continue
        merged.append(mechanism)
    return merged


@lru_cache(maxsize=MAX_GRID_DISTINCT)
def _loss_distribution(noise: float, selection: float | None, count: int, grid: float) -> PrivacyLossDistribution:
    """Loss distribution of ``count`` Gaussian releases, on everybody (``selection`` None) or on a Poisson selection."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    if selection is None:
        # The composition of Gaussian releases is a Gaussian release.
        return pld.from_gaussian_mechanism(noise / math.sqrt(count), value_discretization_interval=grid)
    step = pld.from_gaussian_mechanism(noise, value_discretization_interval=grid, sampling_prob=selection)
    return step.self_compose(count)


def _rdp_accountant(orders: Sequence[float] = _ORDERS) -> rdp.RdpAccountant:
    from dp_accounting import rdp

    return rdp.RdpAccountant(orders=orders)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep remarks on numerical range, which dp_accounting makes for single Rényi orders, off the user's screen."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Composition:
    """Mechanisms composed so far; one interpreter behind all totals, so that they agree.

    Args:
        delta: at which epsilon is asked.
    """

    def __init__(self, delta: float) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"delta must be between 0 and 1, not {delta}")
        self._delta = delta
        self._rdp = _rdp_accountant()
        self._grids: dict[float, PrivacyLossDistribution | None] = {GRID: None, FINE_GRID: None}
        self._different: frozenset[_Mechanism] = frozenset()

    def add(self, mechanism: _Mechanism, times: int = 1) -> None:
        """Compose ``times`` repetitions of a mechanism."""
        once, repeated = _once(mechanism)
        noise, count = float(once.noise_multiplier), times * repeated
        selection = float(once.selection_rate) if isinstance(once, PoissonGaussian) else None
        self._different |= {once}
        if len(self._different) > MAX_GRID_DISTINCT:
            self._grids = {}
        with _quiet():
            self._rdp.compose(to_event(mechanism), times)
        if not self._grids:
            return
        bound = self._rdp_epsilon()
        too_many = selection is not None and count > MAX_GRID_STEPS
        if noise < MIN_GRID_NOISE or too_many or not bound <= MAX_GRID_EPSILON:
            self._grids = {}
        elif bound > FINE_UP_TO:
            self._grids.pop(FINE_GRID, None)
        for grid, before in self._grids.items():
            added = _loss_distribution(noise, selection, count, grid)
            self._grids[grid] = added if before is None else before.compose(added)

    def without_distributions(self) -> None:
        """Compose by Rényi divergences of whole orders alone, many times quicker: before anything is composed."""
        self._grids, self._rdp = {}, _rdp_accountant(_WHOLE)

    def _rdp_epsilon(self) -> float:
        with _quiet():
            return float(self._rdp.get_epsilon(self._delta))

    def _grid_epsilon(self, grid: float) -> float:
        distribution = self._grids.get(grid)
        return math.inf if distribution is None else float(distribution.get_epsilon_for_delta(self._delta))

    def copied(self) -> _Composition:
        """The same composition, to go on with apart."""
        other = copy.copy(self)
        other._rdp, other._grids = copy.deepcopy(self._rdp), dict(self._grids)
        return other

    def bounds(self) -> Bounds:
        """Both upper bounds."""
        by_distribution = min(self._grid_epsilon(grid) for grid in (GRID, FINE_GRID))
        return Bounds(by_distribution=by_distribution, by_divergence=self._rdp_epsilon())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Two upper bounds of one cumulative epsilon.

    Attributes:
        by_distribution: by privacy loss distributions; infinite where none was computed.
        by_divergence: by Rényi divergences.
    """

    by_distribution: float
    by_divergence: float

    @property
    def smaller(self) -> float:
        """The epsilon that counts."""
        # Divergences below the rounding of a double come out as zero or less; then they bound nothing.
        return min(self.by_divergence or math.inf, self.by_distribution)


@lru_cache(maxsize=4096)
def _once(mechanism: _Mechanism) -> tuple[_Mechanism, int]:
    """What is repeated in a mechanism, and how often: two are different if and only if this is."""
    if isinstance(mechanism, PoissonGaussian):
        if mechanism.selection_rate < 1:
            return mechanism.model_copy(update={"steps": 1, "clip_norm": Decimal(1)}), mechanism.steps
        # A step on everybody is a sum over all patients.
        return GaussianSum(noise_multiplier=mechanism.noise_multiplier, clip_norm=Decimal(1)), mechanism.steps
    return mechanism.model_copy(update={"clip_norm": Decimal(1)}), 1


def distinct(mechanisms: Sequence[_Mechanism]) -> list[tuple[_Mechanism, int]]:
    """Distinct mechanisms (up to ``steps`` and ``clip_norm``, which no loss depends on) and how often each occurs."""
    counts: Counter[_Mechanism] = Counter()
    for mechanism in mechanisms:
        once, times = _once(mechanism)
        counts[once] += times
    # Composition is commutative; the noisiest first keeps the fine grid as long as it is of use.
    return sorted(counts.items(), key=lambda item: (-item[0].noise_multiplier, item[1]))


def epsilon(mechanisms: Sequence[_Mechanism], delta: float) -> float:
    """Cumulative epsilon of the composition of all ``mechanisms``; an upper bound, adaptive composition included.

    Args:
        mechanisms: everything that was done to one data set, in any order.
        delta: the probability with which the guarantee may fail.

    Returns:
        0 for an empty list; infinity if no epsilon holds at this delta.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    return bounds(mechanisms, delta).smaller


def bounds(mechanisms: Sequence[_Mechanism], delta: float) -> Bounds:
    """The two upper bounds of which :func:`epsilon` is the smaller one; both 0 for an empty list.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    return _total(tuple(distinct(mechanisms)), delta)


@lru_cache(maxsize=4096)
def _total(counts: tuple[tuple[_Mechanism, int], ...], delta: float) -> Bounds:
    # Sites of one plan have the same spend: it is composed once for all of them.
    composition = _Composition(delta)
    if not counts:
        return Bounds(by_distribution=0.0, by_divergence=0.0)
    if len(counts) > MAX_GRID_DISTINCT:
        composition.without_distributions()
    for mechanism, times in counts:
        composition.add(mechanism, times)
    return composition.bounds()


class Continuation:
    """What more would cost after what was spent, which is composed only once: for searching among plans.

    Up to the last digits :func:`epsilon` of both together; decide by that, not by this.

    Args:
        spent: everything that was done before, in any order.
        delta: at which epsilon is asked.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """

    def __init__(self, spent: Sequence[_Mechanism], delta: float) -> None:
        self._before = _Composition(delta)
        self._renyi = _rdp_accountant(_WHOLE)
        self._delta = delta
        for mechanism, times in distinct(spent):
            self._before.add(mechanism, times)
            with _quiet():
                self._renyi.compose(to_event(mechanism), times)

    def epsilon(self, more: Sequence[_Mechanism]) -> float:
        """Cumulative epsilon of what was spent and ``more``."""
        composition = self._before.copied()
        for mechanism, times in distinct(more):
            composition.add(mechanism, times)
        return composition.bounds().smaller

    def epsilon_rdp(self, more: Sequence[_Mechanism]) -> float:
        """The same by Rényi divergences of whole orders: a higher bound, and many times quicker."""
        accountant = copy.deepcopy(self._renyi)
        with _quiet():
            for mechanism, times in distinct(more):
                accountant.compose(to_event(mechanism), times)
            return float(accountant.get_epsilon(self._delta))


def epsilon_over_time(mechanisms: Sequence[_Mechanism], delta: float) -> list[float]:
    """Cumulative epsilon after each mechanism, in the given order; each composes one distribution onto the last.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    return [each.smaller for each in bounds_over_time(mechanisms, delta)]


def bounds_over_time(mechanisms: Sequence[_Mechanism], delta: float) -> list[Bounds]:
    """Both upper bounds after each mechanism: :func:`epsilon_over_time` and :func:`epsilon_rdp` of each beginning.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    return list(_course(tuple(mechanisms), delta))


@lru_cache(maxsize=16)
def _course(mechanisms: tuple[_Mechanism, ...], delta: float) -> tuple[Bounds, ...]:
    composition = _Composition(delta)
    totals = []
    for mechanism in mechanisms:
        composition.add(mechanism)
        totals.append(composition.bounds())
    return tuple(totals)


def epsilon_rdp(mechanisms: Sequence[_Mechanism], delta: float) -> float:
    """Cumulative epsilon by Rényi divergences: an independent upper bound, typically 10 to 30 % higher.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, not {delta}")
    if not mechanisms:
        return 0.0
    accountant = _rdp_accountant()
    with _quiet():
        for mechanism, times in distinct(mechanisms):
            accountant.compose(to_event(mechanism), times)
        return float(accountant.get_epsilon(delta))


def epsilon_replace_one(mechanisms: Sequence[_Mechanism], delta: float) -> float:
    """Cumulative epsilon for the other adjacency: one patient's data are replaced by another's.

    By privacy loss distributions alone, on the coarse grid. It is more than :func:`epsilon`: a sum moves by up to two
    clip norms. The composition of one removal and one addition, each of one clip norm, does not bound it.

    Returns:
        0 for an empty list; infinity where no distribution is computed.

    Raises:
        ValueError: unless ``0 < delta < 1``.
    """
    return _replaced(tuple(distinct(mechanisms)), delta)


@lru_cache(maxsize=256)
def _replaced(counts: tuple[tuple[_Mechanism, int], ...], delta: float) -> float:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    if not math.isfinite(_total(counts, delta).by_distribution):
        return math.inf
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE, value_discretization_interval=GRID)
    for mechanism, times in counts:
        accountant.compose(to_event(mechanism), times)
    return float(accountant.get_epsilon(delta)) if counts else 0.0


def epsilon_prv(mechanisms: Sequence[_Mechanism], delta: float) -> float | None:
    """Cumulative epsilon by the PRV accountant of Opacus, which adds its own error bound of 0.01.

    Returns:
        None if Opacus is not installed, or if there is nothing to compose.
    """
    return _by_opacus(tuple(distinct(mechanisms)), delta) if mechanisms else None


@lru_cache(maxsize=1024)
def _by_opacus(counts: tuple[tuple[_Mechanism, int], ...], delta: float) -> float | None:
    try:
        # By name, at run time: an auditor's installation has no Opacus, and needs none.
        accountants: Any = importlib.import_module("opacus.accountants")
    except ImportError:
        return None
    accountant = accountants.PRVAccountant()
    accountant.history = [
        # A release on all patients is one on a Poisson selection with probability 1.
        (float(each.noise_multiplier), float(each.selection_rate) if isinstance(each, PoissonGaussian) else 1.0, times)
        for each, times in counts
    ]
    with warnings.catch_warnings():
        # It asks for wider ranges of Rényi orders, which it uses only to choose the size of its grid.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))
