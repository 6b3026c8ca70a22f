"""Whether a gain is seen where there is one, and none where there is none."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from synclave_server.augmentation.gains import Addition, Curve, gain_curves
from synclave_server.augmentation.mixture import added_counts, entering
from synclave_server.augmentation.report import decisive_point, sentences, verdict
from synclave_server.augmentation.resampling import areas, resamplings
from synclave_server.evaluation.classifiers import classifiers
from synclave_server.evaluation.comparison import Table
from tests.evaluation.cohorts import make_table

ALPHAS = (0.5, 1.0, 8.0)
HELD_OUT = make_table(2_000, seed=2)


def addition(patients: Table, real: int, shares: tuple[float, float]) -> Addition:
    """As many of each label as ``shares`` ask for, in the order of ``patients``."""
    counts = added_counts(ALPHAS, real, np.array(shares))
    rows = np.concatenate([np.flatnonzero(patients.labels == v)[: counts[-1, v]] for v in (0, 1)])
    chosen = patients.take(np.sort(rows))
    return Addition(patients=chosen, entering=entering(chosen.labels, counts))


def measured(real: Table, additions: list[Addition], held_out: Table = HELD_OUT) -> Curve:
    (curve,) = gain_curves(
        real, held_out, additions, ALPHAS, ("no", "yes"), 0, lambda _: None, classifiers, ("logistic",)
    )
    return curve


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_those_of_scikit_learn_and_of_patients_written_out_as_often_as_they_were_drawn(ties: bool) -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.2
    scores = rng.random(300) + 0.3 * positive
    scores = np.round(scores, 1) if ties else scores
    times = resamplings(positive, rng)
    assert (times[0] == 1).all()
    assert (times[:, positive].sum(axis=1) == positive.sum()).all()
    auroc, auprc = areas(positive, scores, times)
    for row in (0, 1, 7):
        drawn = np.repeat(np.arange(300), times[row].astype(int))
        assert auroc[row] == pytest.approx(roc_auc_score(positive[drawn], scores[drawn]))
        assert auprc[row] == pytest.approx(average_precision_score(positive[drawn], scores[drawn]))


def test_more_patients_of_the_same_law_help_and_wrong_labels_harm() -> None:
    real, law = make_table(60, seed=1), make_table(3_000, seed=3)
    wrong = Table(features=law.features, labels=1 - law.labels)
    helped = measured(real, [addition(law, 60, (0.75, 0.25))])
    harmed = measured(real, [addition(wrong, 60, (0.75, 0.25))])
    assert (helped.value, helped.model) == ("yes", "logistic")
    full = helped.points["synthetic"][-1]
    assert (full.alpha, full.added, full.positive) == (8.0, 480, 120)
    assert full.gains["auprc"].interval[0] > 0
    assert verdict(full) == "better than the real patients alone"
    one = helped.points["synthetic"][2]
    assert (one.alpha, decisive_point(helped.points["synthetic"])) == (1.0, one)
    assert decisive_point([*helped.points["synthetic"][:2], full]) is full
    assert f"(alpha 1): {one.gains['auprc'].value:+.3f}".replace("-", "−") in sentences(helped)[0]
    assert verdict(harmed.points["synthetic"][-1]) == "worse than the real patients alone"


def test_a_gain_is_the_difference_of_means_over_draws_and_nothing_added_has_none() -> None:
    real = make_table(200, seed=1)
    curve = measured(real, [addition(make_table(4_000, seed=seed), 200, (0.5, 0.5)) for seed in (3, 4)])
    alone = curve.points["synthetic"][0]
    assert alone.gains == {}
    assert alone == curve.points["repeated"][0]
    for point in curve.points["synthetic"][1:]:
        assert len(point.readings["auroc"]) == 2
        for measure in ("auroc", "auprc", "brier"):
            expected = np.mean(point.readings[measure]) - np.mean(alone.readings[measure])
            assert point.gains[measure].value == pytest.approx(expected)
            low, high = point.gains[measure].interval
            assert low <= point.gains[measure].value <= high
        assert "ece" not in point.gains


def test_repeated_patients_are_real_ones_of_the_same_labels() -> None:
    real = make_table(100, seed=1)
    wanted = addition(make_table(5_000, seed=3), 100, (0.0, 1.0))
    curve = measured(real, [wanted])
    for synthetic, repeated in zip(curve.points["synthetic"], curve.points["repeated"], strict=True):
        assert (synthetic.added, synthetic.positive) == (repeated.added, repeated.positive)


@pytest.mark.parametrize("where", ["training", "held-out"])
def test_too_few_of_a_class_give_a_reason_in_place_of_numbers(where: str) -> None:
    real = make_table(100, seed=1)
    if where == "training":
        real = real.take(np.flatnonzero(real.labels == 0))
    held_out = HELD_OUT if where == "training" else HELD_OUT.take(np.flatnonzero(HELD_OUT.labels == 0))
    curve = measured(real, [addition(make_table(3_000, seed=3), len(real), (0.5, 0.5))], held_out)
    alone, *_, full = curve.points["synthetic"]
    assert alone.readings == {}
    assert "at least 5 needed" in (alone.reason or "")
    assert decisive_point(curve.points["synthetic"]) is None
    assert bool(full.readings) == (where == "training")
    assert full.gains == {}
