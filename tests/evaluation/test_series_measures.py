import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from synclave_server.evaluation.calibration import calibration
from synclave_server.evaluation.comparison import oppose
from synclave_server.evaluation.disclosure import copies, disclosure_measures
from synclave_server.evaluation.downstream import fit, label_tasks
from synclave_server.evaluation.series import recurrent
from synclave_server.evaluation.series.classifiers import series_classifiers
from synclave_server.evaluation.series.courses import courses, independent_courses, nearness, present
from synclave_server.evaluation.series.fidelity import fidelity_of_series
from synclave_server.evaluation.series.likeness import (
    autocorrelations,
    channel_correlations,
    observed_shares,
    observed_values,
)
from synclave_server.evaluation.series.recurrent import Forecaster, RecurrentClassifier
from synclave_server.evaluation.series.summaries import SUMMARIES, summaries
from synclave_server.evaluation.utility import utility_measures
from synclave_server.evaluation.words import verdict
from tests.evaluation.series_cohorts import (
    CHANNELS,
    changed,
    frozen,
    make_series,
    make_series_schema,
    mixed_channels,
    mixed_steps,
)

FLOOR = independent_courses(make_series_schema().groups)
REAL, TRAIN = make_series(700, seed=2), make_series(700, seed=1)
EXACT = (
    "wasserstein",
    "mean_error",
    "deviation_error",
    "observed_mae",
    "observations_wasserstein",
    "length_wasserstein",
)
RELATIONS = ("autocorrelation_mae", "correlation_pearson", "correlation_rmse", "observed_correlation_pearson")


@pytest.fixture(autouse=True)
def shorter_training(monkeypatch):
    """The toy data are learnt in fewer steps."""
    monkeypatch.setattr(recurrent, "STEPS", 80)


def compared(synthetic, train=TRAIN, real=REAL):
    return oppose(courses(real), courses(synthetic), courses(train), FLOOR, np.random.default_rng(0))


def faithful(synthetic, train=TRAIN, real=REAL):
    return {m.key: m for m in fidelity_of_series(compared(synthetic, train, real), 0, lambda _: None)}


def test_the_training_patients_themselves_reach_the_ceiling_and_the_reference_is_perfect():
    found = faithful(TRAIN)
    for key in (*EXACT, *RELATIONS, "prevalence_mae", "next_step_mae"):
        assert found[key].value.value == found[key].ceiling.value, key
    for key in ("discriminator_logistic", "discriminator_boosting"):
        assert found[key].value.value == pytest.approx(0.5, abs=0.06)
        assert found[key].floor.value > 0.8
    perfect = faithful(REAL)
    for key in (*EXACT, *RELATIONS):
        assert perfect[key].value.value == pytest.approx(perfect[key].ideal, abs=1e-6), key
    for key in ("autocorrelation_mae", "correlation_rmse", "next_step_mae"):
        assert found[key].way == 1, key


def test_channels_of_different_patients_lose_their_correlation_and_keep_their_course():
    found = faithful(mixed_channels(TRAIN))
    relation = found["correlation_pearson"]
    assert relation.ceiling.value > 0.95
    assert relation.value.value < 0.6
    assert found["correlation_rmse"].value.value > 3 * found["correlation_rmse"].ceiling.value
    assert found["autocorrelation_mae"].value.value < 0.1
    assert found["discriminator_boosting"].value.value > 0.8


def test_steps_in_random_order_lose_autocorrelation_and_teach_no_next_step(monkeypatch):
    monkeypatch.setattr(recurrent, "STEPS", 250)
    found = faithful(mixed_steps(TRAIN))
    # What a condition has of the patient remains; what wanders does not.
    assert found["autocorrelation_mae"].value.value > 3 * found["autocorrelation_mae"].ceiling.value
    assert found["next_step_mae"].value.interval[0] > found["next_step_mae"].ceiling.interval[1]
    assert found["wasserstein"].value.value == pytest.approx(found["wasserstein"].ceiling.value, abs=1e-6)


def test_a_series_that_stands_still_is_found_out():
    found = faithful(frozen(TRAIN))
    assert found["discriminator_boosting"].value.value > 0.95
    assert found["autocorrelation_mae"].value.value > 3 * found["autocorrelation_mae"].ceiling.value


