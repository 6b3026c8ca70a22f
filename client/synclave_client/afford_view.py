"""What ``synclave-site afford`` tells a data steward: which trainings still fit into what is left of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_shared.canonical import decimal_text
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.afford import Offer, affordable, affordable_sum

__all__ = ["BATCH_SHARES", "ROUNDS", "afford_document", "draw_afford"]

ROUNDS: Final = (5, 20, 50)
"""Numbers of rounds that are shown unless others are asked for."""

BATCH_SHARES: Final = (100, 25, 6)
"""Batches that are shown unless others are asked for: the number of patients divided by these."""


def afford_document(
    settings: SiteSettings,
    journal: Journal,
    *,
    patients: int,
    steps_per_round: int,
    rounds: Sequence[int],
    batches: Sequence[int],
) -> dict[str, Any]:
    """Trainings on top of everything that was spent and promised, as plain values.

    Args:
        settings: the site's settings.
        journal: its journal, opened for reading.
        patients: public number of patients.
        steps_per_round: steps of a round.
        rounds: numbers of rounds; none: :data:`ROUNDS`.
        batches: expected numbers of patients in a step; none: by :data:`BATCH_SHARES`.

    Raises:
        PlanError: if the numbers fit no training.
    """
    before = journal.committed(settings.dataset)
    batches = batches or sorted({max(1, patients // share) for share in BATCH_SHARES})
    floor = settings.policy.minimum_noise_multiplier
    offers = affordable(
        settings.budget,
        before,
        patients=patients,
        steps_per_round=steps_per_round,
        rounds=rounds or ROUNDS,
        batches=batches,
        floor=floor,
    )
    of_sum = affordable_sum(settings.budget, before, floor)
    return {
        "name": settings.name,
        "dataset": settings.dataset,
        "delta": float(settings.budget.delta),
        "allowed": float(settings.budget.epsilon),
        "committed": epsilon(before, float(settings.budget.delta)),
        "patients": patients,
        "steps_per_round": steps_per_round,
        "one_sum_noise_multiplier": None if of_sum is None else decimal_text(of_sum),
        "offers": [_offer(offer) for offer in offers],
    }


def _offer(offer: Offer) -> dict[str, Any]:
    noise = offer.noise_multiplier
    return {
        "rounds": offer.rounds,
        "batch": offer.batch,
        "selection_rate": decimal_text(offer.selection_rate),
        "noise_multiplier": None if noise is None else decimal_text(noise),
        "epsilon_after": offer.epsilon_after,
    }


def draw_afford(out: Console, document: dict[str, Any]) -> None:
    """Print the document of :func:`afford_document` as a table of rounds against batch, with the noise that fits."""
    out.print(
        f"Site [bold]{escape(document['name'])}[/bold], data set [bold]{escape(document['dataset'])}[/bold]: epsilon"
        f" {document['committed']:.4g} of {document['allowed']:.4g} is spent or promised, at delta"
        f" {document['delta']:g}. Each number is one training that would still fit, not all of them.",
        soft_wrap=True,
    )
    batches = list(dict.fromkeys(offer["batch"] for offer in document["offers"]))
    rounds = list(dict.fromkeys(offer["rounds"] for offer in document["offers"]))
    cells = {(offer["rounds"], offer["batch"]): offer["noise_multiplier"] for offer in document["offers"]}
    rates = {offer["batch"]: offer["selection_rate"] for offer in document["offers"]}
    table = Table(
        title=f"Noise multiplier that a training needs ({document['steps_per_round']} steps a round)",
        title_justify="left",
    )
    table.add_column("Rounds", justify="right")
    for batch in batches:
        table.add_column(f"batch {batch}\n(rate {rates[batch]})", justify="right")
    for number in rounds:
        table.add_row(str(number), *(cells[number, batch] or "-" for batch in batches))
    out.print(table)
    of_sum = document["one_sum_noise_multiplier"]
    out.print(
        f"One sum over all patients (marginals, moments, scores) instead: noise multiplier {of_sum}."
        if of_sum
        else "Not even one sum over all patients fits.",
        soft_wrap=True,
    )
