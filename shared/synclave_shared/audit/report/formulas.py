"""The formulas behind the report's numbers, each with a name that the numbers refer to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FORMULAS", "Formula"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """How a number comes about.

    Attributes:
        name: by which the page refers to it.
        title: what it gives.
        text: how it is computed.
        command: what recomputes it; LEDGER... stands for the ledger, or for all of them.
    """

    name: str
    title: str
    text: str
    command: str


FORMULAS: Final = (
    Formula(
        name="F1",
        title="Cumulative epsilon",
        text="The smallest epsilon for which the composition M1, M2, ... of the named reservations is (epsilon, delta)-"
        "differentially private: delta >= max over both neighbours of E[(1 - exp(epsilon - L))+], L the privacy loss"
        " of the composition. Its distribution is the convolution of those of the steps, losses rounded up to a grid"
        " of 0.001 (0.0001 for small epsilon), so it is an upper bound; where F2 is lower, or"
        " more than 64 different mechanisms are composed, F2 is taken.",
        command="synclave-audit spend LEDGER... --rounds",
    ),
    Formula(
        name="F2",
        title="The same by Rényi divergences",
        text="The minimum over orders a of R(a) + log((a - 1)/a) - (log(delta) + log(a))/(a - 1), with R(a) the sum of"
        " the Rényi divergences of order a of all steps (Mironov 2017; conversion of Canonne, Kamath and Steinke"
        " 2020). An independent upper bound, usually 10 to 30 % higher.",
        command="synclave-audit spend LEDGER... --json",
    ),
    Formula(
        name="F3",
        title="The same by privacy random variables",
        text="The accountant of Gopi, Lee and Wutschitz (2021) in Opacus, which adds its own error bound of 0.01. Shown"
        " where Opacus is installed.",
        command="synclave-audit spend LEDGER... --json",
    ),
    Formula(
        name="F4",
        title="What these ledgers leave",
        text="The budget stated last minus F1, at least 0, as if there were no other ledgers. It is a distance, not"
        " something that could be spent: epsilons do not add up, what still fits is decided by composing it with"
        " everything before (F1).",
        command="synclave-audit spend LEDGER...",
    ),
    Formula(
        name="F5",
        title="Replace one patient",
        text="F1 with the privacy loss of the neighbours that differ by exchanging one patient for another, instead of"
        " by adding or removing one. A sum then moves by up to two clip norms, not one: for a sum over all patients it"
        " is F1 with half the noise multiplier, which is more than the composition of one removal and one addition.",
        command="synclave-audit spend LEDGER... --json",
    ),
    Formula(
        name="F6",
        title="A patient at several sites",
        text="F1 of the reservations of all these sites together, at the smallest delta of all sites that spent. Every"
        " choice of as many sites is composed and the largest epsilon stated; where there are too many different"
        " choices, that of the sites with the largest epsilons of their own at this delta, and the row says so.",
        command="synclave-audit report LEDGER... --out DIR",
    ),
    Formula(
        name="F7",
        title="All data sets of a site",
        text="F1 of all reservations of the site, for a patient who is in each of its data sets, at the smallest delta"
        " of the data sets on which it spent.",
        command="synclave-audit report LEDGER... --out DIR",
    ),
)
"""All formulas, in the order of their names."""
