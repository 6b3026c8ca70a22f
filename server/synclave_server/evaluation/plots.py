"""Figures of single codes and of pairs of codes; each returns a :class:`~synclave_server.evaluation.figure.Drawing`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from synclave_server.evaluation.figure import (
    LEVELS,
    ROLES,
    Drawing,
    canvas,
    drawing,
    level_colour,
    short_title,
)

__all__ = [
    "WIDTH",
    "correlation_map",
    "correlation_scale",
    "correlation_scatter",
    "largest_deviations",
    "percent",
    "prevalence_scatter",
]

MAP_SHARE: Final = 0.6
"""Share of a correlation map's width that is map; the rest holds the names of the codes."""
WIDTH: Final = 5.4
"""Width of every figure in inches: they stand side by side on a desk and one below the other on a phone."""
MAP_HEIGHT: Final = WIDTH * MAP_SHARE + 0.45
"""Height of a map in inches: the square, and its scale."""


def percent(value: float) -> str:
    """A share as a percentage with as many decimals as it needs: 0.05 %, 1.2 %, 35 %."""
    share = 100 * value
    if share == 0:
        return "0 %"
    decimals = 3 if abs(share) < 0.01 else 2 if abs(share) < 1 else 1 if abs(share) < 10 else 0
    return f"{share:.{decimals}f} %"


def prevalence_scatter(
    real: NDArray[np.float64],
    synthetic: NDArray[np.float64],
    sizes: tuple[int, int],
    names: Sequence[str],
    marked: Sequence[int],
    what: str = "code",
) -> Drawing:
    """Prevalence of each code, real against synthetic, both on logarithmic axes.

    Args:
        real: prevalences among real patients [D].
        synthetic: prevalences among synthetic patients [D].
        sizes: number of real and of synthetic patients behind them.
        names: the columns' titles [D].
        marked: columns to name in the figure, most important first.
        what: what a column is.
    """
    floor = 0.5 / min(sizes)
    seen = (real > 0) | (synthetic > 0)
    low = floor / 1.5
    with canvas(WIDTH, 5.0) as figure:
        axes = figure.add_subplot()
        axes.set(xscale="log", yscale="log", xlim=(low, 1.6), ylim=(low, 1.6), aspect="equal")
        grid = np.geomspace(low, 1, 200)
        spread = 1.96 * np.sqrt(grid * (1 - grid) * (1 / sizes[0] + 1 / sizes[1]))
        axes.fill_between(
            grid, np.maximum(grid - spread, low / 10), np.minimum(grid + spread, 1), color=ROLES["band"], lw=0, zorder=1
        )
        axes.plot([low, 1], [low, 1], color=ROLES["muted"], lw=0.9, zorder=2)
        rest = np.setdiff1d(np.flatnonzero(seen), np.asarray(marked, dtype=np.int64))
        for rows, role, size in ((rest, "synthetic", 10), (np.asarray(marked, dtype=np.int64), "alarm", 20)):
            axes.scatter(
                np.maximum(real[rows], floor),
                np.maximum(synthetic[rows], floor),
                s=size,
                color=ROLES[role],
                alpha=0.55 if role == "synthetic" else 1.0,
                linewidths=0,
                marker="o" if role == "synthetic" else "D",
                zorder=3,
            )
        ticks = [10.0**k for k in range(-6, 1) if 10.0**k > floor * 4]
        for axis, side in ((axes.xaxis, "real"), (axes.yaxis, "synthetic")):
            axis.set_major_locator(FixedLocator([floor, *ticks]))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: "none" if value <= floor else f"{100 * value:g} %"))
            axis.set_label_text(f"share of {side} patients with the {what}")
        axes.grid(visible=True)
        _name_points(figure, axes, real, synthetic, floor, names, marked)
        outside = int((np.abs(synthetic - real) > 1.96 * np.sqrt(_variance(real, synthetic, sizes)))[seen].sum())
        return drawing(
            figure,
            "prevalence",
            f"Scatter plot of {int(seen.sum())} {what}s: prevalence in real patients against prevalence in synthetic "
            f"patients, with the diagonal of perfect agreement. {outside} {what}s lie outside the range of chance.",
            f"Each dot is a {what}; on the diagonal it is as frequent in synthetic as in real patients. Inside the "
            "shaded band it differs no more than between two random groups of patients (95 %). Diamonds are the "
            "deviations least explained by chance.",
        )


