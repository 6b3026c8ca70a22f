"""What a plan costs, before anybody signs it."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_shared.canonical import decimal_text, finite
from synclave_shared.errors import PlanError
from synclave_shared.plan import MARGINALS_ROUND, Federation, Privacy, all_mechanisms, round_mechanism
from synclave_shared.privacy.accountant import epsilon, epsilon_prv, epsilon_rdp, epsilon_replace_one
from synclave_shared.privacy.afford import affordable
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.several_sites import SEVERAL, epsilon_at_sites

__all__ = ["alternatives", "budget_of", "cost_document", "draw_cost"]

RATE_UNITS: Final = 1_000_000
"""Selection rates are varied in millionths."""

FACTORS: Final = (Decimal("0.5"), Decimal(1), Decimal(2))
"""By which rounds and selection rate of a plan are varied."""


def budget_of(target: Decimal | None, cost: float) -> Decimal:
    """What a site must allow for a plan: its target, or else its cost, rounded up to a ten-thousandth."""
    return target or Decimal(math.ceil(cost * 10_000)) / 10_000


def cost_document(privacy: Privacy, federation: Federation) -> dict[str, Any]:
    """Epsilon of everything that the settings lead to, at each site, by three accountants and for whom.

    ``selection_rate``, ``rounds`` and ``steps`` are None where nothing is trained.
    """
    mechanisms = all_mechanisms(privacy, federation)
    delta = float(privacy.delta)
    marginals = [round_mechanism(privacy, federation, MARGINALS_ROUND)] if privacy.marginals else []
    rounds, steps = federation.rounds, federation.steps_per_round
    several = {str(sites): epsilon_at_sites(mechanisms, delta, sites) for sites in SEVERAL}
    return {
        "noise_multiplier": decimal_text(privacy.noise_multiplier),
        "selection_rate": None if privacy.selection_rate is None else decimal_text(privacy.selection_rate),
        "clip_norm": decimal_text(privacy.clip_norm),
        "delta": decimal_text(privacy.delta),
        "unit": privacy.unit,
        "adjacency": privacy.adjacency,
        "rounds": rounds,
        "steps": None if rounds is None or steps is None else rounds * steps,
        "epsilon": epsilon(mechanisms, delta),
        "epsilon_rdp": epsilon_rdp(mechanisms, delta),
        "epsilon_prv": epsilon_prv(mechanisms, delta),
        "epsilon_marginals": epsilon(marginals, delta),
        "epsilon_replace_one": finite(epsilon_replace_one(mechanisms, delta)),
        "epsilon_patient_at_sites": {sites: at.visible for sites, at in several.items()},
        "epsilon_patient_at_sites_in_one_sum": {sites: finite(at.in_one_sum) for sites, at in several.items()},
    }


def alternatives(privacy: Privacy, federation: Federation) -> list[dict[str, Any]]:
    """The noise that half and twice the rounds and the selection rate would need, to cost no more than the plan does.

    The marginals stay as they are. Noise in the average of a step goes with noise multiplier / selection rate.

    Raises:
        PlanError: if nothing is trained.
    """
    rounds, steps, rate = federation.rounds, federation.steps_per_round, privacy.selection_rate
    if rounds is None or steps is None or rate is None:
        raise PlanError(
            expected="a plan with training rounds",
            found="one of sums only",
            remedy="Leave --alternatives out; the noise of a sum is found by epsilon alone.",
        )
    cost = epsilon(all_mechanisms(privacy, federation), float(privacy.delta))
    before = [round_mechanism(privacy, federation, MARGINALS_ROUND)] if privacy.marginals else []
    offers = affordable(
        Budget(epsilon=budget_of(None, cost), delta=privacy.delta),
        before,
        # A number of patients of which every such batch is a whole number.
        patients=RATE_UNITS,
        steps_per_round=steps,
        rounds=sorted({max(1, round(rounds * factor)) for factor in FACTORS}),
        batches=sorted({max(1, min(RATE_UNITS, round(rate * factor * RATE_UNITS))) for factor in FACTORS}),
    )
    return [
        {
            "rounds": offer.rounds,
            "selection_rate": decimal_text(offer.selection_rate),
            "noise_multiplier": None if offer.noise_multiplier is None else decimal_text(offer.noise_multiplier),
            "epsilon": offer.epsilon_after,
        }
        for offer in offers
    ]


def _or_dash(value: float | None) -> str:
    """A number, where there is one: without Opacus, or beyond what is computed, there is none."""
    return "-" if value is None else f"{value:.4f}"


def draw_cost(document: dict[str, Any], console: Console) -> None:
    """The same for a person."""
    table = Table(title="What this plan spends at each site", title_justify="left", show_header=False)
    trained = (
        ("selection rate", document["selection_rate"]),
        ("steps", f"{document['steps']} in {document['rounds']} rounds"),
    )
    rows = (
        ("epsilon (PLD)", f"{document['epsilon']:.4f}"),
        ("epsilon (RDP, an upper bound, for comparison)", f"{document['epsilon_rdp']:.4f}"),
        ("epsilon (Opacus PRV, 0.01 of error included)", _or_dash(document["epsilon_prv"])),
        ("of it the marginals alone", f"{document['epsilon_marginals']:.4f}"),
        ("delta", document["delta"]),
        ("unit and adjacency", f"{document['unit']}, {document['adjacency']}"),
        ("noise multiplier", document["noise_multiplier"]),
        *(trained if document["steps"] is not None else ()),
        ("epsilon if one patient is replaced by another", _or_dash(document["epsilon_replace_one"])),
        *(
            (f"epsilon of a patient at {sites} sites, every update seen", f"{value:.4f}")
            for sites, value in document["epsilon_patient_at_sites"].items()
        ),
        *(
            (f"epsilon of a patient at {sites} sites, in one secure sum", _or_dash(value))
            for sites, value in document["epsilon_patient_at_sites_in_one_sum"].items()
        ),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    if "alternatives" in document:
        console.print(_alternatives_table(document["alternatives"]))
    if "run" in document:
        console.print(f"Signed as plan {document['plan_digest'][:16]} in {escape(document['run'])}", soft_wrap=True)
    else:
        console.print("Nothing was signed: add --out and a --site-key for each site.")


def _alternatives_table(offers: list[dict[str, Any]]) -> Table:
    rates = list(dict.fromkeys(offer["selection_rate"] for offer in offers))
    cells = {(offer["rounds"], offer["selection_rate"]): offer["noise_multiplier"] for offer in offers}
    table = Table(title="Noise multiplier that others would need for the same epsilon", title_justify="left")
    table.add_column("Rounds", justify="right")
    for rate in rates:
        table.add_column(f"rate {rate}", justify="right")
    for number in dict.fromkeys(offer["rounds"] for offer in offers):
        table.add_row(str(number), *(cells[number, rate] or "-" for rate in rates))
    return table
