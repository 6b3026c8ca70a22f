import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from synclave_server.evaluation.classifiers import DISCRIMINATORS, LEAF, BoostedTrees, WeighedColumns, classifiers
from synclave_server.evaluation.comparison import Table, compare, independent_columns
from synclave_server.evaluation.fidelity import (
    MINIMUM_CARRIERS,
    compared_pairs,
    correlation_agreement,
    correlation_matrix,
    correlation_within,
    discriminator,
    fidelity_measures,
    hamming,
    kernel_bandwidth,
    mmd_squared,
    prevalence,
    prevalence_within,
    r_squared,
    rare_code_mass,
)
from synclave_server.evaluation.measure import Measure, defined, undefined
from synclave_server.evaluation.ranking import ranking_quality
from tests.evaluation.cohorts import CODES, make_schema, make_table

GROUPS = make_schema().groups
REAL = make_table(3_000, seed=1)


def shuffled_columns(table: Table, seed: int) -> Table:
    """Every column permuted on its own: prevalences stay exactly, relations go."""
    rng = np.random.default_rng(seed)
    return Table(features=np.column_stack([rng.permutation(c) for c in table.features.T]), labels=table.labels)


def test_a_cohort_agrees_perfectly_with_itself():
    agreement = prevalence(REAL, REAL)
    assert agreement.r2.value == agreement.log_r2.value == 1.0
    assert agreement.mean_absolute_error.value == 0.0
    assert rare_code_mass(REAL, REAL).value == 1.0
    columns, pairs = compared_pairs(REAL, GROUPS)
    pearson, rmse = correlation_agreement(REAL, REAL, columns, pairs)
    assert pearson.value == pytest.approx(1.0)
    assert rmse.value == 0.0


def test_shuffled_columns_keep_prevalence_and_lose_correlation():
    shuffled = shuffled_columns(REAL, seed=2)
    assert prevalence(REAL, shuffled).r2.value == pytest.approx(1.0)
    pearson, rmse = correlation_agreement(REAL, shuffled, *compared_pairs(REAL, GROUPS))
    assert abs(pearson.value) < 0.15
    assert rmse.value > 0.05


def test_shuffling_patients_changes_no_measure_of_the_whole_cohort():
    order = np.random.default_rng(0).permutation(len(REAL))
    mixed = REAL.take(order)
    assert prevalence(REAL, mixed).log_r2.value == pytest.approx(1.0)
    assert correlation_agreement(REAL, mixed, *compared_pairs(REAL, GROUPS))[0].value == pytest.approx(1.0)


def test_within_a_label_the_label_is_no_common_cause_and_few_patients_are_not_judged():
    assert correlation_within(REAL, REAL, GROUPS, 1).value == pytest.approx(1.0)
    assert correlation_within(REAL, make_table(3_000, seed=21), GROUPS, 0).value > 0.85
    independent = independent_columns(REAL, GROUPS, np.random.default_rng(1))
    # Over all patients independent columns keep what the label explains; within a label nothing is left.
    whole, _ = correlation_agreement(REAL, independent, *compared_pairs(REAL, GROUPS))
    assert whole.value > 0.15
    for label in (0, 1):
        assert abs(correlation_within(REAL, independent, GROUPS, label).value) < 0.15
    few = Table(features=REAL.features, labels=np.where(np.arange(len(REAL)) < 50, 1, 0))
    assert "50 patients" in correlation_within(REAL, few, GROUPS, 1).reason


def test_r_squared_is_against_the_diagonal_and_not_against_a_line():
    truth = np.array([0.1, 0.2, 0.3])
    assert r_squared(truth, truth).value == 1.0
    assert r_squared(truth, np.full(3, 0.2)).value == pytest.approx(0.0)
    assert r_squared(truth, truth * 2).value < 0  # perfectly correlated, and still wrong
    assert "two different" in r_squared(np.full(3, 0.2), truth).reason


def test_rare_code_mass_counts_rare_codes_only():
    features = np.zeros((1_000, 3), dtype=np.uint8)
    features[:500, 0] = 1  # common
    features[:4, 1] = 1  # 0.4 %
    features[:6, 2] = 1  # 0.6 %
    labels = np.zeros(1_000, dtype=np.int64)
    half = features.copy()
    half[:500, 0] = 0
    half[:2, 1] = 0
    half[:3, 2] = 0
    assert rare_code_mass(Table(features=features, labels=labels), Table(features=half, labels=labels)).value == 0.5
    common = Table(features=features[:, :1], labels=labels)
    assert "rarer than 1%" in rare_code_mass(common, common).reason


def test_nobody_counts_as_half_a_patient_on_the_log_scale():
    labels = np.zeros(100, dtype=np.int64)
    real, found = np.zeros((100, 3), dtype=np.uint8), np.zeros((100, 3), dtype=np.uint8)
    real[:50, 0] = found[:50, 0] = 1
    real[:5, 1] = 1  # 5 % against nobody: log10(0.05) against log10(0.005), one decade
    value = prevalence(Table(features=real, labels=labels), Table(features=found, labels=labels)).log_r2.value
    spread = (np.log10(0.5) - np.log10(0.05)) ** 2 / 2
    assert value == pytest.approx(1 - 1 / spread)  # the column that nobody has is left out


