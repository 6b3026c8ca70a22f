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
from synclave_server.evaluation.words import COLUMNS, alarms, verdict

__all__ = ["page", "render_report"]

_LIGHT: Final = (("#08407e", "#6baed6", "#f7f8fa"), ("#f7f8fa", "#fd9d56", "#8c2d04"))
_DARK: Final = (("#a6d8ff", "#2a6fa8", "#1f262e"), ("#1f262e", "#b65a1d", "#ffcfa6"))


def render_report(
    template: str,
    metrics: Mapping[str, Any],
    measures: Sequence[Measure],
    sites: Sequence[SiteResult],
    drawings: Mapping[str, Drawing],
    sentences: Sequence[tuple[str, list[str]]],
    *,
    floor: str = COLUMNS,
    **content: Any,
) -> str:
    """The whole page.

    Args:
        template: name of the page's template.
        metrics: content of ``metrics.json``.
        measures: the same measures as values.
        sites: the measures at each site as values.
        drawings: figures by name; a missing one is explained in its place.
        sentences: the headline, see :func:`~synclave_server.evaluation.words.headline`.
        floor: what the floor consists of.
        content: what only this template reads.
    """
    sections = dict.fromkeys(measure.section for measure in measures)
    return page(
        template,
        drawings,
        metrics=metrics,
        headline=sentences,
        alarm=alarms({measure.key: measure for measure in measures})
        or bool(metrics["privacy"] and not metrics["privacy"]["ledger_valid"]),
        sections={section: [m for m in measures if m.section == section] for section in sections},
        sites=sites,
        spread=[spread_text(found) for found in metrics["site_spread"].values()],
        provenance=list(_flat(metrics["sampling"] or {}, "Sampling")),
        gauge=gauge_place,
        verdict=without_gauge,
        share=share_text,
        disclosure=DISCLOSURE,
        holding=HOLDING,
        floor=floor,
        **content,
    )


def page(template: str, drawings: Mapping[str, Drawing], **content: Any) -> str:
    """A page that needs nothing but itself.

    Args:
        template: its name.
        drawings: figures by name.
        content: what else the template reads.
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
    return environment.get_template(template).render(
        drawings={name: (Markup(d.svg), d.caption) for name, d in drawings.items()},  # noqa: S704 - our own SVG, text escaped
        light=Markup(_levels(*_LIGHT)),  # noqa: S704 - constants
        dark=Markup(_levels(*_DARK)),  # noqa: S704 - constants
        **content,
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


def without_gauge(measure: Measure) -> str:
    """What the report writes where a measure has no gauge."""
    return verdict(measure) if measure.section == DISCLOSURE or measure.value.value is None else _no_scale(measure)


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
