"""Figures of clinical models' predictions: ROC, precision, reliability, a line with its band for each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from synclave_server.evaluation.figure import ROLES, Drawing, canvas, drawing, plain_text
from synclave_server.evaluation.plots import WIDTH
from synclave_server.evaluation.score_curves import Band, Judgement

__all__ = ["MOST_MODELS", "score_drawings"]

STYLES: Final[tuple[tuple[str, Any], ...]] = (
    ("synthetic", "-"),
    ("alarm", (0, (5, 1.5))),
    ("real", (0, (1.5, 1.2))),
    ("independent", (0, (6, 1.5, 1.5, 1.5))),
)
MOST_MODELS: Final = len(STYLES)
"""Models in one figure."""


def score_drawings(key: str, judged: Mapping[str, Judgement]) -> dict[str, Drawing]:
    """``roc``, ``precision`` and ``reliability`` of one outcome, each with ``key`` behind it.

    Args:
        key: letters and digits, told apart in the page.
        judged: by the models' names; those of which nothing can be said are left out.
    """
    known = {name: one for name, one in judged.items() if one.roc and one.precision and one.reliability}
    if not known:
        return {}
    shares = [one.positive / one.patients for one in known.values()]
    told = {
        measure: "; ".join(f"{name}: {one.readings[measure].value:.3f}" for name, one in known.items())
        for measure in ("auroc", "auprc", "ece")
    }
    return {
        f"roc{key}": _curves(
            f"roc{key}",
            {name: one.roc for name, one in known.items()},
            labels=("false alarms among patients without the outcome", "found among those with it"),
            guess=((0, 1), (0, 1)),
            alt=f"ROC curves. AUROC, {told['auroc']}.",
            caption="Every threshold's found patients against its false alarms; the dashed line is guessing.",
        ),
        f"precision{key}": _curves(
            f"precision{key}",
            {name: one.precision for name, one in known.items()},
            labels=("found among patients with the outcome", "true among alarms"),
            guess=((0, 1), (sum(shares) / len(shares),) * 2),
            alt=f"Curves of precision by sensitivity. AUPRC, {told['auprc']}.",
            caption="The share of true alarms against found patients; the dashed line is guessing.",
        ),
        f"reliability{key}": _curves(
            f"reliability{key}",
            {name: one.reliability for name, one in known.items()},
            labels=("predicted probability", "observed share"),
            guess=((0, 1), (0, 1)),
            alt=f"Observed share by predicted probability. Calibration error, {told['ece']}.",
            caption="Ten groups of about equally many patients by predicted probability; on the dashed line a "
            "probability means what it says.",
            dots=True,
        ),
    }


def _curves(
    key: str,
    curves: Mapping[str, Band | None],
    *,
    labels: tuple[str, str],
    guess: tuple[tuple[float, float], tuple[float, float]],
    alt: str,
    caption: str,
    dots: bool = False,
) -> Drawing:
    with canvas(WIDTH, 4.6) as figure:
        axes = figure.add_subplot()
        axes.plot(*guess, color=ROLES["muted"], lw=0.9, ls=(0, (4, 3)))
        end = 0.0
        for (name, curve), (role, dashes) in zip(curves.items(), STYLES, strict=False):
            assert curve is not None  # noqa: S101 - the others were left out
            axes.fill_between(curve.x, curve.low, curve.high, color=ROLES[role], alpha=0.16, lw=0)
            axes.plot(
                curve.x,
                curve.y,
                color=ROLES[role],
                ls=dashes,
                lw=1.7,
                marker="o" if dots else "",
                ms=4,
                label=plain_text(name, 40),
                zorder=3,
            )
            end = max(end, float(curve.high.max()), float(curve.x.max()))
        limit = min(1.0, 1.1 * end) if dots else 1.0
        axes.set(xlim=(0, limit), ylim=(0, 1.02 * limit))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.grid(visible=True)
        handles, names = axes.get_legend_handles_labels()
        for text in figure.legend(handles, names, loc="outside upper left", ncols=2, fontsize=7.8).get_texts():
            text.set_parse_math(False)
        return drawing(figure, key, alt, f"{caption} Bands: 95 %, by patients and noise.")
