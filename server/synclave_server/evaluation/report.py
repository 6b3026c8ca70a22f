"""The report: numbers into words, and both into one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from synclave_server.evaluation.charts import power_of_ten
from synclave_server.evaluation.disclosure import SECTION as DISCLOSURE
from synclave_server.evaluation.figure import LEVELS, Drawing
from synclave_server.evaluation.measure import Measure, Reading
from synclave_server.evaluation.plots import percent
from synclave_server.evaluation.sites import SiteResult, spread_text
from synclave_server.evaluation.utility import HOLDING

__all__ = ["headline", "render_report"]

_LIGHT: Final = (("#08407e", "#6baed6", "#f7f8fa"), ("#f7f8fa", "#fd9d56", "#8c2d04"))
_DARK: Final = (("#a6d8ff", "#2a6fa8", "#1f262e"), ("#1f262e", "#b65a1d", "#ffcfa6"))
NEIGHBOURS: Final = "neighbour_distance_ratio"
_COPIES: Final = ("copies_of_training", "copies_of_held_out")


def render_report(
    metrics: Mapping[str, Any],
    measures: Sequence[Measure],
    sites: Sequence[SiteResult],
    drawings: Mapping[str, Drawing],
) -> str:
    """The whole page.

    Args:
        metrics: content of ``metrics.json``.
        measures: the same measures as values.
        sites: the measures at each site as values.
        drawings: figures by name; a missing one is explained in its place.
    """
    environment = Environment(
        loader=PackageLoader("synclave_server.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "count": lambda number: f"{number:,}",
        "reading": reading_text,
        "power": power_of_ten,
        "rounded": lambda share: f"{100 * share:.2g} %",
    }
    sections = dict.fromkeys(measure.section for measure in measures)
    return environment.get_template("report.html.j2").render(
        metrics=metrics,
        headline=headline(metrics, {measure.key: measure for measure in measures}),
        sections={section: [m for m in measures if m.section == section] for section in sections},
        sites=sites,
        spread=[spread_text(found) for found in metrics["site_spread"].values()],
        drawings={name: (Markup(d.svg), d.caption) for name, d in drawings.items()},  # noqa: S704 - our own SVG, text escaped
        light=Markup(_levels(*_LIGHT)),  # noqa: S704 - constants
        dark=Markup(_levels(*_DARK)),  # noqa: S704 - constants
        provenance=list(_flat(metrics["sampling"] or {}, "Sampling")),
        gauge=gauge_place,
        verdict=verdict,
        share=share_text,
        disclosure=DISCLOSURE,
        holding=HOLDING,
    )


def reading_text(reading: Reading, measure: Measure) -> str:
    """A reading as the report writes it, with its interval."""
    if reading.value is None:
        return "not defined"
    value = _number(reading.value, measure)
    if reading.interval is None:
        return value
    low, high = (_number(bound, measure) for bound in reading.interval)
    return f"{value} ({low} to {high})"


def _number(value: float, measure: Measure) -> str:
    if measure.percent:
        return percent(value)
    if measure.key == "mmd_squared":
        return f"{1000 * value:.2f} × 10⁻³".replace("-", "−")
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # adding 0 makes a minus zero a zero


def verdict(measure: Measure) -> str:
    """What the report writes where a measure has no gauge."""
    if measure.value.value is None:
        return "not defined"
    if measure.key != NEIGHBOURS:
        return "" if measure.section == DISCLOSURE else _no_scale(measure)
    if measure.ceiling.interval is None:
        return ""
    low, high = measure.ceiling.interval
    value = measure.value.value
    # An alarm asks for both intervals to lie apart; one of them alone is missed by chance in one report of forty.
    if measure.value.interval is not None and measure.value.interval[1] < low:
        return "closer to training patients than chance allows"
    if value < low:
        return "at the edge of chance; repeat with more patients"
    return "within the range of chance" if value <= high else "no closer to training patients"


def _no_scale(measure: Measure) -> str:
    """Why a value has no place between floor and ceiling."""
    if measure.ceiling.value is None or measure.floor.value is None or measure.ceiling.value == measure.floor.value:
        return ""
    close = abs(measure.ceiling.value - measure.floor.value) < measure.resolution
    return "floor ≈ ceiling" if close else "floor beyond ceiling"


def share_text(measure: Measure) -> str:
    """Value / ceiling in percent, or nothing where that has no meaning."""
    return "" if measure.of_ceiling is None else f"{100 * measure.of_ceiling:.1f} %".replace("-", "−")


def gauge_place(measure: Measure) -> float | None:
    """Place of the value's dot on a track from floor (0) to ceiling (1), kept within -0.15 to 1.15."""
    return None if measure.way is None or measure.section == DISCLOSURE else min(max(measure.way, -0.15), 1.15)


