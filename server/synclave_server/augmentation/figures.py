"""Lines over alpha: synthetic patients, and real patients drawn again, beside the real patients alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from synclave_server.augmentation.gains import ADDED, MEASURES, Curve
from synclave_server.evaluation.figure import ROLES, Drawing, canvas, drawing, plain_text
from synclave_server.evaluation.plots import WIDTH

__all__ = ["gain_lines"]

MOST_PANELS: Final = 6
"""Label values times classifiers in a figure; the rarest values come first."""
STYLES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "repeated": ("independent", {"marker": "D", "ms": 4.5, "mfc": ROLES["surface"], "ls": (0, (4, 2))}),
    "synthetic": ("synthetic", {"marker": "o", "ms": 5.5}),
}
"""Kind of added patients -> role and line; the last one lies on top."""
CAPTION: Final = (
    "At alpha 0: the real patients alone (line across). Bars: standard deviation over draws of the patients and seeds"
    " of the classifier; the chance of who was tested is not in them, but in the intervals of the table."
)


def gain_lines(curves: Sequence[Curve]) -> dict[str, Drawing]:
    """A figure for each measure, with a panel for each curve; none where nothing was measured."""
    known = [curve for curve in curves if all(points[0].readings for points in curve.points.values())]
    shown = sorted(known, key=lambda curve: curve.base_rate)[:MOST_PANELS]
    return {measure: _figure(measure, shown) for measure in MEASURES if shown}


def _figure(measure: str, curves: Sequence[Curve]) -> Drawing:
    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    with canvas(WIDTH, 0.35 + 2.3 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place < len(curves):
                _panel(axes, curves[place], measure)
                if place % columns == 0:
                    axes.set_ylabel(f"{MEASURES[measure]}, held-out patients")
            else:
                axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=7.6, columnspacing=1.2)
        told = "; ".join(
            f"{curve.value}, {curve.name}, {ADDED[kind]}: "
            + ", ".join(f"{np.mean(p.readings[measure]):.3f} at {p.alpha:g}" for p in points if p.readings)
            for curve in curves
            for kind, points in curve.points.items()
        )
        return drawing(figure, measure, f"Lines of {MEASURES[measure]} by alpha. {told}.", CAPTION)


def _panel(axes: Axes, curve: Curve, measure: str) -> None:
    for kind, (role, line) in STYLES.items():
        points = [point for point in curve.points[kind] if point.readings]
        values = [point.readings[measure] for point in points]
        spread = [float(np.std(each, ddof=1)) if len(each) > 1 else 0.0 for each in values]
        alphas = [point.alpha for point in points]
        means = [float(np.mean(each)) for each in values]
        axes.errorbar(
            alphas, means, yerr=spread, color=ROLES[role], lw=1.5, elinewidth=0.9, label=f"plus {ADDED[kind]}", **line
        )
    alone = float(np.mean(curve.points["synthetic"][0].readings[measure]))
    axes.axhline(alone, color=ROLES["muted"], lw=0.8, zorder=0)
    axes.set_title(plain_text(f"{curve.value}: {curve.name}", 34), parse_math=False)
    axes.set_xlabel("alpha: added patients per real one")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.grid(visible=True, axis="y")
    axes.margins(x=0.06, y=0.15)


def _tick(value: float, _: int) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".").replace("-", "−") if value else "0"
