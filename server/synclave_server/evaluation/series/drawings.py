"""All figures of a report on time series, from the measured values to drawings by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation import plots
from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.downstream import label_tasks
from synclave_server.evaluation.figure import Drawing
from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.outcome_drawings import outcome_drawings
from synclave_server.evaluation.run_record import RunRecord
from synclave_server.evaluation.series.classifiers import QUICK_OF_SERIES, series_classifiers
from synclave_server.evaluation.series.fidelity import CORRELATED_PATIENTS, compared_channels
from synclave_server.evaluation.series.likeness import (
    autocorrelations,
    channel_correlations,
    lags_of,
    observed_shares,
    observed_values,
)
from synclave_server.evaluation.series.plots import Panel, course_panels, line_panels, step_panels
from synclave_server.evaluation.sites import SiteResult
from synclave_shared.data.series.channel import Channel
from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["SHOWN_PATIENTS", "series_drawings", "shown_channels"]

SHOWN_CHANNELS: Final = 6
"""Channels in small multiples."""
SELDOM: Final = 0.25
"""A channel observed in a smaller share of steps shows how gaps are met."""
SHOWN_PATIENTS: Final = 4
"""Patients of either kind whose courses are drawn."""
MAP_CHANNELS: Final = 32
"""Channels in the correlation maps: as many as can be read."""
BINS: Final = 24


def shown_channels(reference: NDArray[Any]) -> list[int]:
    """Channels for small multiples: those observed most often, a third of them among the seldom ones; in order."""
    shares = reference["observed"].mean(axis=(0, 1))
    ranked = sorted(compared_channels(reference), key=lambda channel: -shares[channel])
    seldom = [channel for channel in ranked if shares[channel] < SELDOM][: SHOWN_CHANNELS // 3]
    often = [channel for channel in ranked if channel not in seldom]
    return sorted([*often[: SHOWN_CHANNELS - len(seldom)], *seldom])


def series_drawings(
    schema: SeriesSchema,
    comparison: Comparison,
    measures: Sequence[Measure],
    sites: Sequence[SiteResult],
    metrics: Mapping[str, Any],
    record: RunRecord | None,
    rng: np.random.Generator,
) -> dict[str, Drawing]:
    """Name -> figure; a figure for which there is nothing to draw is left out.

    Args:
        schema: of all data sets.
        comparison: the compared cohorts.
        measures: all measures of the whole comparison.
        sites: measures at each site.
        metrics: content of ``metrics.json``.
        record: of the training, if known.
        rng: chooses the patients whose courses are drawn.
    """
    tasks = label_tasks(comparison.reference, schema.label.values)
    outcome = outcome_drawings(schema, tasks, measures, sites, metrics, record, series_classifiers, QUICK_OF_SERIES)
    channels = shown_channels(comparison.reference.features)
    if not channels:
        return outcome
    return outcome | _small_multiples(schema, comparison, channels, rng) | _maps(schema, comparison)


def _small_multiples(
    schema: SeriesSchema, comparison: Comparison, channels: Sequence[int], rng: np.random.Generator
) -> dict[str, Drawing]:
    cohorts = {
        "real": comparison.reference.features,
        "other": comparison.other_real.features,
        "independent": comparison.independent.features,
        "synthetic": comparison.synthetic.features,
    }
    hours = np.arange(schema.horizon) * schema.grid.step_minutes / 60
    lags = lags_of(schema.horizon)
    drawn = _courses(schema, comparison, channels, hours, rng)
    shares = {name: observed_shares(features) for name, features in cohorts.items() if name != "independent"}
    drawn["observed"] = line_panels(
        "observed",
        [
            Panel(
                title=_title(schema.channels[c]),
                x=hours,
                lines={name: 100 * share[:, c] for name, share in shares.items()},
            )
            for c in channels
        ],
        across="hours",
        up="% observed",
        caption="Share of the patients still there who have an observation, by time.",
        limits=(-4, 104),
    )
    edges = {c: _edges(cohorts["real"], c) for c in channels}
    drawn["distributions"] = step_panels(
        "distributions",
        [
            Panel(
                title=_title(schema.channels[c], unit=True),
                x=schema.channels[c].unscaled(edges[c].astype(np.float32)),
                logarithmic=schema.channels[c].transform == "log",
                lines={name: _shares(observed_values(cohorts[name], c), edges[c]) for name in ("real", "synthetic")},
            )
            for c in channels
        ],
        "values",
        "Distribution of the observed values of all steps; values beyond the ends are counted at the ends.",
    )
    drawn["stays"] = _stays(schema, cohorts)
    if lags:
        apart = np.array(lags) * schema.grid.step_minutes / 60
        coefficients = {name: autocorrelations(features, lags) for name, features in cohorts.items()}
        drawn["autocorrelation"] = line_panels(
            "autocorrelation",
            [
                Panel(
                    title=_title(schema.channels[c]), x=apart, lines={name: r[:, c] for name, r in coefficients.items()}
                )
                for c in channels
            ],
            across="hours between two observations",
            up="correlation",
            caption="Correlation of a channel with itself some hours later, over the pairs observed in one patient.",
            limits=(-0.3, 1.05),
        )
    return drawn


def _stays(schema: SeriesSchema, cohorts: Mapping[str, NDArray[Any]]) -> Drawing:
    """How long patients stay, and how much is observed of them."""
    both = ("real", "synthetic")
    per_step = {name: cohorts[name]["observed"].sum(axis=(1, 2)) / cohorts[name]["length"] for name in both}
    steps = np.arange(schema.horizon + 1, dtype=np.float64) + 0.5
    bars: NDArray[np.float64] = np.linspace(0, max(float(part.max()) for part in per_step.values()) + 1e-9, BINS + 1)
    return step_panels(
        "stays",
        [
            Panel(
                title="Length of stay (hours)",
                x=steps * schema.grid.step_minutes / 60,
                lines={name: _shares(cohorts[name]["length"], steps) for name in both},
            ),
            Panel(
                title="Observations per step",
                x=bars,
                lines={name: _shares(part, bars) for name, part in per_step.items()},
            ),
        ],
        "patients",
        "How long patients stay within the grid, and how many channels are observed at a step, on average of the stay.",
    )


def _courses(
    schema: SeriesSchema,
    comparison: Comparison,
    channels: Sequence[int],
    hours: NDArray[np.float64],
    rng: np.random.Generator,
) -> dict[str, Drawing]:
    chosen = {"real": _few(comparison.reference, rng), "synthetic": _few(comparison.synthetic, rng)}
    panels = [
        Panel(
            title=_title(schema.channels[c], unit=True),
            x=hours,
            lines={
                name: np.where(
                    features["observed"][:, :, c] == 1, schema.channels[c].unscaled(features["values"][:, :, c]), np.nan
                )
                for name, features in chosen.items()
            },
        )
        for c in channels
    ]
    return {f"courses{role}": course_panels(f"courses{role}", f"{role} patients", role, panels) for role in chosen}


def _few(table: Table, rng: np.random.Generator) -> NDArray[Any]:
    """Records of :data:`SHOWN_PATIENTS`, drawn at random."""
    return table.sample(SHOWN_PATIENTS, rng).features


def _maps(schema: SeriesSchema, comparison: Comparison) -> dict[str, Drawing]:
    real, patients = channel_correlations(comparison.reference.features)
    synthetic, _ = channel_correlations(comparison.synthetic.features)
    shares = comparison.reference.features["observed"].mean(axis=(0, 1))
    ranked = sorted(compared_channels(comparison.reference.features), key=lambda channel: -shares[channel])
    channels = sorted(ranked[:MAP_CHANNELS])
    if len(channels) < 3:
        return {}
    part = np.ix_(channels, channels)
    compared = (patients[part] >= CORRELATED_PATIENTS) & np.isfinite(real[part]) & ~np.eye(len(channels), dtype=bool)
    truth, found = np.nan_to_num(real[part]), np.nan_to_num(synthetic[part])
    names = [_title(schema.channels[c]) for c in channels]
    scale = plots.correlation_scale(truth, compared)
    upper = np.triu(compared, k=1)
    maps = (
        ("real", "correlations in real patients", truth),
        ("synthetic", "correlations in synthetic patients", found),
        ("difference", "difference, synthetic minus real", found - truth),
    )
    return {
        **{
            key: plots.correlation_map(key, title, matrix, compared, names, scale, "channels")
            for key, title, matrix in maps
        },
        "pairs": plots.correlation_scatter(truth[upper], found[upper], "channels", "go together as closely"),
    }


def _title(channel: Channel, *, unit: bool = False) -> str:
    name = channel.title or channel.name
    return f"{name} ({channel.unit})" if unit and channel.unit not in ("", "1") else name


def _edges(features: NDArray[Any], channel: int) -> NDArray[np.float64]:
    """Ends of the bars of a distribution, on the scale from -1 to 1: all but the outermost real values lie inside."""
    low, high = np.quantile(observed_values(features, channel), (0.002, 0.998))
    wide = max(float(high - low), 1e-3)
    return np.linspace(max(low - 0.02 * wide, -1.0), min(high + 0.02 * wide, 1.0), BINS + 1)


def _shares(values: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values in each bar; those beyond the ends are in the outermost ones."""
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(places, minlength=len(edges) - 1) / max(len(values), 1)
