import numpy as np
import pytest

from synclave_server.evaluation.comparison import Table, compare
from synclave_server.evaluation.downstream import label_tasks
from synclave_server.evaluation.utility import utility_measures
from tests.evaluation.cohorts import make_schema, make_table

GROUPS = make_schema().groups


def measured(real, synthetic, train, values=("no", "yes")):
    comparison = compare(real, synthetic, train, GROUPS, np.random.default_rng(0))
    return {m.key: m for m in utility_measures(comparison, "died", values, 0, lambda _: None)}


def test_training_on_the_training_patients_themselves_scores_the_ceiling_exactly():
    train = make_table(1_500, seed=1)
    found = measured(make_table(1_500, seed=2), train, train)
    for measure in [measure for key, measure in found.items() if key.startswith("tstr_")]:
        assert measure.value.value == measure.ceiling.value
        if "_au" not in measure.key:
            continue
        assert measure.of_ceiling == 1.0
        assert measure.value.interval[0] < measure.value.value < measure.value.interval[1]


def test_labels_without_relation_to_the_codes_teach_nothing():
    noise = make_table(1_500, seed=3)
    noise = Table(features=noise.features, labels=np.random.default_rng(0).permutation(noise.labels))
    found = measured(make_table(1_500, seed=2), noise, make_table(1_500, seed=1))["tstr_logistic_auroc[yes]"]
    assert abs(found.value.value - 0.5) < 0.12
    assert found.ceiling.value > 0.65


def with_labels(table: Table, labels: np.ndarray) -> Table:
    return Table(features=table.features, labels=labels)


def test_labels_hold_as_they_do_in_real_patients_and_permuted_or_swapped_ones_do_not():
    real, train, law = (make_table(2_000, seed) for seed in (2, 1, 3))
    rng = np.random.default_rng(0)
    scores = {}
    for name, labels in (
        ("real", real.labels),
        ("law", law.labels),
        ("permuted", rng.permutation(law.labels)),
        ("swapped", 1 - law.labels),
    ):
        synthetic = with_labels(real if name == "real" else law, labels)
        comparison = compare(real, synthetic, train, GROUPS, np.random.default_rng(0))
        found = {m.key: m for m in utility_measures(comparison, "died", ("no", "yes"), 0, lambda _: None)}
        for key in ("logistic", "boosting", "forest"):
            measure = found[f"trts_{key}_auroc[yes]"]
            assert measure.ceiling.value == found[f"tstr_{key}_auroc[yes]"].ceiling.value
            scores[name, key] = measure
    for key in ("logistic", "boosting", "forest"):
        assert scores["real", key].value.value == pytest.approx(scores["real", key].ceiling.value)
        assert scores["law", key].of_ceiling == pytest.approx(1, abs=0.05)
        assert scores["permuted", key].value.value == pytest.approx(0.5, abs=0.04)
        # The same scores for the other class: an area and its complement.
        assert scores["swapped", key].value.value == pytest.approx(1 - scores["law", key].value.value)


def test_of_two_values_the_rarer_is_predicted_and_of_three_each():
    labels = np.array([0, 1, 1, 1], dtype=np.int64)
    table = Table(features=np.zeros((4, 1), np.uint8), labels=labels)
    assert [(t.value, t.base_rate) for t in label_tasks(table, ("a", "b"))] == [("a", 0.25)]
    flipped = Table(features=table.features, labels=1 - labels)
    assert [t.value for t in label_tasks(flipped, ("a", "b"))] == ["b"]
    assert [t.value for t in label_tasks(table, ("a", "b", "c"))] == ["a", "b", "c"]


@pytest.mark.parametrize("where", ["synthetic", "real"])
def test_a_single_label_is_not_defined_with_its_reason(where):
    cohorts = {"real": make_table(300, seed=1), "synthetic": make_table(300, seed=2)}
    cohorts[where] = Table(features=cohorts[where].features, labels=np.zeros(300, np.int64))
    found = measured(cohorts["real"], cohorts["synthetic"], make_table(300, seed=3))
    for measure in [measure for key, measure in found.items() if key.startswith("tstr_")]:
        assert measure.value.value is None
        assert "0 of 300 patients" in measure.value.reason
        assert (measure.ceiling.value is None) == (where == "real")
