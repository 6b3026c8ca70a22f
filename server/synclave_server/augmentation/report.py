"""``metrics.json`` and ``report.html``: what added patients were worth, in numbers, words and pictures."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from synclave_server.augmentation.figures import gain_lines
from synclave_server.augmentation.gains import ADDED, MEASURES, Curve, Point
from synclave_server.evaluation.calibration import CALIBRATION_BINS
from synclave_server.evaluation.comparison import MAX_PATIENTS
from synclave_server.evaluation.ranking import BOOTSTRAPS
from synclave_shared.data.schema import PatientSchema

__all__ = ["FORMAT", "decisive_point", "document", "render_page", "sentences", "verdict"]

FORMAT: Final = "synclave-augmentation/1"
"""Names the layout of ``metrics.json``."""


def document(
    schema: PatientSchema,
    curves: Sequence[Curve],
    *,
    patients: Sequence[Sequence[int]],
    alphas: Sequence[float],
    draws: int,
    seed: int,
    sampling: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of ``metrics.json``, all of it plain values.

    Args:
        schema: of all patients.
        curves: what was measured.
        patients: how many have each label value: real, held out, and at most added [3, L].
        alphas: rising.
        draws: how often patients were drawn and classifiers trained.
        seed: of everything.
        sampling: provenance of the synthetic patients of the training set, those of the first draw.
    """
    real, held_out, added = patients
    return {
        "format": FORMAT,
        "schema": {
            "name": schema.name,
            "modality": schema.modality,
            "title": schema.title,
            "digest": schema.digest,
            "label": schema.label.name,
            "label_title": schema.label.title,
        },
        "patients": {"real": sum(real), "held_out": sum(held_out), "added": sum(added)},
        "labels": [
            {"value": value, "real": counts[0], "held_out": counts[1], "added": counts[2]}
            for value, *counts in zip(schema.label.values, real, held_out, added, strict=True)
        ],
        "settings": {
            "seed": seed,
            "draws": draws,
            "alphas": list(alphas),
            "most_tested": MAX_PATIENTS,
            "bootstraps": BOOTSTRAPS,
            "calibration_bins": CALIBRATION_BINS,
        },
        "curves": [curve.to_json() for curve in curves],
        "sampling": None if sampling is None else dict(sampling),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("synclave", "numpy", "scikit-learn", "torch")},
        },
    }


def decisive_point(points: Sequence[Point]) -> Point | None:
    """The point of which the page speaks: alpha 1, or else the largest; None if it could not be compared.

    It is settled before anything is measured: the best of several alphas, chosen on the tested patients, looks better
    than it is, and its interval does not allow for the choice.
    """
    decisive = next((point for point in points if point.alpha == 1), points[-1])
    return decisive if "auprc" in decisive.gains else None


def verdict(point: Point) -> str:
    """What a point's AUPRC says in words."""
    low, high = point.gains["auprc"].interval
    if low > 0:
        return "better than the real patients alone"
    return "worse than the real patients alone" if high < 0 else "no difference that these tested patients can show"


def sentences(curve: Curve) -> list[str]:
    """A curve in plain words."""
    decisive = decisive_point(curve.points["synthetic"])
    if decisive is None:
        return [
            f"{curve.name}: not measured, {curve.points['synthetic'][0].reason or 'the real patients are too few'}."
        ]
    alone = curve.points["synthetic"][0]
    gain = decisive.gains["auprc"]
    low, high = gain.interval
    told = [
        f"{curve.name[0].upper()}{curve.name[1:]}: AUPRC {_mean(alone):.3f} with the real patients alone,"
        f" {_mean(decisive):.3f} with {decisive.added:,} synthetic ones (alpha {decisive.alpha:g}):"
        f" {_signed(gain.value)}, 95 % {_signed(low)} to {_signed(high)}, {verdict(decisive)}."
    ]
    again = decisive_point(curve.points["repeated"])
    if again is not None:
        told.append(f"Real patients of the same labels, as many drawn again, come to {_mean(again):.3f}.")
    return told


def render_page(schema: PatientSchema, metrics: Mapping[str, Any], curves: Sequence[Curve]) -> str:
    """The whole page; it loads nothing from outside and runs no script.

    Args:
        schema: of all patients.
        metrics: of :func:`document`.
        curves: what was measured.
    """
    packages = ("synclave_server.augmentation", "synclave_server.evaluation")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = gain_lines(curves)
    return environment.get_template("augmentation.html.j2").render(
        metrics=metrics,
        curves=curves,
        told={
            curve.value: [line for c in curves if c.value == curve.value for line in sentences(c)] for curve in curves
        },
        outcome=schema.label.title or schema.label.name,
        measures=MEASURES,
        added=ADDED,
        drawings={name: (Markup(d.svg), d.caption) for name, d in drawn.items()},  # noqa: S704 - our own SVG, text escaped
        number=_number,
        gain=_gain,
        sampling=json.dumps(metrics["sampling"], indent=1, ensure_ascii=False, default=str),
        light="",
        dark="",
    )


def _mean(point: Point) -> float:
    return float(np.mean(point.readings["auprc"]))


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")


def _number(values: Sequence[float]) -> str:
    text = f"{np.mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.3f}"


def _gain(point: Point, measure: str) -> str:
    if measure not in point.gains:
        return ""
    gain = point.gains[measure]
    return f"{_signed(gain.value)} ({_signed(gain.interval[0])} to {_signed(gain.interval[1])})"