def test_gaps_of_another_kind_are_seen_though_values_are_right():
    rng = np.random.default_rng(0)
    fewer = changed(TRAIN, observed=TRAIN.observed * (rng.random(TRAIN.observed.shape) < 0.7))
    found = faithful(fewer)
    for key in ("observed_mae", "observations_wasserstein"):
        assert found[key].value.value > 5 * found[key].ceiling.value
    assert found["wasserstein"].value.value < 0.1


def test_a_channel_that_nobody_has_counts_against_a_cohort():
    observed = TRAIN.observed.copy()
    observed[:, :, 3] = 0
    found = faithful(changed(TRAIN, observed=observed))
    # One of four channels: its standard deviation is off by all of it.
    assert found["deviation_error"].value.value > 0.25
    assert found["correlation_pearson"].value.value < 0.95
    (task,) = label_tasks(courses(REAL), ("no", "yes"))
    for _, model in series_classifiers(0).values():
        auroc, *_ = fit(model, task.examples(courses(changed(TRAIN, observed=observed)))).judge(
            task.examples(courses(REAL)), "the test patients", np.random.default_rng(0)
        )
        assert auroc.value > 0.75


def test_permuted_labels_teach_nothing_and_real_ones_do():
    rng = np.random.default_rng(0)
    for labels, expected in ((TRAIN.labels, True), (rng.permutation(TRAIN.labels), False)):
        comparison = compared(changed(TRAIN, labels=labels))
        measures = utility_measures(comparison, "died", ("no", "yes"), 0, lambda _: None, series_classifiers)
        found = {m.key: m for m in measures}
        for key in ("logistic", "boosting", "recurrent"):
            auroc, held = found[f"tstr_{key}_auroc[yes]"], found[f"trts_{key}_auroc[yes]"]
            assert auroc.ceiling.value > 0.75
            assert found[f"tstr_{key}_brier[yes]"].ceiling.value < 0.2
            if expected:
                assert auroc.value.value == auroc.ceiling.value
                assert found[f"tstr_{key}_ece[yes]"].of_ceiling is None
            else:
                assert auroc.value.interval[1] < auroc.ceiling.value
                assert held.value.value < 0.65
                assert found[f"tstr_{key}_brier[yes]"].value.value > found[f"tstr_{key}_brier[yes]"].ceiling.value


def test_a_cohort_of_copies_gives_its_training_patients_away():
    copied = TRAIN.select(np.random.default_rng(0).permutation(700))
    measures = disclosure_measures(
        courses(REAL), courses(copied), courses(TRAIN), FLOOR, 0, lambda _: None, nearness(courses(REAL))
    )
    found = {m.key: m for m in measures}
    assert found["membership_auroc"].value.value > 0.99
    assert verdict(found["membership_auroc"]).endswith("than chance allows")
    # Half as many held-out patients are searched: so many training patients are.
    assert found["copies_of_training"].value.value == pytest.approx(0.5, abs=0.01)
    assert found["copies_of_held_out"].value.value == 0
    assert found["neighbour_distance_ratio"].value.value < 0.8
    fresh = disclosure_measures(
        courses(REAL), courses(make_series(700, 3)), courses(TRAIN), FLOOR, 0, lambda _: None, nearness(courses(REAL))
    )
    honest = {m.key: m for m in fresh}
    assert honest["membership_auroc"].value.value == pytest.approx(0.5, abs=0.06)
    assert honest["copies_of_training"].value.value == 0
    assert not verdict(honest["membership_auroc"]).endswith("than chance allows")


def test_a_copy_is_one_after_rounding_and_not_with_another_gap_or_value():
    table = courses(REAL.select(np.arange(40)))
    near = nearness(table)
    rounded = changed(REAL.select(np.arange(40)), values=REAL.values[:40] * np.float32(1 - 1e-7))
    assert copies(courses(rounded), table, near).all()
    assert near.distance(courses(rounded), table).diagonal().max() == 0
    for part in ("values", "observed"):
        other = getattr(REAL, part)[:40].copy()
        step, channel = np.argwhere(REAL.observed[0])[0]
        other[0, step, channel] = 0 if part == "observed" else 0.9
        other = changed(REAL.select(np.arange(40)), **{part: other})
        assert copies(courses(other), table, near).tolist() == [False] + [True] * 39
        assert near.distance(courses(other), table)[0, 0] > 0.1


