"""Figures of time series, small multiples of channels: courses, distributions, gaps over time, autocorrelation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from synclave_server.evaluation.figure import ROLES, Drawing, canvas, drawing, plain_text
from synclave_server.evaluation.plots import WIDTH

__all__ = ["Panel", "course_panels", "line_panels", "step_panels"]

COLUMNS: Final = 2
STYLES: Final[dict[str, dict[str, Any]]] = {
    "real": {"color": ROLES["real"], "lw": 2.4},
    "other": {"color": ROLES["real"], "lw": 1.0, "ls": (0, (1.5, 1.2))},
    "independent": {"color": ROLES["independent"], "lw": 1.1, "ls": (0, (4, 2))},
    "synthetic": {"color": ROLES["synthetic"], "lw": 1.2},
}
NAMES: Final = {
    "real": "held-out real patients",
    "other": "other real patients",
    "independent": "independent columns",
    "synthetic": "synthetic patients",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One channel.

    Attributes:
        title: its name, with the unit where values are shown.
        x: hours of the points [K], or ends of the bars [K + 1].
        lines: ``real``, ``other``, ``independent`` or ``synthetic`` -> heights [K]; of courses, one line for each
            patient [patients, K], NaN where nothing was observed.
        logarithmic: whether ``x`` is.
    """

    title: str
    x: NDArray[np.float64]
    lines: dict[str, NDArray[np.float64]]
    logarithmic: bool = False


def course_panels(key: str, whose: str, role: str, panels: Sequence[Panel]) -> Drawing:
    """Courses of a few patients: a row for each channel, a column for each patient.

    Args:
        key: prefix of the drawing's identifiers.
        whose: such as ``real patients``.
        role: which lines of the panels are drawn; the other ones only share the scale.
        panels: the channels, at least one.
    """
    patients = len(panels[0].lines[role])
    with canvas(WIDTH, 0.5 + 0.95 * len(panels)) as figure:
        grid = figure.subplots(len(panels), patients, squeeze=False, sharex=True, sharey="row")
        for row, panel in zip(grid, panels, strict=True):
            everything = np.concatenate([lines[np.isfinite(lines)] for lines in panel.lines.values()])
            low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
            margin = 0.08 * (high - low) or 0.5
            for axes, values in zip(row, panel.lines[role], strict=True):
                axes.plot(panel.x, values, color=ROLES[role], lw=1.2, marker="o", ms=2.4, mew=0)
                axes.set(ylim=(low - margin, high + margin), xlim=(panel.x[0] - 0.5, panel.x[-1] + 0.5))
                axes.yaxis.set_major_locator(MaxNLocator(3))
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                axes.grid(visible=True)
                axes.tick_params(labelsize=7, length=2)
            row[0].set_title(
                plain_text(panel.title, 60), loc="left", fontsize=8, color=ROLES["ink"], parse_math=False, pad=3
            )
        for axes in grid[-1]:
            axes.set_xlabel("hours", fontsize=7.5)
        return drawing(
            figure,
            key,
            f"Courses of {patients} {whose} in {len(panels)} channels: {_names(panels)}.",
            f"{patients} {whose}, one in each column. Dots are observations; neighbours are joined, gaps are not.",
        )


def line_panels(
    key: str,
    panels: Sequence[Panel],
    *,
    across: str,
    up: str,
    caption: str,
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """Lines for each channel, those of all cohorts in one panel; NaN is a gap."""

    def draw(axes: Axes, panel: Panel) -> None:
        for role in (name for name in STYLES if name in panel.lines):
            # Dots, because a point between two gaps has no line.
            axes.plot(panel.x, panel.lines[role], **STYLES[role], marker="o", ms=2.2, mew=0, label=NAMES[role])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if limits is not None:
            axes.set_ylim(*limits)

    return _panels(key, panels, draw, across, up, caption)


def step_panels(key: str, panels: Sequence[Panel], what: str, caption: str) -> Drawing:
    """Distributions as outlines of bars, shares of ``what``."""

    def draw(axes: Axes, panel: Panel) -> None:
        for role in (name for name in STYLES if name in panel.lines):
            axes.stairs(100 * panel.lines[role], panel.x, label=NAMES[role], **STYLES[role])
        axes.set_ylim(bottom=0)
        if panel.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))

    return _panels(key, panels, draw, "", f"% of {what}", caption)


def _panels(
    key: str, panels: Sequence[Panel], draw: Callable[[Axes, Panel], None], across: str, up: str, caption: str
) -> Drawing:
    rows = -(-len(panels) // COLUMNS)
    with canvas(WIDTH, 0.55 + 1.3 * rows) as figure:
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_visible(False)
                continue
            draw(axes, panels[place])
            axes.set_title(plain_text(panels[place].title, 40), fontsize=8, parse_math=False, pad=3)
            axes.grid(visible=True)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(labelsize=7, length=2)
            if place % COLUMNS == 0:
                axes.set_ylabel(up, fontsize=7.5)
            if across and place >= len(panels) - COLUMNS:
                axes.set_xlabel(across, fontsize=7.5)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=7.6, columnspacing=1.4)
        return drawing(figure, key, f"{caption} Shown: {_names(panels)}.", caption)


def _names(panels: Sequence[Panel]) -> str:
    return ", ".join(plain_text(panel.title, 60) for panel in panels)
