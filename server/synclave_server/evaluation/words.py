"""The sentences at the head of a report: what was made, how useful it is, how safe, whatever the kind of data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from synclave_server.evaluation.charts import power_of_ten
from synclave_server.evaluation.disclosure import MEMBERSHIP, NEIGHBOURS
from synclave_server.evaluation.measure import Measure, Reading
from synclave_server.evaluation.plots import percent

__all__ = ["COLUMNS", "alarms", "degree", "headline", "judged", "of_100", "short", "verdict"]

COLUMNS: Final = "independent columns"
"""What the floor of codes and time series consists of."""
_COPIES: Final = ("copies_of_training", "copies_of_held_out")


def verdict(measure: Measure) -> str:
    """What a disclosure check says in words; nothing where there is nothing to say."""
    value, ceiling = measure.value, measure.ceiling
    if value.value is None:
        return "not defined"
    if ceiling.interval is None or measure.key not in (NEIGHBOURS, MEMBERSHIP):
        return ""
    low, high = ceiling.interval
    # An alarm asks for both intervals to lie apart; one of them alone is missed by chance in one report of forty.
    if measure.key == MEMBERSHIP:
        if value.interval is not None and value.interval[0] > max(high, 0.5):
            return "nearer to training patients than chance allows"
        return "within the range of chance" if value.value <= max(high, 0.5) else "at the edge of chance"
    if value.interval is not None and value.interval[1] < low:
        return "closer to training patients than chance allows"
    if value.value < low:
        return "at the edge of chance; repeat with more patients"
    return "within the range of chance" if value.value <= high else "no closer to training patients"


def alarms(measures: Mapping[str, Measure]) -> bool:
    """Whether a disclosure check points to memorised patients."""
    return any(verdict(measures[key]).endswith("than chance allows") for key in (NEIGHBOURS, MEMBERSHIP))


def judged(judge: Measure, floor: str = COLUMNS) -> Iterator[str]:
    """What a discriminator's AUROC means; ``floor`` is what the floor consists of."""
    if judge.value.value is not None:
        yield (
            f"Shown one real and one synthetic patient, a trained judge picks out the synthetic one in "
            f"{100 * judge.value.value:.0f} of 100 pairs; guessing is 50, {floor} {of_100(judge.floor)}."
        )


def degree(way: float | None, floor: str = COLUMNS) -> str:
    """A place between floor (0) and ceiling (1) in words; ``floor`` is what the floor consists of."""
    if way is None:
        return "floor and ceiling cannot be told apart on these data"
    if way >= 0.9:
        return "about as good as other real patients"
    if way >= 0.6:
        return f"most of the way from {floor} to real patients"
    if way >= 0.25:
        return f"part of the way from {floor} to real patients"
    if way < 0:
        return f"no better than {floor}"
    return f"hardly better than {floor}"


def headline(
    metrics: Mapping[str, Any],
    measures: Mapping[str, Measure],
    *,
    columns: str,
    close: Iterable[str],
    useful: Iterable[str] = (),
    safe: Iterable[str] = (),
    floor: str = COLUMNS,
) -> list[tuple[str, list[str]]]:
    """What was made, how close, how useful, how safe: headings and sentences in plain words.

    Args:
        metrics: content of ``metrics.json``.
        measures: all measures by key.
        columns: what a patient consists of.
        close: how close the patients are, in the words of their kind of data.
        useful: of what use they are besides predicting the label.
        safe: what checks of their kind of data show.
        floor: what the floor consists of.
    """
    cohorts, schema = metrics["cohorts"], metrics["schema"]
    made = [
        f"{cohorts['synthetic']:,} synthetic patients with {columns} of schema {schema['name']}, "
        f"compared with {cohorts['real']:,} real patients held out from training."
    ]
    if cohorts["halved"]:
        made.append(
            "No training patients were given: one half of the held-out patients shows what other real patients score."
        )
    if metrics["privacy"] is not None:
        round_text = metrics["privacy"]["snapshot_round"]
        made.append(
            f"The model was trained by {len(metrics['privacy']['sites'])} sites under plan "
            f"{metrics['privacy']['plan_name']}"
            + (f" and taken after round {round_text}." if round_text is not None else ".")
        )
    shift = max(abs(share["real"] - share["synthetic"]) for share in metrics["label_balance"])
    if shift >= 0.05:
        made.append(
            f"The shares of {schema['label']} differ by up to {100 * shift:.0f} percentage points from the real ones; "
            "if that was asked for, part of every difference below is due to it."
        )
    return [
        ("What was made", made),
        ("How close", list(close)),
        ("How useful", [*_how_useful(measures, schema["label_title"] or schema["label"], floor), *useful]),
        ("How safe", [*_how_safe(metrics, measures), *safe]),
    ]


