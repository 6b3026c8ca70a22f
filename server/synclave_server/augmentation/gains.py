"""What added patients are worth: classifiers trained on real and added patients, tested on held-out real ones.

Two kinds of patients are added with the same labels: synthetic ones, and real training patients drawn again. The second
costs nothing and adds no patient; where it does as well, the synthetic ones only changed how much a label weighs.

Legend: N tested patients, M added patients at most, K values of alpha, R resamplings of the tested patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.augmentation.resampling import areas, resamplings
from synclave_server.evaluation.calibration import calibration
from synclave_server.evaluation.classifiers import Models
from synclave_server.evaluation.comparison import MAX_PATIENTS, Table
from synclave_server.evaluation.downstream import AREAS, CALIBRATION, LabelTask, fit, label_tasks

__all__ = ["ADDED", "MEASURES", "Addition", "Curve", "Gain", "Point", "gain_curves"]

ADDED: Final = {"synthetic": "synthetic patients", "repeated": "real patients again"}
"""Kinds of added patients, with their names."""
MEASURES: Final = {**AREAS, **CALIBRATION}
"""What is measured of a classifier, with its name."""
RESAMPLED: Final = ("auroc", "auprc", "brier")
"""What is measured in every resampling as well; of a calibration error resampling only makes more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """Patients to be added, of one draw.

    Attributes:
        patients: in the order in which they were drawn [M].
        entering: place of the alpha from which on each of them is added [M].
    """

    patients: Table
    entering: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Difference to training on the real patients alone, its mean over draws.

    Attributes:
        value: of the tested patients.
        interval: 95 % of its resamplings; classifiers are kept as they were trained.
    """

    value: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"value": self.value, "interval": list(self.interval)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One kind of added patients at one alpha.

    Attributes:
        alpha: added patients per real one; 0: none.
        added: how many patients that is.
        positive: how many of them have the label value in question, mean over draws.
        readings: measure -> its value in each draw; empty if a classifier could not be trained or tested.
        gains: measure -> difference to alpha 0; empty at alpha 0, or if there is no such number. None of the
            calibration error, of which resampling only makes more.
        reason: why there are no readings; None if there are.
    """

    alpha: float
    added: int
    positive: float
    readings: Mapping[str, tuple[float, ...]]
    gains: Mapping[str, Gain]
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``mean`` and ``deviation`` (of a sample, null with one draw) are over draws."""
        return {
            "alpha": self.alpha,
            "added": self.added,
            "positive": self.positive,
            "reason": self.reason,
            "measures": {
                measure: {
                    "mean": float(np.mean(values)),
                    "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                    "draws": list(values),
                    "gain": self.gains[measure].to_json() if measure in self.gains else None,
                }
                for measure, values in self.readings.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One classifier of one label value over alpha.

    Attributes:
        value: the label value in question.
        base_rate: its share among the tested patients, the AUPRC of guessing.
        model: key of the classifier.
        name: its name.
        points: kind of added patients -> points by rising alpha, the first one at 0.
    """

    value: str
    base_rate: float
    model: str
    name: str
    points: Mapping[str, Sequence[Point]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "value": self.value,
            "base_rate": self.base_rate,
            "model": self.model,
            "name": self.name,
            **{kind: [point.to_json() for point in points] for kind, points in self.points.items()},
        }


