"""``synclave-audit attack``: what one training with canaries proves, beside what the accountant claims."""

from __future__ import annotations

import importlib
import math
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from synclave_shared.audit import console as frame
from synclave_shared.audit.one_run import AttackOutcome, best_lower_bound, guess, ideal_lower_bound
from synclave_shared.errors import ConfigurationError
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.mechanism import PoissonGaussian

__all__ = ["attack", "attack_document"]

TRAINING: Final = "synclave_client.training.canaries"
"""The part that trains. Named and not imported: it needs the site's installation, and nothing else here does."""

FAULTS: Final = (("as planned", 1.0), ("half the noise", 0.5), ("a tenth of the noise", 0.1))
"""For which it is said what the best attack of this kind would typically prove; a fault divides the noise."""


def attack(
    canaries: Annotated[
        int, typer.Option(help="Canary patients, each there by a fair coin.", min=10, max=20_000)
    ] = 500,
    patients: Annotated[int, typer.Option(help="Invented patients beside them.", min=0, max=100_000)] = 500,
    noise_multiplier: Annotated[str, typer.Option(help="Noise standard deviation in clip norms.")] = "3",
    selection_rate: Annotated[str, typer.Option(help="Probability of a patient to take part in a step.")] = "0.2",
    steps: Annotated[int, typer.Option(help="Noised steps; the attacker sees each.", min=1, max=10_000)] = 50,
    delta: Annotated[float, typer.Option(help="Delta of both bounds.")] = 1e-5,
    confidence: Annotated[float, typer.Option(help="With which the lower bound holds.")] = 0.95,
    seed: Annotated[int | None, typer.Option(help="Of patients, canaries and coins (default: fresh).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Attack one private training of this installation with canaries. Exit code 1 if its claim is refuted.

    All data are invented. Needs the site's installation, and about half a minute.
    """
    mechanism = _mechanism(noise_multiplier, selection_rate, steps)
    if not 0 < delta < 1 or not 0 < confidence < 1:
        raise ConfigurationError(
            expected="--delta and --confidence between 0 and 1",
            found=f"{delta:g} and {confidence:g}",
            remedy="Usual are 0.00001 and 0.95.",
        )
    run = importlib.import_module(TRAINING).train_with_canaries(mechanism, canaries, patients, seed)
    outcome = guess(run.scores, run.included, delta, confidence)
    document = attack_document(mechanism, outcome, patients, delta, confidence)
    if as_json:
        frame.print_json(document)
    else:
        _draw(Console(), document)
    if document["refuted"]:
        raise typer.Exit(frame.EXIT_ERROR)


def _mechanism(noise_multiplier: str, selection_rate: str, steps: int) -> PoissonGaussian:
    try:
        return PoissonGaussian(
            noise_multiplier=Decimal(noise_multiplier),
            clip_norm=Decimal(1),
            selection_rate=Decimal(selection_rate),
            steps=steps,
        )
    except (ValidationError, InvalidOperation) as error:
        raise ConfigurationError(
            expected="a positive noise multiplier and a selection rate from 0 to 1, as decimal numbers",
            found=f"{noise_multiplier} and {selection_rate}",
            remedy="Take those of the plan in question.",
        ) from error


def attack_document(
    mechanism: PoissonGaussian, outcome: AttackOutcome, patients: int, delta: float, confidence: float
) -> dict[str, Any]:
    """What the attack proves and what it could have proved, as plain values; epsilons are for add-or-remove one."""
    upper = epsilon([mechanism], delta)
    best = best_lower_bound(outcome.canaries, delta, confidence)
    reach = float(mechanism.selection_rate) * math.sqrt(mechanism.steps) / float(mechanism.noise_multiplier)
    ideal = [(name, ideal_lower_bound(outcome.canaries, reach / share, delta, confidence)) for name, share in FAULTS]
    return {
        "mechanism": mechanism.model_dump(mode="json"),
        "canaries": outcome.canaries,
        "patients": patients,
        "delta": delta,
        "confidence": confidence,
        "guesses": outcome.guesses,
        "correct": outcome.correct,
        "epsilon_lower_bound": round(outcome.lower_bound, 4),
        "epsilon_upper_bound": round(upper, 6),
        "refuted": outcome.lower_bound > upper,
        "power": {
            "every_guess_right": round(best, 4),
            "best_attack": [
                {"training": name, "epsilon_lower_bound": round(bound, 4), "would_refute": bound > upper}
                for name, bound in ideal
            ],
        },
        "reading": _reading(outcome.lower_bound, upper, best, ideal),
    }


def _reading(lower: float, upper: float, best: float, ideal: list[tuple[str, float]]) -> str:
    if lower > upper:
        return (
            "The claim is refuted: this training leaks more than its accountant says. Do not train with this"
            " installation; `synclave-site self-test` and the conformance audit say where to look."
        )
    if best <= upper:
        return (
            f"Nothing could have been seen: with so few canaries even an attack that is always right proves only"
            f" {best:.2f}, and {upper:.2f} is claimed. More canaries, or a claim of more privacy, would tell something."
        )
    noticed = [name for name, bound in ideal[1:] if bound > upper]
    return (
        "No contradiction, which proves little. "
        + (
            f"The best attack of this kind would have noticed {' and '.join(noticed)}"
            if noticed
            else "Not even a tenth of the noise would have been noticed by the best attack of this kind"
        )
        + ", and this one is weaker. Less noise by some percent is seen by the conformance audit alone."
    )


def _draw(out: Console, document: dict[str, Any]) -> None:
    mechanism = document["mechanism"]
    out.print(
        f"One training of {mechanism['steps']} steps, noise multiplier {mechanism['noise_multiplier']}, selection rate"
        f" {mechanism['selection_rate']}, on {document['patients']} invented patients and half of"
        f" {document['canaries']} canaries.",
        soft_wrap=True,
    )
    table = Table("what", f"epsilon at delta {document['delta']:g}", title="Bounds", title_justify="left")
    table.columns[1].justify = "right"
    table.add_row(
        f"proved by the attack ({document['correct']} of {document['guesses']} guesses right,"
        f" confidence {document['confidence']:g})",
        f"at least {document['epsilon_lower_bound']:.2f}",
    )
    table.add_row("claimed by the accountant", f"at most {document['epsilon_upper_bound']:.2f}")
    table.add_section()
    table.add_row("provable with so many canaries, every guess right", f"{document['power']['every_guess_right']:.2f}")
    for line in document["power"]["best_attack"]:
        noticed = ", refuting the claim" if line["would_refute"] else ""
        table.add_row(f"best attack, {line['training']}{noticed}", f"{line['epsilon_lower_bound']:.2f}")
    out.print(table)
    out.print(document["reading"], style="bold red" if document["refuted"] else "", soft_wrap=True)
