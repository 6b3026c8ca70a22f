"""What noisy histograms of predictions tell of a clinical model: areas, calibration and curves, noise allowed for.

Noise makes counts negative and cumulated counts fall. They are brought to the nearest ones that do not (isotonic
regression of the cumulated counts): clipping each bin at 0 would add up the noise of empty bins to patients whom nobody
has. Intervals come from repeating all of it on counts drawn anew, patients and noise. Everything here is
post-processing of what the sites released.

Shapes: ``B`` bins, ``R`` replicates, ``K`` points of a curve. A *histogram* is [2, B]: patients without the outcome,
then those with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from synclave_server.evaluation.calibration import CALIBRATION_BINS
from synclave_server.evaluation.downstream import MINIMUM_PER_CLASS
from synclave_server.evaluation.measure import Reading, defined, undefined
from synclave_server.evaluation.ranking import BOOTSTRAPS
from synclave_shared.score_histogram import BINS, MIDDLES

__all__ = ["MEASURES", "Band", "Judgement", "judge"]

MEASURES: Final = {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier score", "ece": "Calibration error"}
"""Keys and names."""

ABOVE_NOISE: Final = 3.0
"""Standard deviations by which a class must exceed the noise in its count."""

PLACES: Final = np.linspace(0.0, 1.0, 51)
"""Where curves are compared over replicates: false alarms of a ROC curve, sensitivities of a precision curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A curve with its 95 % band.

    Attributes:
        x: [K].
        y: [K].
        low, high: [K].
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def to_json(self) -> dict[str, list[float]]:
        """Rounded, column by column."""
        return {name: [round(float(value), 5) for value in getattr(self, name)] for name in ("x", "y", "low", "high")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How well a model predicts an outcome of some patients.

    Attributes:
        patients, positive: how many there are, and how many with the outcome, as far as the noise tells.
        readings: by key of :data:`MEASURES`.
        roc: sensitivity by share of false alarms; None where nothing can be said.
        precision: share of true alarms by sensitivity.
        reliability: observed share by predicted probability, in groups of about equally many patients.
    """

    patients: float
    positive: float
    readings: dict[str, Reading]
    roc: Band | None = None
    precision: Band | None = None
    reliability: Band | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not defined is null, with a reason beside it."""
        curves = {name: getattr(self, name) for name in ("roc", "precision", "reliability")}
        return {
            "patients": round(self.patients),
            "with_outcome": round(self.positive),
            "measures": {
                key: {
                    "title": MEASURES[key],
                    "value": reading.value,
                    "interval": None if reading.interval is None else list(reading.interval),
                    "reason": reading.reason,
                }
                for key, reading in self.readings.items()
            },
            "curves": {name: None if curve is None else curve.to_json() for name, curve in curves.items()},
        }


def judge(noisy: NDArray[np.float64], noise_std: float, seed: int = 0) -> Judgement:
    """Read a noisy histogram.

    A value is that of the repaired counts. Its 95 % interval is the spread of replicates about their mean, wider on
    either side by what noise alone does to the value on average; all in log-odds, so that it stays between 0 and 1 and
    is narrower towards the nearer end.

    Args:
        noisy: histogram in patients, [2, B].
        noise_std: standard deviation of the noise in each cell.
        seed: of the replicates.
    """
    without, positive = (float(total) for total in noisy.sum(axis=1))
    least = max(MINIMUM_PER_CLASS, ABOVE_NOISE * noise_std * math.sqrt(BINS))
    if min(without, positive) < least:
        reason = f"about {max(min(without, positive), 0):.0f} patients in the smaller class; {least:.0f} needed here"
        return Judgement(
            patients=max(without + positive, 0.0),
            positive=max(positive, 0.0),
            readings={key: undefined(reason) for key in MEASURES},
        )
    rng = np.random.default_rng(seed)
    counts = _repaired(noisy[None])

    def again(patients: NDArray[np.float64]) -> NDArray[np.float64]:
        return _repaired(patients + noise_std * rng.standard_normal(patients.shape))

    many = np.repeat(counts, BOOTSTRAPS, axis=0)
    replicates = again(rng.poisson(many).astype(np.float64))
    value = _values(counts)[0]
    odds, spread = _log_odds(value), _log_odds(_values(replicates))
    drift = np.abs(_log_odds(_values(again(many))).mean(axis=0) - odds)
    low, high = np.percentile(spread, (2.5, 97.5), axis=0)
    middle = spread.mean(axis=0)
    low, high = expit(odds - (high - middle) - drift), expit(odds + (middle - low) + drift)
    readings = {key: defined(value[place], (low[place], high[place])) for place, key in enumerate(MEASURES)}
    groups = _groups(counts[0])
    # Where all are told about the same, there are groups of nobody beyond them.
    shown = np.unique(groups[counts[0].sum(axis=0) > 0])
    observed, again_observed = (_observed(of, groups, shown) for of in (counts, replicates))
    return Judgement(
        patients=without + positive,
        positive=positive,
        readings=readings,
        roc=_band(PLACES, _roc(counts), _roc(replicates)),
        precision=_band(PLACES[1:], _precision(counts), _precision(replicates)),
        reliability=_band(_predicted(counts[0], groups, shown), observed, again_observed),
    )


def _log_odds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of measures that lie between 0 and 1, ends that are reached moved inside by a millionth."""
    log_odds: NDArray[np.float64] = logit(np.clip(values, 1e-6, 1 - 1e-6))
    return log_odds


def _repaired(noisy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts [R, 2, B] that are not negative and add up as the noisy ones do, of which each class has at least 1."""
    repaired = np.empty_like(noisy)
    for row in np.ndindex(noisy.shape[:2]):
        total = max(float(noisy[row].sum()), 1.0)
        rising = np.clip(isotonic_regression(np.cumsum(noisy[row])[:-1]).x, 0.0, total)
        repaired[row] = np.diff(rising, prepend=0.0, append=total)
    return repaired


def _values(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The measures in their order, [R, 4]."""
    misses, hits = counts[:, 0], counts[:, 1]
    all_misses, all_hits = misses.sum(axis=1), hits.sum(axis=1)
    # Within a bin patients count as mixed: halfway through it.
    beaten = np.cumsum(misses, axis=1) - misses / 2
    auroc = (hits * beaten).sum(axis=1) / (all_misses * all_hits)
    hits_above, misses_above = (_above(part) - part / 2 for part in (hits, misses))
    auprc = (hits * hits_above / np.maximum(hits_above + misses_above, 1e-12)).sum(axis=1) / all_hits
    patients = all_misses + all_hits
    brier = (misses * MIDDLES**2 + hits * (1.0 - MIDDLES) ** 2).sum(axis=1) / patients
    gaps = (misses + hits) * MIDDLES - hits
    error = [
        np.abs(np.bincount(_groups(one), gap, CALIBRATION_BINS)).sum() for one, gap in zip(counts, gaps, strict=True)
    ]
    return np.stack([auroc, auprc, brier, np.array(error) / patients], axis=1)


def _above(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts at a bin and beyond it."""
    return np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]


def _groups(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of the groups of about equally many patients each bin belongs to, [B]."""
    both = counts.sum(axis=0)
    place = (np.cumsum(both) - both / 2) / both.sum()
    groups: NDArray[np.int64] = np.minimum((CALIBRATION_BINS * place).astype(np.int64), CALIBRATION_BINS - 1)
    return groups


def _predicted(counts: NDArray[np.float64], groups: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean predicted probability of the groups that are shown, which have patients."""
    both = counts.sum(axis=0)
    size = np.bincount(groups, both, CALIBRATION_BINS)
    return np.asarray(np.bincount(groups, both * MIDDLES, CALIBRATION_BINS)[shown] / size[shown])


def _observed(counts: NDArray[np.float64], groups: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share with the outcome in each of those groups, [R, K]."""
    shares = []
    for group in shown:
        misses, hits = (counts[:, row, groups == group].sum(axis=1) for row in (0, 1))
        shares.append(hits / np.maximum(misses + hits, 1e-12))
    return np.stack(shares, axis=1)


def _roc(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sensitivity at :data:`PLACES` of false alarms, [R, K]."""
    alarms, found = (_above(counts[:, row]) / counts[:, row].sum(axis=1, keepdims=True) for row in (0, 1))
    curves = []
    for false, true in zip(alarms, found, strict=True):
        # From the strictest threshold on; where the curve rises straight up its upper end counts.
        across, up = np.r_[0.0, false[::-1]], np.r_[0.0, true[::-1]]
        last = np.r_[across[1:] > across[:-1], True]
        curves.append(np.interp(PLACES, across[last], up[last]))
    return np.array(curves)


def _precision(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of true alarms at :data:`PLACES` of sensitivity, but for 0, [R, K]."""
    curves = []
    for misses, hits in zip(_above(counts[:, 0]), _above(counts[:, 1]), strict=True):
        across, up = (hits / hits[0])[::-1], (hits / np.maximum(hits + misses, 1e-12))[::-1]
        first = np.r_[True, across[1:] > across[:-1]] & (across > 0)
        curves.append(np.interp(PLACES[1:], across[first], up[first]))
    return np.array(curves)


def _band(x: NDArray[np.float64], curve: NDArray[np.float64], replicates: NDArray[np.float64]) -> Band:
    low, high = np.percentile(replicates, (2.5, 97.5), axis=0)
    return Band(x=x, y=curve[0], low=np.minimum(low, curve[0]), high=np.maximum(high, curve[0]))