def test_independent_courses_keep_what_is_at_a_step_and_nothing_else():
    source = courses(REAL)
    floor = FLOOR(source, np.random.default_rng(0))
    np.testing.assert_array_equal(floor.labels, source.labels)
    np.testing.assert_array_equal(floor.features["length"], source.features["length"])
    assert not (floor.features["observed"].any(axis=2) & ~present(floor.features)).any()
    assert not floor.features["values"][floor.features["observed"] == 0].any()
    assert np.abs(observed_shares(floor.features) - observed_shares(source.features)).max() < 0.12
    for channel in range(len(CHANNELS)):
        real = observed_values(source.features, channel)
        made = observed_values(floor.features, channel)
        assert set(made.tolist()) <= set(real.tolist())
        assert abs(made.mean() - real.mean()) < 0.05
    assert np.abs(autocorrelations(floor.features, [1, 3])).max() < 0.3
    assert autocorrelations(source.features, [1]).min() > 0.6


def test_summaries_are_what_they_say():
    table = REAL.select(np.arange(30))
    found = summaries(table.values, table.observed, table.lengths, table.static)
    assert found.shape == (30, len(SUMMARIES) * 4 + 1 + 2)
    for patient in range(30):
        for channel in range(4):
            seen = np.flatnonzero(table.observed[patient, :, channel])
            x = table.values[patient, seen, channel].astype(float)
            expected = np.full(7, np.nan)
            expected[5] = len(x)
            if len(x):
                expected[:5] = x.mean(), x.min(), x.max(), x[0], x[-1]
            if len(x) > 1:
                expected[6] = np.polyfit(seen, x, 1)[0]
            np.testing.assert_allclose(found[patient, channel:28:4], expected, atol=1e-5)
    np.testing.assert_array_equal(found[:, 28], table.lengths)
    np.testing.assert_array_equal(found[:, 29:], table.static)


def test_autocorrelations_and_correlations_are_those_of_the_pairs_one_by_one():
    features = courses(REAL).features
    (found,) = autocorrelations(features, [2])
    values, observed = features["values"].astype(float), features["observed"] == 1
    for channel in range(4):
        both = observed[:, :-2, channel] & observed[:, 2:, channel]
        pairs = values[:, :-2, channel][both], values[:, 2:, channel][both]
        assert found[channel] == pytest.approx(np.corrcoef(*pairs)[0, 1], abs=1e-6)
    matrix, patients = channel_correlations(features)
    one, other = [], []
    for patient in range(len(features)):
        if observed[patient, :, 0].any() and observed[patient, :, 2].any():
            for step in range(features["length"][patient]):
                for channel, into in ((0, one), (2, other)):
                    seen = np.flatnonzero(observed[patient, :, channel])
                    before = seen[seen <= step]
                    into.append(values[patient, before[-1] if len(before) else seen[0], channel])
    assert matrix[0, 2] == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-6)
    assert patients[0, 2] == (observed[:, :, 0].any(axis=1) & observed[:, :, 2].any(axis=1)).sum()
    assert autocorrelations(features[:3], [2]).shape == (1, 4)
    assert np.isnan(autocorrelations(features[:3], [2])).all()


def test_calibration_is_good_for_true_probabilities_and_bad_for_bold_ones():
    rng = np.random.default_rng(0)
    probability = rng.beta(1, 8, 20_000)
    positive = rng.random(20_000) < probability
    brier, error = calibration(positive, probability, rng)
    assert brier.value == pytest.approx(brier_score_loss(positive, probability))
    assert brier.interval[0] < brier.value < brier.interval[1]
    assert error.value < 0.01
    bold = np.clip(probability + 0.2, 0, 1)
    assert calibration(positive, bold, rng)[1].value == pytest.approx(0.2, abs=0.01)
    assert calibration(np.array([True]), np.array([0.25]), rng)[1].value == pytest.approx(0.75)


def test_the_forecaster_does_not_see_the_step_that_it_predicts_nor_the_classifier_what_is_after_the_stay():
    features = courses(REAL).features
    forecaster = Forecaster(0).fit(features)
    later = changed(REAL, values=np.where(np.arange(12)[None, :, None] >= 6, 0.9, REAL.values))
    before, after = forecaster.predict(features), forecaster.predict(courses(later).features)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 6:] - after[:, 6:]).max() > 0.1
    (task,) = label_tasks(courses(REAL), ("no", "yes"))
    fitted = fit(RecurrentClassifier(0), task.examples(courses(REAL)))
    again = fit(RecurrentClassifier(0), task.examples(courses(REAL)))
    scores = fitted.model.predict_proba(features)
    np.testing.assert_array_equal(scores, again.model.predict_proba(features))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
