"""What the coordinator reads out of noisy counts, against the same measures of the patients themselves."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from synclave_server.evaluation.score_curves import MEASURES, judge
from synclave_shared.score_histogram import BINS, score_histogram


def predicted(patients: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and outcomes of a rare outcome; right if ``shift`` is 0."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-3.0, 1.5, patients)
    return odds + shift, (rng.random(patients) < 1 / (1 + np.exp(-odds))).astype(np.int64)


def counts_of(odds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return score_histogram(np.stack([np.zeros(len(odds)), odds], axis=1), labels)[0]


def test_without_noise_the_measures_are_those_of_the_patients() -> None:
    odds, labels = predicted(20_000, 0)
    found = judge(counts_of(odds, labels), 1e-9)
    chances = 1 / (1 + np.exp(-odds))
    truth = {
        "auroc": roc_auc_score(labels, odds),
        "auprc": average_precision_score(labels, odds),
        "brier": brier_score_loss(labels, chances),
        "ece": 0.0,
    }
    assert round(found.patients) == 20_000
    assert round(found.positive) == labels.sum()
    for key, tolerance in (("auroc", 0.003), ("auprc", 0.01), ("brier", 0.001), ("ece", 0.008)):
        value, interval = found.readings[key].value, found.readings[key].interval
        assert value is not None
        assert interval is not None
        assert value == pytest.approx(truth[key], abs=tolerance)
        assert interval[0] <= value <= interval[1]


def test_probabilities_that_are_wrong_are_seen_in_calibration_and_not_in_the_areas() -> None:
    right, wrong = (judge(counts_of(*predicted(20_000, 0, shift)), 5.0).readings for shift in (0.0, 2.0))
    assert right["auroc"].value == pytest.approx(wrong["auroc"].value, abs=0.02)
    assert (right["ece"].value or 0) < 0.03 < 0.08 < (wrong["ece"].value or 0)


def test_intervals_hold_the_truth_of_the_population_about_as_often_as_they_say() -> None:
    """40 hospitals of 3,000 with epsilon near 1: of 95 % intervals 33 or fewer hit with a chance below 1 in 500."""
    population = predicted(2_000_000, 1)
    truth = {"auroc": roc_auc_score(population[1], population[0])}
    truth["brier"] = brier_score_loss(population[1], 1 / (1 + np.exp(-population[0])))
    truth["auprc"] = average_precision_score(population[1], population[0])
    hits = dict.fromkeys(truth, 0)
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        noisy = counts_of(*predicted(3_000, 200 + seed)) + 4.0 * rng.standard_normal((2, BINS))
        readings = judge(noisy, 4.0, seed).readings
        for key, value in truth.items():
            interval = readings[key].interval
            assert interval is not None
            hits[key] += interval[0] <= value <= interval[1]
    assert min(hits.values()) > 33, hits


def test_with_few_patients_the_interval_of_precision_stays_above_nothing_and_below_all() -> None:
    for seed in range(10):
        noisy = counts_of(*predicted(400, seed)) + 1.0 * np.random.default_rng(seed).standard_normal((2, BINS))
        for reading in judge(noisy, 1.0, seed).readings.values():
            assert reading.value is not None
            assert reading.interval is not None
            low, high = reading.interval
            assert 0 < low <= reading.value <= high < 1


@pytest.mark.parametrize("patients", [0, 60])
def test_where_noise_is_larger_than_the_smaller_class_nothing_is_claimed(patients: int) -> None:
    rng = np.random.default_rng(2)
    found = judge(counts_of(*predicted(patients, 3)) + 4.0 * rng.standard_normal((2, BINS)), 4.0)
    assert found.roc is found.precision is found.reliability is None
    for key in MEASURES:
        assert found.readings[key].value is None
        assert "needed" in (found.readings[key].reason or "")
    assert found.to_json()["curves"] == {"roc": None, "precision": None, "reliability": None}


@pytest.mark.parametrize("place", [0, BINS - 1])
def test_a_model_that_tells_everybody_the_same_is_guessing(place: int) -> None:
    counts = np.zeros((2, BINS))
    counts[:, place] = (3000, 600)
    found = judge(counts, 1e-6)
    assert found.readings["auroc"].value == pytest.approx(0.5)
    assert found.readings["auprc"].value == pytest.approx(1 / 6, abs=1e-3)
    assert found.reliability is not None
    assert len(found.reliability.x) == len(found.reliability.y) == len(found.reliability.low)


def test_curves_are_shares_with_their_band_about_them_and_fit_into_json() -> None:
    rng = np.random.default_rng(4)
    found = judge(counts_of(*predicted(3_000, 5)) + 4.0 * rng.standard_normal((2, BINS)), 4.0)
    for curve in (found.roc, found.precision, found.reliability):
        assert curve is not None
        assert np.all((curve.low >= 0) & (curve.low <= curve.y) & (curve.y <= curve.high) & (curve.high <= 1 + 1e-9))
    assert found.roc is not None
    assert np.all(np.diff(found.roc.y) >= -1e-12)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert math.isclose(document["measures"]["auroc"]["value"], found.readings["auroc"].value or 0)


@pytest.mark.parametrize("place", [0, BINS // 2, BINS - 1])
def test_a_reliability_curve_has_a_share_for_every_prediction_where_all_are_told_about_the_same(place: int) -> None:
    """Beyond the one bin with patients there are groups of none, at either end."""
    noisy = np.zeros((2, BINS))
    noisy[:, place] = 300.0, 200.0
    curve = judge(noisy, 0.0).reliability
    assert curve is not None
    assert len(curve.x) == len(curve.y) == len(curve.low) == len(curve.high) == 1
    assert curve.y == pytest.approx([0.4])
