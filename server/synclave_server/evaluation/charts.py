"""Bars and curves: downstream classifiers, label shares, epsilon over rounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from synclave_server.evaluation.figure import ROLES, Drawing, canvas, drawing, plain_text
from synclave_server.evaluation.measure import Measure, Reading
from synclave_server.evaluation.plots import WIDTH

__all__ = ["EpsilonCurve", "epsilon_curves", "label_balance", "power_of_ten", "utility_bars"]

UTILITY_CAPTIONS: Final = {
    "AUROC": "The share of pairs, one patient with and one without the outcome, that the classifier "
    "ranks rightly; 0.5 is "
    "guessing. Thin lines: 95 % intervals.",
    "AUPRC": "Mean share of true alarms over all thresholds; the dashed line is guessing. Thin lines: 95 % intervals.",
}
CONTENDERS: Final = (
    ("real patients", "real"),
    ("synthetic patients", "synthetic"),
    ("independent columns", "independent"),
)


def power_of_ten(number: float) -> str:
    """A power of ten such as 0.00001 as ``10⁻⁵``; other numbers with up to three digits."""
    exponent = math.floor(math.log10(number) + 1e-9)
    if not math.isclose(number, 10.0**exponent) or exponent >= 0:
        return f"{number:.3g}"
    return "10⁻" + str(-exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def utility_bars(
    area: str, measures: Sequence[Measure], base_rates: dict[str, float], *, floor: str = CONTENDERS[-1][0]
) -> Drawing:
    """One area (``AUROC`` or ``AUPRC``) of every task and model, by what the classifier was trained on.

    Args:
        area: which of the two.
        measures: the measures of that area.
        base_rates: measure key -> the area of guessing.
        floor: what the floor consists of.
    """
    height = 0.5 + 0.82 * len(measures)
    with canvas(WIDTH, height + 0.55) as figure:
        axes = figure.add_subplot()
        start = 0.5 if area == "AUROC" else 0.0
        top = start
        for group, measure in enumerate(measures):
            readings: tuple[Reading, ...] = (measure.ceiling, measure.value, measure.floor)
            for place, ((name, role), reading) in enumerate(zip(CONTENDERS, readings, strict=True)):
                y = group + 0.26 * (place - 1)
                if reading.value is None:
                    axes.text(start, y, " not defined", va="center", fontsize=7.5, color=ROLES["muted"])
                    continue
                low, high = reading.interval or (reading.value, reading.value)
                axes.barh(
                    y,
                    reading.value - start,
                    left=start,
                    height=0.22,
                    facecolor=ROLES[role] if role != "independent" else ROLES["surface"],
                    edgecolor=ROLES[role],
                    hatch="////" if role == "independent" else None,
                    linewidth=0.8,
                    label=f"trained on {floor if role == 'independent' else name}" if group == 0 else None,
                )
                # Edged with the page's colour, so that it shows on every bar.
                axes.plot([low, high], [y, y], color=ROLES["surface"], lw=3.2, solid_capstyle="butt")
                axes.plot([low, high], [y, y], color=ROLES["ink"], lw=1.2, solid_capstyle="butt")
                axes.text(max(high, reading.value), y, f"  {reading.value:.3f}", va="center", fontsize=7.8)
                top = max(top, high)
            chance = base_rates[measure.key]
            if chance > start:
                axes.plot([chance, chance], [group - 0.42, group + 0.42], color=ROLES["alarm"], lw=1.2, ls=(0, (3, 2)))
        axes.set_yticks(range(len(measures)), ["" for _ in measures])
        for group, measure in enumerate(measures):
            words = measure.title.rsplit(",", 1)[0].replace(": ", "\n")
            text = "\n".join(plain_text(part, 26) for part in words.split("\n"))
            axes.text(
                -0.02,
                group,
                text,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                fontsize=8,
                parse_math=False,
            )
        axes.set(ylim=(len(measures) - 0.45, -0.55))
        if top == start:
            top = 1.0
        low_end = min([start, *(m.value.value for m in measures if m.value.value is not None)])
        axes.set_xlim(low_end, top + 0.16 * max(top - low_end, 0.05))
        axes.set_xlabel(f"{area} on held-out real patients")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            figure.legend(
                handles, labels, loc="outside upper center", ncols=3, fontsize=7.6, handlelength=1.2, columnspacing=1.2
            )
        told = "; ".join(
            f"{measure.title}: real {_number(measure.ceiling)}, synthetic {_number(measure.value)}, "
            f"independent {_number(measure.floor)}"
            for measure in measures
        )
        return drawing(figure, area.lower(), f"Bars of {area} by training data. {told}.", UTILITY_CAPTIONS[area])


def _number(reading: Reading) -> str:
    return "not defined" if reading.value is None else f"{reading.value:.3f}"


def label_balance(values: Sequence[str], real: Sequence[float], synthetic: Sequence[float], title: str) -> Drawing:
    """Share of each label value among real and synthetic patients."""
    with canvas(WIDTH, 0.75 + 0.62 * len(values)) as figure:
        axes = figure.add_subplot()
        for place, (name, role, shares) in enumerate(
            (("real patients", "real", real), ("synthetic patients", "synthetic", synthetic))
        ):
            y = np.arange(len(values)) + 0.34 * (place - 0.5)
            axes.barh(y, [100 * share for share in shares], height=0.3, color=ROLES[role], label=name)
            for row, share in zip(y, shares, strict=True):
                axes.text(100 * share, row, f"  {100 * share:.1f} %", va="center", fontsize=7.8)
        axes.set(ylim=(len(values) - 0.45, -0.55), xlim=(0, 112))
        axes.set_yticks(range(len(values)), ["" for _ in values])
        for row, value in enumerate(values):
            axes.text(
                -0.02,
                row,
                plain_text(value, 26),
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                parse_math=False,
            )
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlabel("share of patients (%)")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=7.8, handlelength=1.2)
        told = "; ".join(
            f"{v}: real {100 * r:.1f} %, synthetic {100 * s:.1f} %"
            for v, r, s in zip(values, real, synthetic, strict=True)
        )
        return drawing(figure, "labels", f"Bars of label shares. {told}.", title)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonCurve:
    """Epsilon of one site and data set after each round.

    Attributes:
        names: sites whose curves coincide.
        rounds: round numbers, increasing [R].
        epsilon: cumulative epsilon after each of them [R].
        before: epsilon that other runs had spent on the data set before.
        delta: at which epsilon is stated.
        budget: the site's budget, if known.
    """

    names: tuple[str, ...]
    rounds: tuple[int, ...]
    epsilon: tuple[float, ...]
    before: float
    delta: float
    budget: float | None


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """``heights`` moved up as far as needed for labels at them to keep ``gap`` between each other."""
    moved = list(heights)
    for lower, upper in itertools.pairwise(sorted(range(len(moved)), key=moved.__getitem__)):
        moved[upper] = max(moved[upper], moved[lower] + gap)
    return moved


def epsilon_curves(curves: Sequence[EpsilonCurve]) -> Drawing:
    """Epsilon spent over rounds, one line for each set of sites that spent alike, with their budgets.

    Args:
        curves: at least one; every epsilon finite.
    """
    styles: tuple[tuple[str, Any], ...] = (
        ("synthetic", "-"),
        ("alarm", (0, (5, 1.5))),
        ("real", (0, (1.5, 1.2))),
        ("independent", (0, (6, 1.5, 1.5, 1.5))),
    )
    with canvas(WIDTH, 3.3) as figure:
        axes = figure.add_subplot()
        first = min(curve.rounds[0] for curve in curves)
        last = max(curve.rounds[-1] for curve in curves)
        top = max(max(curve.epsilon[-1], curve.budget or 0) for curve in curves)
        for index, curve in enumerate(curves):
            role, dashes = styles[index % len(styles)]
            x = [curve.rounds[0] - 1, *curve.rounds]
            axes.plot(
                x, [curve.before, *curve.epsilon], drawstyle="steps-post", color=ROLES[role], ls=dashes, lw=1.8,
                label=plain_text(", ".join(curve.names), 60),
            )  # fmt: skip
            axes.plot(x[-1], curve.epsilon[-1], marker="o", ms=4.5, color=ROLES[role])
        for curve, height in zip(curves, _apart([curve.epsilon[-1] for curve in curves], 0.055 * top), strict=True):
            axes.annotate(
                f"{curve.epsilon[-1]:.2f}", (curve.rounds[-1], height), xytext=(7, 0), textcoords="offset points",
                va="center", fontsize=8, path_effects=[withStroke(linewidth=3, foreground=ROLES["surface"])], zorder=5,
            )  # fmt: skip
        for budget in sorted({curve.budget for curve in curves if curve.budget is not None}):
            axes.axhline(budget, color=ROLES["ink"], lw=1.0, ls=(0, (4, 3)))
            axes.annotate(
                f"budget {budget:g}", (0, budget), xycoords=("axes fraction", "data"), xytext=(4, 3),
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
        axes.set(xlim=(first - 1, last + 0.09 * (last - first + 2)), ylim=(0, top * 1.12))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("round" + (" (0: marginals)" if first == 0 else ""))
        deltas = {curve.delta for curve in curves}
        axes.set_ylabel("epsilon spent" + (f" (delta {power_of_ten(deltas.pop())})" if len(deltas) == 1 else ""))
        axes.grid(visible=True)
        handles, labels = axes.get_legend_handles_labels()
        for text in figure.legend(handles, labels, loc="outside upper left", ncols=1, fontsize=7.8).get_texts():
            text.set_parse_math(False)
        told = "; ".join(
            f"{', '.join(curve.names)}: {curve.epsilon[-1]:.2f} after round {curve.rounds[-1]}"
            + (f" of budget {curve.budget:g}" if curve.budget is not None else "")
            for curve in curves
        )
        return drawing(
            figure,
            "epsilon",
            f"Cumulative epsilon over rounds. {told}.",
            "Privacy loss bound that each site has spent on its patients, recomputed from the ledger. Smaller is more "
            "private; the dashed line is what the site allows.",
        )