def gain_curves(
    real: Table,
    held_out: Table,
    additions: Sequence[Addition],
    alphas: Sequence[float],
    label_values: Sequence[str],
    seed: int,
    progress: Callable[[str], None],
    models: Models,
    keys: Sequence[str],
) -> list[Curve]:
    """Train on real and added patients, test on held-out ones.

    Args:
        real: training patients; all of them are in every training set.
        held_out: tested patients, none of them in training; at most :data:`MAX_PATIENTS` are taken.
        additions: one for each draw.
        alphas: rising [K].
        label_values: of the schema. Of two values only the rarer is predicted, of more each against the rest.
        seed: of resamplings and repeated patients; each draw's classifiers have a seed of their own.
        progress: told what is being done.
        models: the classifiers.
        keys: which of them.

    Returns:
        A curve for each label value and classifier.
    """
    rng = np.random.default_rng([seed, 0])
    held_out = held_out.sample(MAX_PATIENTS, rng)
    by_kind = {"synthetic": additions, "repeated": [_repeated(real, addition, rng) for addition in additions]}
    curves = []
    for task in label_tasks(held_out, label_values):
        for key in keys:
            name = models(seed)[key][0]
            classifiers = [lambda draw=draw, key=key: models(seed + draw)[key][1] for draw in range(len(additions))]
            judge = _Judge(task, real, held_out, classifiers, np.random.default_rng([seed, 1]))
            progress(f"{task.value}: {name}, real patients alone")
            alone = judge.judged([real.take(np.zeros(0, np.int64))] * len(additions))
            points: dict[str, list[Point]] = {}
            for kind, drawn in by_kind.items():
                points[kind] = [_point(0.0, 0, 0.0, alone, None)]
                for place, alpha in enumerate(alphas):
                    progress(f"{task.value}: {name}, {ADDED[kind]}, alpha {alpha:g}")
                    added = [each.patients.take(np.flatnonzero(each.entering <= place)) for each in drawn]
                    positive = float(np.mean([(table.labels == task.position).sum() for table in added]))
                    points[kind].append(_point(alpha, len(added[0]), positive, judge.judged(added), alone))
            curves.append(Curve(value=task.value, base_rate=task.base_rate, model=key, name=name, points=points))
    return curves


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """Readings of every draw, and their means in every resampling [R]; a reason in place of both."""

    readings: Mapping[str, tuple[float, ...]]
    resampled: Mapping[str, NDArray[np.float64]]
    reason: str | None = None


class _Judge:
    """Classifiers of one kind for one label value, all tested on the same resamplings of the same patients."""

    def __init__(
        self,
        task: LabelTask,
        real: Table,
        held_out: Table,
        classifiers: Sequence[Callable[[], Any]],
        rng: np.random.Generator,
    ) -> None:
        self._task, self._real, self._classifiers, self._rng = task, task.examples(real), classifiers, rng
        self._test = task.examples(held_out)
        self._few = self._test.few("the held-out patients")
        self._times = None if self._few else resamplings(self._test.positive, rng)

    def judged(self, added: Sequence[Table]) -> _Judged:
        """What is learnt of the real patients and those ``added``, a table for each draw."""
        readings: dict[str, list[float]] = {measure: [] for measure in MEASURES}
        resampled: dict[str, list[NDArray[np.float64]]] = {measure: [] for measure in RESAMPLED}
        if self._few is not None or self._times is None:
            return _Judged(readings={}, resampled={}, reason=self._few)
        positive = self._test.positive
        for classifier, table in zip(self._classifiers, added, strict=True):
            fitted = fit(classifier(), self._real.then(self._task.examples(table)))
            if fitted.reason is not None:
                return _Judged(readings={}, resampled={}, reason=fitted.reason)
            chance: NDArray[np.float64] = fitted.model.predict_proba(self._test.features)[:, 1].astype(np.float64)
            auroc, auprc = areas(positive, chance, self._times)
            found = {"auroc": auroc, "auprc": auprc, "brier": self._times @ (chance - positive) ** 2 / len(positive)}
            for measure, values in found.items():
                resampled[measure].append(values)
                readings[measure].append(float(values[0]))
            error = calibration(positive, chance, self._rng)[1].value
            readings["ece"].append(0.0 if error is None else error)
        return _Judged(
            readings={measure: tuple(values) for measure, values in readings.items()},
            resampled={measure: np.mean(values, axis=0) for measure, values in resampled.items()},
        )


def _point(alpha: float, added: int, positive: float, judged: _Judged, alone: _Judged | None) -> Point:
    """A point, and how far it lies from training on the real patients ``alone``; None: it is that point."""
    gains = {}
    if alone is not None and not (judged.reason or alone.reason):
        for measure, values in judged.resampled.items():
            difference = values - alone.resampled[measure]
            low, high = np.percentile(difference[1:], (2.5, 97.5))
            gains[measure] = Gain(value=float(difference[0]), interval=(float(low), float(high)))
    return Point(
        alpha=alpha, added=added, positive=positive, readings=judged.readings, gains=gains, reason=judged.reason
    )


def _repeated(real: Table, addition: Addition, rng: np.random.Generator) -> Addition:
    """Real patients with the labels of the added ones, drawn with replacement; of a label that none has, no one."""
    rows = np.full(len(addition.entering), -1, dtype=np.int64)
    for label in np.unique(addition.patients.labels):
        candidates = np.flatnonzero(real.labels == label)
        places = np.flatnonzero(addition.patients.labels == label)
        if len(candidates):
            rows[places] = rng.choice(candidates, size=len(places))
    found = rows >= 0
    return Addition(patients=real.take(rows[found]), entering=addition.entering[found])
