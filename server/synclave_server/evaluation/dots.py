"""Dots in rows, and lines over the share of added patients: synthetic, real and independent side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from synclave_server.evaluation.figure import ROLES, Drawing, canvas, drawing, plain_text, short_title
from synclave_server.evaluation.measure import Measure, Reading
from synclave_server.evaluation.plots import WIDTH
from synclave_server.evaluation.words import COLUMNS

__all__ = ["alpha_lines", "dot_rows"]

NAME_SHARE: Final = 0.36
"""Share of a figure's width that holds the names of the rows."""
NAME_LENGTH: Final = 30
"""Characters of a row's name."""
STYLES: Final[tuple[tuple[str, str, str, dict[str, Any]], ...]] = (
    ("real patients", "ceiling", "real", {"marker": "s", "ms": 5.5}),
    (COLUMNS, "floor", "independent", {"marker": "D", "ms": 5, "mfc": ROLES["surface"], "mew": 1.2}),
    ("synthetic patients", "value", "synthetic", {"marker": "o", "ms": 6.5}),
)
"""Name, reading of a measure, role and marker; the last one lies on top."""


def dot_rows(
    key: str, rows: Sequence[tuple[str, Measure]], what: str, caption: str, *, floor: str = COLUMNS
) -> Drawing:
    """Value, ceiling and floor of one kind of measure in several rows.

    Args:
        key: prefix of the drawing's identifiers.
        rows: name of the row and its measure, at least one.
        what: label of the axis.
        caption: how to read it; may be empty.
        floor: what the floor consists of.
    """
    with canvas(WIDTH, 0.95 + 0.34 * len(rows)) as figure:
        figure.set_layout_engine("none")
        top = 0.3 / figure.get_figheight()
        bottom = 0.55 / figure.get_figheight()
        axes = figure.add_axes((NAME_SHARE, bottom, 0.97 - NAME_SHARE, 1 - top - bottom))
        for name, part, role, marker in _styles(floor):
            _dots(axes, [getattr(measure, part) for _, measure in rows], name, role, marker)
        for row, (name, measure) in enumerate(rows):
            axes.text(
                -0.03, row, short_title(name, NAME_LENGTH), transform=axes.get_yaxis_transform(), ha="right",
                va="center", fontsize=8, parse_math=False,
            )  # fmt: skip
            if all(getattr(measure, part).value is None for _, part, _, _ in STYLES):
                axes.text(
                    0.02, row, "not defined", transform=axes.get_yaxis_transform(), va="center", fontsize=7.5,
                    color=ROLES["muted"],
                )  # fmt: skip
        axes.set(ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=["" for _ in rows])
        axes.set_xlabel(plain_text(what, 64), parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        axes.grid(visible=True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _legend(figure, axes)
        told = "; ".join(f"{name}: {_told(measure)}" for name, measure in rows)
        return drawing(figure, key, f"Dots of {what}. {told}.", caption)


def alpha_lines(
    key: str, panels: Sequence[tuple[str, Sequence[tuple[float, Measure]]]], area: str, *, floor: str = COLUMNS
) -> Drawing:
    """An area over the number of added patients per real one, a panel for each label value and classifier.

    Args:
        key: prefix of the drawing's identifiers.
        panels: title, and share -> measure from 0 on; at least one panel.
        area: ``AUROC`` or ``AUPRC``.
        floor: what the floor consists of.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with canvas(WIDTH, 0.35 + 2.3 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_visible(False)
                continue
            title, points = panels[place]
            for name, part, role, marker in _styles(floor):
                readings: list[tuple[float, Reading]] = [(alpha, getattr(m, part)) for alpha, m in points]
                known = [(alpha, reading.value) for alpha, reading in readings if reading.value is not None]
                line = {"ls": (0, (4, 2)) if part == "floor" else "-", "lw": 1.5}
                axes.plot(*zip(*known, strict=True), color=ROLES[role], label=f"plus {name}", **line, **marker)
            low, high = points[0][1].value.interval or (0.0, 0.0)
            axes.axhspan(low, high, color=ROLES["band"], lw=0, zorder=0)
            axes.set_title(plain_text(title, 34), parse_math=False)
            axes.set_xticks([alpha for alpha, _ in points])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda alpha, _: f"{alpha:g}"))
            axes.set_xlabel("added patients per real patient")
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_formatter(FuncFormatter(_tick))
            if place % columns == 0:
                axes.set_ylabel(f"{area} on held-out real patients")
            axes.grid(visible=True, axis="y")
            axes.margins(x=0.06, y=0.15)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=7.6, columnspacing=1.2)
        told = "; ".join(
            f"{title}, {alpha:g} added per real patient: {_told(measure)}"
            for title, points in panels
            for alpha, measure in points
        )
        return drawing(
            figure,
            key,
            f"Lines of {area} by added patients. {told}.",
            "At 0: the real patients alone, with the 95 % interval as a band. Synthetic patients help where their line "
            "rises above the band; a line inside it shows nothing.",
        )


def _styles(floor: str) -> tuple[tuple[str, str, str, dict[str, Any]], ...]:
    return tuple((floor if part == "floor" else name, part, role, marker) for name, part, role, marker in STYLES)


def _dots(axes: Axes, readings: Sequence[Reading], name: str, role: str, marker: dict[str, Any]) -> None:
    places = [(reading.value, row) for row, reading in enumerate(readings) if reading.value is not None]
    for row, reading in enumerate(readings):
        if reading.interval is not None:
            axes.plot(reading.interval, [row, row], color=ROLES[role], lw=1.0, alpha=0.7)
    if places:
        x, y = zip(*places, strict=True)
        axes.plot(x, y, ls="none", color=ROLES[role], label=name, **marker)


def _legend(figure: Any, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=7.6, columnspacing=1.2
        )


def _tick(value: float, _: int) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".").replace("-", "−") if value else "0"


def _told(measure: Measure) -> str:
    def number(reading: Reading) -> str:
        return "not defined" if reading.value is None else f"{reading.value:.3f}"

    return f"real {number(measure.ceiling)}, synthetic {number(measure.value)}, independent {number(measure.floor)}"
