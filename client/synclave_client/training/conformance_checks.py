"""Whether what a mechanism did is what its plan says: thirteen checks of the sums that a watch kept.

Ten are tests whose probability of a false alarm is exact or bounded from above, without any "for large n":

- means of n standard normal numbers: ``erfc(|sum| / sqrt(2 n))``, exact;
- spreads, the sum S of n squares, chi-squared with n degrees of freedom: Chernoff's bound
  ``2 exp(-n/2 (x - log(1 + x)))`` with x = S/n - 1, for either side;
- the law of the noise: ``2 exp(-2 n D^2)`` (Dvoretzky, Kiefer and Wolfowitz; Massart 1990), D the largest distance of
  distribution functions at the borders of the cells, which is at most the Kolmogorov-Smirnov distance;
- the most selected patient: Chernoff's bound times the number of patients.

**False alarms.** A run (all rounds of one plan at one site) gives a false alarm with probability at most
:data:`FALSE_ALARM`, by the union bound over everything that is ever looked at: the k-th round looks with a share
``1 / (k (k + 1))`` of it, divided among the tests of the round and of all rounds of the plan together. The other three
checks compare with a bound that a correct program never exceeds.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np

from synclave_client.training.conformance_evidence import Evidence, Tally
from synclave_shared.canonical import FrozenModel

__all__ = ["FALSE_ALARM", "TESTS", "Check", "check_evidence", "threshold"]

FALSE_ALARM: Final = 1e-6
"""Probability with which a run that does what it says is stopped, at most."""

TESTS: Final = 10
"""Tests with a probability, of a round or of a plan."""

SCOPES: Final = 2

ROUNDING: Final = 1e-12
"""By which a row that was scaled down to the clip norm in float64 may come out longer."""

NOTHING: Final = "-"
"""Found where there was nothing to look at."""

Scope = Literal["round", "plan"]


class Check(FrozenModel):
    """One comparison.

    Attributes:
        name: of the check.
        scope: whether of this round, or of all rounds of the plan up to it.
        expected: what a mechanism as planned shows, for people.
        found: what was seen.
        deviation: in standard deviations; None where there is no such unit.
        probability: with which a mechanism as planned shows as much or more, or an upper bound; None if it never does.
        passed: the verdict.
    """

    name: str
    scope: Scope
    expected: str
    found: str
    deviation: float | None
    probability: float | None
    passed: bool


def threshold(look: int) -> float:
    """The probability below which a test of the ``look``-th round (from 1) of a plan fails."""
    return FALSE_ALARM / (look * (look + 1)) / (TESTS * SCOPES)


def check_evidence(round_: Evidence, plan: Evidence, look: int) -> list[Check]:
    """Judge a round, and the plan's rounds together.

    Args:
        round_: what the round has shown.
        plan: what all rounds of the plan have shown, this one included.
        look: the how manieth round of the plan is judged, from 1; a round that is tried again counts again.
    """
    limit = threshold(look)
    return [*_checks(round_, "round", limit), *_checks(plan, "plan", limit)]


def _checks(seen: Evidence, scope: Scope, limit: float) -> list[Check]:
    noise, sizes = seen.noise, seen.sizes

    def test(name: str, expected: str, found: str, deviation: float | None, probability: float) -> Check:
        return Check(
            name=name,
            scope=scope,
            expected=expected,
            found=found,
            deviation=deviation,
            probability=probability,
            # False for what is no number: noise with NaN in it conforms to nothing.
            passed=probability >= limit,
        )

    def mean(name: str, of: Tally, expected: str = "0", found: str = "") -> Check:
        deviation = of.total / math.sqrt(of.count) if of.count else 0.0
        shown = found or f"{of.total / of.count:.3g}" if of.count else NOTHING
        return test(name, expected, shown, deviation, math.erfc(abs(deviation) / math.sqrt(2.0)))

    def spread(name: str, of: Tally) -> Check:
        excess = of.squares / of.count - 1.0 if of.count else 0.0
        deviation = excess * math.sqrt(of.count / 2.0)
        shown = f"{1.0 + excess:.4g}" if of.count else NOTHING
        return test(name, "1", shown, deviation, _tail(excess, of.count))

    def bound(name: str, expected: str, found: str, passed: bool) -> Check:
        return Check(
            name=name,
            scope=scope,
            expected=expected,
            found=found,
            deviation=None,
            probability=None,
            passed=passed,
        )

    distance = _distance(seen.cells)
    checks = [
        spread("noise variance / the plan's", noise),
        mean("noise mean", noise),
        test(
            "noise law, distance from normal",
            "0",
            f"{distance:.3g}",
            None,
            min(2.0 * math.exp(-2.0 * noise.count * distance * distance), 1.0),
        ),
        mean("noise against the step before", seen.echoes),
        mean("patients selected", sizes, f"{seen.expected:.6g}", str(seen.selected)),
        spread("variance of batch sizes / binomial", sizes),
        mean("batch sizes in a row", seen.runs),
        mean("patients selected again at once", seen.overlaps),
        spread("variance of a patient's selections / binomial", seen.inclusions),
    ]
    if scope == "round":
        # Of several rounds together there is no such count: a site's patients may change between them.
        chance = math.exp(-seen.favoured)
        checks.append(test("most selected patient, chance of it", "not small", f"{chance:.2g}", None, chance))
    return [
        *checks,
        bound(
            "one patient's contribution / clip norm",
            "at most 1",
            f"{seen.largest:.4g}" if seen.contributions else NOTHING,
            seen.largest <= 1.0 + ROUNDING,
        ),
        bound(
            "a step's sum / patients' clip norms",
            "at most 1",
            f"{seen.longest_sum:.4g}",
            seen.longest_sum <= 1.0 + ROUNDING,
        ),
        bound("noise used twice", "0 times", str(seen.repeated), seen.repeated == 0),
    ]


def _tail(excess: float, count: int) -> float:
    """Chernoff's bound for a mean of ``count`` squares that is 1 + ``excess``."""
    if excess <= -1.0:
        return 0.0
    # The number first: of no number and 1 Python takes the first.
    return min(2.0 * math.exp(-0.5 * count * (excess - math.log1p(excess))), 1.0)


def _distance(cells: tuple[int, ...]) -> float:
    counts = np.array(cells)
    total = int(counts.sum())
    if not total:
        return 0.0
    return float(np.abs(np.cumsum(counts) / total - np.arange(1, counts.size + 1) / counts.size).max())
