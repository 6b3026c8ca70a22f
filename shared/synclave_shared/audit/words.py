"""Plain words for what the ledger says in numbers and tags."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from synclave_shared.ledger.entry import (
    Aggregate,
    BudgetChanged,
    KeyRegistered,
    KeyRotated,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    RunClosed,
    SamplesReleased,
    SignedEntry,
    SnapshotWritten,
    SpendReserved,
    UpdateReleased,
)
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = [
    "MODELS",
    "TRUST",
    "budget_line",
    "describe",
    "in_words",
    "listed",
    "mechanism_line",
    "number",
    "ranges",
    "small",
]


def number(value: float | None, digits: int = 4) -> str:
    """An epsilon for a person: four decimals, a dash for none, ``infinite`` for no guarantee at all."""
    if value is None:
        return "-"
    return "infinite" if value == float("inf") else f"{value:.{digits}f}"


def small(value: float) -> str:
    """A delta in full, say ``0.00001``: people read zeros more surely than exponents."""
    return f"{Decimal(repr(value)):f}"


MOST_RANGES: Final = 30
"""A longer list of indices is cut: nobody reads it, and with many sites it would fill megabytes. JSON has them all."""


def ranges(indices: Iterable[int]) -> str:
    """Indices as short text, say ``4, 7-9``; a long list ends with its last index and how many there are."""
    known = sorted(set(indices))
    parts = list(itertools.islice(_runs(known), MOST_RANGES + 1))
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in parts]
    if len(texts) > MOST_RANGES:
        start = len(known) - 1
        while known[start - 1] == known[start] - 1:
            start -= 1
        last = str(known[-1]) if start == len(known) - 1 else f"{known[start]}-{known[-1]}"
        texts = [*texts[: MOST_RANGES - 1], f"... {last} ({len(known):,} in all)"]
    return ", ".join(texts)


def _runs(known: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of indices without a gap."""
    start = 0
    for place in range(1, len(known) + 1):
        if place == len(known) or known[place] != known[place - 1] + 1:
            yield known[start], known[place - 1]
            start = place


def listed(places: Iterable[tuple[int, int]]) -> str:
    """Entries of one ledger or of several, say ``4, 7-9 of ledger 1; 3 of ledger 2``; no ledger if it is the only one.

    Args:
        places: pairs of the ledger's number, 0 for the only one, and the entry's index.
    """
    by_ledger: dict[int, list[int]] = {}
    for ledger, entry in places:
        by_ledger.setdefault(ledger, []).append(entry)
    return "; ".join(
        f"{ranges(entries)} of ledger {ledger}" if ledger else ranges(entries)
        for ledger, entries in sorted(by_ledger.items())
    )


def describe(entry: SignedEntry) -> str:
    """One line about an entry."""
    match entry.body:
        case KeyRegistered() as body:
            return f"{body.role} with key {body.public_key}{_until(body.not_after)}"
        case KeyRotated() as body:
            return f"from now on with key {body.public_key}{_until(body.not_after)}"
        case PlanProposed() as body:
            return f"plan {body.plan.get('name')} {body.plan_digest[:16]}"
        case PlanAccepted() as body:
            return f"for {body.dataset}, budget {budget_line(body.budget)}"
        case BudgetChanged() as body:
            return f"of {body.dataset} to {budget_line(body.budget)}"
        case PlanRefused() as body:
            return body.refusal
        case SpendReserved() as body:
            return f"round {body.round}: {mechanism_line(body.mechanism)} on {body.dataset}"
        case UpdateReleased() as body:
            return f"round {body.round}: update {body.update_digest[:16]}"
        case Aggregate() as body:
            return f"round {body.round}: of {', '.join(body.sites)}"
        case SnapshotWritten() as body:
            return f"round {body.round}: model {body.snapshot_digest[:16]}"
        case RunClosed() as body:
            return f"after {body.rounds} rounds"
        case SamplesReleased() as body:
            return f"{body.patients} synthetic patients of model {body.snapshot_digest[:16]}"
    return ""


def _until(not_after: str) -> str:
    return f", until {not_after}" if not_after else ""


def budget_line(budget: Budget) -> str:
    """A budget on one line."""
    return f"epsilon {budget.epsilon} at delta {budget.delta}"


def mechanism_line(mechanism: PoissonGaussian | GaussianSum) -> str:
    """A mechanism on one line, every parameter but the clip norm, which no epsilon depends on."""
    if isinstance(mechanism, GaussianSum):
        return f"sum with noise multiplier {mechanism.noise_multiplier}"
    return (
        f"{mechanism.steps} steps with noise multiplier {mechanism.noise_multiplier},"
        f" selection rate {mechanism.selection_rate}"
    )


def in_words(mechanism: PoissonGaussian | GaussianSum) -> str:
    """A mechanism in two or three sentences, for somebody who decides and does not compute."""
    if isinstance(mechanism, GaussianSum):
        what = "One sum over all patients of the data set. Each patient's contribution"
    else:
        what = (
            f"{mechanism.steps:,} training steps. For each step every patient was drawn independently with probability"
            f" {mechanism.selection_rate}; the contribution of each drawn patient"
        )
    return (
        f"{what} was cut to length {mechanism.clip_norm} at most, and Gaussian noise of standard deviation"
        f" {mechanism.noise_multiplier} times that bound was added before anything left the site."
    )


MODELS: Final = {
    "diffusion": "a generative model of coded records",
    "copula": "a statistical model of coded records (Gaussian copula)",
    "series": "a generative model of time series",
    "classifier": "a clinical model that predicts a label",
    "influence": "a guidance vector of a clinical model",
    "scores": "a measurement of how well a clinical model predicts",
}
"""Kind of model in a plan -> what it is."""

TRUST: Final = {
    "local": "Each site adds all of the noise itself, before anything leaves it. The guarantee holds against everybody"
    " who sees what a site sends, the coordinator among them.",
}
"""Trust mode of a plan -> against whom its guarantee holds."""