def _variance(real: NDArray[np.float64], synthetic: NDArray[np.float64], sizes: tuple[int, int]) -> NDArray[np.float64]:
    pooled = (real * sizes[0] + synthetic * sizes[1]) / sum(sizes)
    variance: NDArray[np.float64] = np.maximum(pooled * (1 - pooled), 1e-12) * (1 / sizes[0] + 1 / sizes[1])
    return variance


def largest_deviations(
    real: NDArray[np.float64], synthetic: NDArray[np.float64], sizes: tuple[int, int], count: int
) -> list[int]:
    """Columns whose prevalences differ most by a two-proportion test, beyond 1.96 errors; at most ``count``."""
    score = np.abs(synthetic - real) / np.sqrt(_variance(real, synthetic, sizes))
    order = np.argsort(-score, kind="stable")[:count]
    return [int(column) for column in order if score[column] > 1.96]


def _name_points(
    figure: Figure,
    axes: Axes,
    real: NDArray[np.float64],
    synthetic: NDArray[np.float64],
    floor: float,
    names: Sequence[str],
    marked: Sequence[int],
) -> None:
    """Write the names of ``marked`` beside their points: the first free place on growing circles, or not at all.

    A name that finds no place is left out of the figure; it still stands in the table below it.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    points = axes.transData.transform(np.column_stack([np.maximum(real, floor), np.maximum(synthetic, floor)]))
    crowded = points[(real > 0) | (synthetic > 0)]
    taken: list[Any] = []
    for column in marked:
        x, y = points[column]
        label = axes.text(
            0, 0, short_title(names[column], 36), fontsize=7.2, transform=None, va="center", parse_math=False, zorder=5
        )
        label.set_path_effects([withStroke(linewidth=2, foreground=ROLES["surface"], alpha=0.7)])
        box = label.get_window_extent(renderer)
        width, height = box.width, box.height
        best: tuple[float, float, float] | None = None
        for radius in (9, 16, 26, 40, 58, 80, 110):
            for angle in np.deg2rad(np.arange(0, 360, 15) + 7.5):
                dx, dy = radius * np.cos(angle), radius * np.sin(angle)
                left = x + dx - (0 if dx >= 0 else width)
                bottom = y + dy - height / 2
                if not (
                    frame.x0 + 2 <= left
                    and left + width <= frame.x1 - 2
                    and frame.y0 + 2 <= bottom
                    and bottom + height <= frame.y1 - 2
                ):
                    continue
                if any(
                    left < t[2] + 3 and t[0] < left + width + 3 and bottom < t[3] + 2 and t[1] < bottom + height + 2
                    for t in taken
                ):
                    continue
                inside = (
                    (crowded[:, 0] > left - 2)
                    & (crowded[:, 0] < left + width + 2)
                    & (crowded[:, 1] > bottom - 1)
                    & (crowded[:, 1] < bottom + height + 1)
                )
                cost = 6.0 * inside.sum() + radius / 4
                if best is None or cost < best[0]:
                    best = (cost, left, bottom)
        if best is None or best[0] > 60:
            label.remove()
            continue
        _, left, bottom = best
        label.set_position((left, bottom + height / 2))
        taken.append((left, bottom, left + width, bottom + height))
        anchor = (min(max(x, left), left + width), min(max(y, bottom), bottom + height))
        axes.plot(
            [x, anchor[0]],
            [y, anchor[1]],
            color=ROLES["muted"],
            lw=0.6,
            transform=None,
            zorder=4,
            solid_capstyle="butt",
        )


def correlation_scale(matrix: NDArray[np.float64], pairs: NDArray[np.bool_]) -> float:
    """End of the colour scale for all maps: the 99th percentile of the compared pairs, rounded up to 0.1."""
    values = np.abs(matrix[pairs])
    return min(1.0, max(0.1, float(np.ceil(np.percentile(values, 99) * 10) / 10))) if values.size else 1.0


def correlation_map(
    key: str,
    title: str,
    matrix: NDArray[np.float64],
    compared: NDArray[np.bool_],
    names: Sequence[str],
    scale: float,
    what: str = "codes",
) -> Drawing:
    """One correlation matrix as a map.

    Args:
        key: identifier of the drawing.
        title: whose correlations.
        matrix: correlations, or their differences [S, S].
        compared: pairs that are compared; the others (diagonal, one categorical group) stay grey [S, S].
        names: the columns' titles [S].
        scale: the value of the strongest colour.
        what: what the columns are.
    """
    count = len(names)
    levels = np.rint(np.clip(matrix / scale, -1, 1) * LEVELS).astype(int)
    with canvas(WIDTH, MAP_HEIGHT) as figure:
        # Placed by hand: names at the left, a square map, its scale below; they are the same in all three maps.
        figure.set_layout_engine("none")
        axes = figure.add_axes((1 - MAP_SHARE - 0.02, 0.4 / MAP_HEIGHT, MAP_SHARE, WIDTH * MAP_SHARE / MAP_HEIGHT))
        axes.add_patch(Rectangle((0, 0), count, count, facecolor=level_colour(0), edgecolor="none"))
        for level in range(-LEVELS, LEVELS + 1):
            if level:
                _cells(axes, (levels == level) & compared, level_colour(level))
        _cells(axes, ~compared, ROLES["neutral"])
        axes.set(xlim=(0, count), ylim=(count, 0), xticks=[], yticks=[])
        for row, name in enumerate(names):
            axes.text(
                -0.25, row + 0.5, short_title(name, 36), ha="right", va="center", fontsize=6.7, parse_math=False
            )  # fmt: skip
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _scale_bar(axes, scale)
        strongest = float(np.abs(matrix[compared]).max()) if compared.any() else 0.0
        return drawing(
            figure,
            key,
            f"Map of {title} for {count} {what}, largest value {strongest:.2f} in size.",
            f"{title[0].upper()}{title[1:]}. Rows and columns are the same {what} in the same order.",
        )


def _cells(axes: Axes, where: NDArray[np.bool_], colour: str) -> None:
    """All cells of one colour as one path: a map is then some twenty paths, not a thousand."""
    rows, columns = np.nonzero(where)
    if not len(rows):
        return
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    vertices = (np.stack([columns, rows], axis=1)[:, None, :] + corners[None]).reshape(-1, 2)
    codes = np.tile([Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY], len(rows))
    axes.add_patch(PathPatch(Outline(vertices, codes), facecolor=colour, edgecolor="none", linewidth=0))


def _scale_bar(axes: Axes, scale: float) -> None:
    bar = axes.inset_axes((0.1, -0.055, 0.8, 0.025))
    steps = np.linspace(-scale, scale, 2 * LEVELS + 2)
    for level, left, right in zip(range(-LEVELS, LEVELS + 1), steps[:-1], steps[1:], strict=True):
        bar.add_patch(Rectangle((left, 0), right - left, 1, facecolor=level_colour(level), edgecolor="none"))
    bar.set(xlim=(-scale, scale), ylim=(0, 1), yticks=[])
    bar.set_xticks([-scale, 0, scale], [f"−{scale:.1f}", "0", f"+{scale:.1f}"])
    bar.tick_params(length=2, labelsize=7.5)
    bar.spines[:].set_visible(False)


def correlation_scatter(
    real: NDArray[np.float64],
    synthetic: NDArray[np.float64],
    what: str = "codes",
    meaning: str = "occur together as often",
) -> Drawing:
    """Correlation of each pair of codes, real against synthetic [pairs].

    Args:
        real: coefficients among real patients.
        synthetic: the same among synthetic ones.
        what: what the pairs are of.
        meaning: what two on the diagonal do.
    """
    limit = float(np.abs(np.concatenate([real, synthetic])).max(initial=0.1)) * 1.08
    with canvas(WIDTH, MAP_HEIGHT) as figure:
        axes = figure.add_subplot()
        axes.plot([-limit, limit], [-limit, limit], color=ROLES["muted"], lw=0.9)
        axes.scatter(real, synthetic, s=9, color=ROLES["synthetic"], alpha=0.5, linewidths=0, zorder=3)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set_xlabel("correlation in real patients")
        axes.set_ylabel("correlation in synthetic patients")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, symmetric=True))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1f}".replace("-", "−")))
        axes.grid(visible=True)
        return drawing(
            figure,
            "pairs",
            f"Scatter plot of {len(real)} pairs of {what}: their correlation in real against synthetic patients.",
            f"Each dot is a pair of {what} of the maps; on the diagonal the two {meaning} in "
            "synthetic as in real patients. A cloud along the horizontal zero line would mean that relations were "
            "lost.",
        )