def test_correlations_agree_with_numpy_and_constant_columns_have_none():
    features = np.hstack([REAL.features, np.ones((len(REAL), 1), np.uint8), np.zeros((len(REAL), 1), np.uint8)])
    found = correlation_matrix(features)
    np.testing.assert_allclose(found[:-2, :-2], np.corrcoef(REAL.features.T), atol=1e-5)
    assert not found[-2:].any()


def test_pairs_forced_by_a_category_and_hardly_carried_columns_are_left_out():
    columns, (left, right) = compared_pairs(REAL, GROUPS)
    pairs = set(zip(columns[left].tolist(), columns[right].tolist(), strict=True))
    assert (0, 1) in pairs
    assert (0, CODES) in pairs
    assert (CODES, CODES + 1) not in pairs
    carriers = REAL.features.sum(axis=0)
    assert set(columns) == set(np.flatnonzero(carriers >= MINIMUM_CARRIERS))


def test_mmd_agrees_with_the_double_sum():
    left, right = make_table(40, seed=3), make_table(30, seed=4)
    kernel = lambda a, b: np.exp(-np.abs(a.astype(int) - b).sum() / 5.0)  # noqa: E731
    within = [
        np.mean([kernel(a, b) for i, a in enumerate(t.features) for j, b in enumerate(t.features) if i != j])
        for t in (left, right)
    ]
    across = np.mean([kernel(a, b) for a in left.features for b in right.features])
    assert mmd_squared(left, right, 5.0).value == pytest.approx(sum(within) - 2 * across, abs=1e-6)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_hamming_counts_differing_columns(rows, others, seed):
    rng = np.random.default_rng(seed)
    left, right = (rng.integers(0, 2, (n, 9)).astype(np.uint8) for n in (rows, others))
    np.testing.assert_array_equal(hamming(left, right), (left[:, None] != right[None]).sum(axis=2))


def test_discriminators_guess_on_the_same_law_and_see_lost_relations():
    other, shuffled = make_table(3_000, seed=5), shuffled_columns(REAL, seed=6)
    rng = np.random.default_rng(0)
    for key in DISCRIMINATORS:
        model = classifiers(0)[key][1]
        same = discriminator(REAL, other, model, rng)
        assert same.interval[0] <= 0.5 <= same.interval[1], key
    boosting = classifiers(0)["boosting"][1]
    assert discriminator(REAL, shuffled, boosting, rng).value > 0.65
    assert "fewer than" in discriminator(REAL.sample(5, rng), other, boosting, rng).reason


def test_logistic_regression_on_sparse_columns_is_that_on_the_table():
    from sklearn.linear_model import LogisticRegression

    ours = WeighedColumns().fit(REAL.features, REAL.labels == 1)
    dense = LogisticRegression(C=0.1, max_iter=1000, tol=1e-8).fit(REAL.features, REAL.labels == 1)
    difference = ours.predict_proba(REAL.features) - dense.predict_proba(REAL.features)
    assert np.abs(difference).max() < 1e-3


def test_leaving_out_columns_that_cannot_be_split_changes_no_prediction():
    from sklearn.ensemble import HistGradientBoostingClassifier

    ours = BoostedTrees(0).fit(REAL.features, REAL.labels == 1)
    assert len(ours._columns) < REAL.features.shape[1]
    full = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, min_samples_leaf=LEAF, early_stopping=False, random_state=0
    ).fit(REAL.features, REAL.labels == 1)
    np.testing.assert_allclose(ours.predict_proba(REAL.features), full.predict_proba(REAL.features))


@pytest.mark.parametrize("levels", [3, 1_000])
def test_ranking_agrees_with_scikit_learn_ties_included(levels):
    rng = np.random.default_rng(levels)
    positive = rng.random(500) < 0.2
    scores = np.round((rng.random(500) + 0.3 * positive) * levels)
    (auroc, interval), (precision, _) = ranking_quality(positive, scores, rng)
    assert auroc == pytest.approx(roc_auc_score(positive, scores))
    assert precision == pytest.approx(average_precision_score(positive, scores))
    assert interval[0] < auroc < interval[1]