def _how_useful(measures: Mapping[str, Measure], outcome: str, floor: str) -> Iterator[str]:
    tasks = [m for m in measures.values() if m.key.startswith("tstr_") and "_auroc[" in m.key]
    known = [m for m in tasks if m.value.value is not None and m.ceiling.value is not None]
    if not known:
        yield f"Not defined: {tasks[0].value.reason or tasks[0].ceiling.reason}."
    best: dict[str, Measure] = {}
    for measure in known:
        task = measure.key.partition("[")[2]
        if task not in best or (measure.ceiling.value or 0) > (best[task].ceiling.value or 0):
            best[task] = measure
    for measure in list(best.values())[:3]:
        what = f"\u201c{outcome}: {measure.key.partition('[')[2][:-1]}\u201d"
        model = measure.title.rsplit(",", 1)[0].rpartition(": ")[2]
        yield (
            f"Predicting {what} with {model}: trained on synthetic patients AUROC "
            f"{short(measure.value)}, on as many real "
            f"patients {short(measure.ceiling)}, on {floor} "
            f"{short(measure.floor)}, all tested on real patients."
        )
        if measure.way is None and measure.floor.value is not None:
            yield (f"Here even {floor} do about as well as real patients: this outcome tells little about a model.")
        elif measure.way is not None:
            yield f"That is {degree(measure.way, floor)}."


def _how_safe(metrics: Mapping[str, Any], measures: Mapping[str, Measure]) -> Iterator[str]:
    privacy = metrics["privacy"]
    if privacy is None:
        yield "No run folder was given: this report states no epsilon and shows nothing about privacy."
    elif not privacy["ledger_valid"]:
        count = len(privacy["ledger_findings"])
        findings = "one finding" if count == 1 else f"{count} findings"
        yield f"THE LEDGER DOES NOT VERIFY ({findings}). Rely on no epsilon of this report."
    elif not privacy["sites"]:
        yield "The ledger verifies, but no site has spent anything in this run."
    else:
        if metrics["sampling"] is None:
            yield (
                "The synthetic patients carry no provenance: nothing shows that they come from this run; "
                "the epsilon is that of the run alone."
            )
        unbounded = [name for name, spend in privacy["sites"].items() if spend["epsilon"][-1] is None]
        if unbounded:
            yield f"NO FINITE EPSILON holds for {', '.join(unbounded)}: what was spent there is no protection."
        else:
            name, spend = max(privacy["sites"].items(), key=lambda item: item[1]["epsilon"][-1])
            budget = f", of a budget of {spend['budget_epsilon']:g}" if spend["budget_epsilon"] is not None else ""
            yield (
                f"Per patient, no site spent more than epsilon {spend['epsilon'][-1]:.2f} at delta "
                f"{power_of_ten(spend['delta'])} ({name}{budget}). All {privacy['ledger_size']} ledger entries verify; "
                "the numbers are recomputed from them."
            )
    training, held_out = (measures[key] for key in _COPIES)
    if training.value.value is not None and held_out.value.value is not None:
        yield (
            f"Sanity check, no evidence: {percent(training.value.value)} of the synthetic rows "
            "equal a training patient, "
            f"{percent(held_out.value.value)} one of as many patients that the model never saw."
        )
    if alarms(measures):
        yield (
            "WARNING: synthetic rows lie closer to training patients than to held-out ones by "
            "more than chance allows: the "
            "model may have memorised patients."
        )


def short(reading: Reading) -> str:
    """A reading to two digits."""
    return "not defined" if reading.value is None else f"{reading.value:.2f}".replace("-", "−")


def of_100(reading: Reading) -> str:
    """A reading that is a share, as a number of 100."""
    return "not defined" if reading.value is None else f"{100 * reading.value:.0f}"