def _degree(way: float | None) -> str:
    if way is None:
        return "floor and ceiling cannot be told apart on these data"
    if way >= 0.9:
        return "about as good as other real patients"
    if way >= 0.6:
        return "most of the way from independent columns to real patients"
    if way >= 0.25:
        return "part of the way from independent columns to real patients"
    return "hardly better than columns drawn independently"


def headline(metrics: Mapping[str, Any], measures: Mapping[str, Measure]) -> list[tuple[str, list[str]]]:
    """What was made, how close, how useful, how safe, what is not claimed: headings and sentences in plain words."""
    cohorts, schema = metrics["cohorts"], metrics["schema"]
    made = [
        f"{cohorts['synthetic']:,} synthetic patients with {schema['columns']:,} columns of schema {schema['name']}, "
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
        ("How close", list(_how_close(measures))),
        ("How useful", list(_how_useful(measures, schema["label_title"] or schema["label"]))),
        ("How safe", list(_how_safe(metrics, measures))),
    ]


def _how_close(measures: Mapping[str, Measure]) -> Iterator[str]:
    error = measures["prevalence_mae"]
    if error.value.value is not None and error.ceiling.value is not None:
        yield (
            f"How many patients have a code is off by {100 * error.value.value:.2f} percentage "
            "points on average; between two "
            f"groups of real patients by {100 * error.ceiling.value:.2f}."
        )
    relation = measures["correlation_pearson"]
    if relation.value.value is None:
        yield f"Relations between codes could not be judged: {relation.value.reason}."
    else:
        yield (
            f"Relations between codes: {_degree(relation.way)} (agreement {relation.value.value:.2f}, "
            f"real patients {_short(relation.ceiling)}, independent columns {_short(relation.floor)})."
        )
    judge = measures["discriminator_boosting"]
    if judge.value.value is not None:
        yield (
            f"Shown one real and one synthetic patient, a trained judge picks out the synthetic one in "
            f"{100 * judge.value.value:.0f} of 100 pairs; guessing is 50, independent columns {_of_100(judge.floor)}."
        )


def _how_useful(measures: Mapping[str, Measure], outcome: str) -> Iterator[str]:
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
            f"{_short(measure.value)}, on as many real "
            f"patients {_short(measure.ceiling)}, on independent columns "
            f"{_short(measure.floor)}, all tested on real patients."
        )
        if measure.way is None and measure.floor.value is not None:
            yield (
                "Here even independent columns do about as well as real patients: this outcome "
                "tells little about a model."
            )
        elif measure.way is not None:
            yield f"That is {_degree(measure.way)}."

    mean = measures["target_logistic_auroc"]
    if mean.value.value is not None:
        yield (
            f"Predicting single columns from all others: mean AUROC {_short(mean.value)}, on real patients "
            f"{_short(mean.ceiling)}, on independent columns {_short(mean.floor)}: {_degree(mean.way)}."
        )


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
    neighbour = measures[NEIGHBOURS]
    if neighbour.value.value is not None and verdict(neighbour).startswith("closer"):
        yield (
            "WARNING: synthetic rows lie closer to training patients than to held-out ones by "
            "more than chance allows: the "
            "model may have memorised patients."
        )


def _short(reading: Reading) -> str:
    return "not defined" if reading.value is None else f"{reading.value:.2f}".replace("-", "−")


def _of_100(reading: Reading) -> str:
    return "not defined" if reading.value is None else f"{100 * reading.value:.0f}"


def _flat(value: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Nested provenance as rows ``a / b -> text``."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{name} / {key}")
        else:
            yield f"{name} / {key}", ", ".join(map(str, item)) if isinstance(item, list | tuple) else str(item)


def _levels(negative: tuple[str, str, str], positive: tuple[str, str, str]) -> str:
    """CSS variables of the diverging scale, from strongest negative over neutral to strongest positive."""

    def mix(one: str, other: str, share: float) -> str:
        channels = ((int(one[k : k + 2], 16), int(other[k : k + 2], 16)) for k in (1, 3, 5))
        return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in channels)

    lines = []
    for place in range(2 * LEVELS + 1):
        anchors, position = (negative, place / LEVELS) if place <= LEVELS else (positive, place / LEVELS - 1)
        first = 0 if position <= 0.5 else 1
        lines.append(f"--level-{place}:{mix(anchors[first], anchors[first + 1], 2 * position - first)}")
    return ";".join(lines)