def test_independent_columns_keep_prevalence_within_labels_and_valid_categories():
    drawn = independent_columns(REAL, GROUPS, np.random.default_rng(7))
    assert (drawn.features[:, CODES:].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(drawn.labels, REAL.labels)
    for label in (0, 1):
        assert prevalence_within(REAL, drawn, label).value > 0.9
    pearson, _ = correlation_agreement(REAL, drawn, *compared_pairs(REAL, GROUPS))
    # The label is a common cause that survives; the rest of the relations does not.
    assert pearson.value < 0.6


def test_cohorts_have_one_size_and_without_training_patients_the_held_out_are_halved():
    rng = np.random.default_rng(8)
    synthetic = make_table(700, seed=9)
    with_train = compare(REAL, synthetic, make_table(900, seed=10), GROUPS, rng)
    assert {len(t) for t in with_train.contenders()} == {700}
    assert len(with_train.reference) == len(REAL)
    assert not with_train.split
    halved = compare(REAL, make_table(5_000, seed=9), None, GROUPS, rng)
    assert {len(t) for t in halved.contenders()} == {len(REAL) // 2}
    assert halved.split
    assert len(halved.reference) + len(halved.other_real) == len(REAL)


def test_measures_of_the_real_law_reach_the_ceiling_and_those_of_independent_columns_stay_at_the_floor():
    train = make_table(3_000, seed=11)
    independent = independent_columns(make_table(3_000, seed=12), GROUPS, np.random.default_rng(0))
    found = {}
    for name, synthetic in (("law", make_table(3_000, seed=13)), ("independent", independent)):
        comparison = compare(REAL, synthetic, train, GROUPS, np.random.default_rng(0))
        measures = fidelity_measures(comparison, GROUPS, "died", ("no", "yes"), 0, lambda _: None)
        found[name] = {m.key: m for m in measures}
    for key in ("correlation_pearson", "correlation_rmse", "discriminator_boosting"):
        assert found["law"][key].way == pytest.approx(1, abs=0.2), key
        assert found["independent"][key].way == pytest.approx(0, abs=0.2), key
    assert found["law"]["mmd_squared"].value.value < found["independent"]["mmd_squared"].value.value
    # Prevalence alone cannot tell the two apart, and says so.
    assert found["law"]["prevalence_r2"].way is None


def test_the_way_from_floor_to_ceiling_is_measured_from_the_ideal_value():
    def way(aim, value, ceiling, floor):
        readings = (defined(x) if x is not None else undefined("why") for x in (value, ceiling, floor))
        value, ceiling, floor = readings
        return Measure(key="k", title="t", section="s", aim=aim, value=value, ceiling=ceiling, floor=floor).way

    assert way("one", 0.7, 0.9, 0.5) == pytest.approx(0.5)
    assert way("half", 0.75, 0.5, 1.0) == pytest.approx(0.5)
    assert way("half", 0.45, 0.5, 1.0) == pytest.approx(0.9)  # below guessing is no better than above it
    assert way("one", 1.3, 1.1, 1.4) == pytest.approx(1 / 3)
    assert way("one", 0.7, 0.9, 0.895) is None
    assert way("one", None, 0.9, 0.5) is None
    assert way("one", 0.7, 0.4, 0.9) is None


def test_the_share_of_the_ceiling_is_told_only_where_more_is_better_and_real_patients_agree():
    def share(aim, value, ceiling):
        value, ceiling = (defined(x) if x is not None else undefined("why") for x in (value, ceiling))
        return Measure(
            key="k", title="t", section="s", aim=aim, value=value, ceiling=ceiling, floor=defined(0.0)
        ).of_ceiling

    assert share("one", 0.6, 0.8) == pytest.approx(0.75)
    assert share("one", -0.2, 0.8) == pytest.approx(-0.25)
    assert share("one", 0.9, 0.6) == pytest.approx(1.5)
    assert share("one", 0.6, 0.01) is None
    assert share("one", None, 0.8) is None
    assert share("one", 0.6, None) is None
    for aim in ("zero", "half", "same"):
        assert share(aim, 0.6, 0.8) is None


def test_intervals_are_those_of_plain_resampling():
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.3
    scores = np.round(rng.random(300) + 0.4 * positive, 1)
    (_, interval), (_, precision_interval) = ranking_quality(positive, scores, rng)
    areas, precisions = [], []
    for _ in range(400):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(positive == kind), (positive == kind).sum()) for kind in (0, 1)]
        )
        areas.append(roc_auc_score(positive[rows], scores[rows]))
        precisions.append(average_precision_score(positive[rows], scores[rows]))
    # Both bounds are percentiles of a few hundred draws: a fifth of the interval's width is four of their errors.
    for found, drawn in ((interval, areas), (precision_interval, precisions)):
        truth = np.percentile(drawn, (2.5, 97.5))
        np.testing.assert_allclose(found, truth, atol=0.2 * (truth[1] - truth[0]))


def test_a_number_that_is_not_finite_is_reported_as_a_reason():
    assert defined(float("nan")).value is None
    assert "finite" in defined(float("inf")).reason
    assert defined(0.5, (float("nan"), 1.0)).interval is None


def test_kernel_bandwidth_is_the_median_distance_and_never_zero():
    same = Table(features=np.ones((10, 4), np.uint8), labels=np.zeros(10, np.int64))
    assert kernel_bandwidth(same) == 1.0
    two = Table(features=np.array([[0, 0, 0, 0], [1, 1, 1, 0]], np.uint8), labels=np.zeros(2, np.int64))
    assert kernel_bandwidth(two) == 3.0
