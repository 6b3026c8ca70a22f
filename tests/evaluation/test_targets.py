import numpy as np
import pytest

from synclave_server.evaluation.comparison import Table, compare
from synclave_server.evaluation.targets import choose_targets, target_measures
from synclave_shared.errors import ConfigurationError
from tests.evaluation.cohorts import CODES, STAGES, make_schema, make_table

SCHEMA = make_schema()
REAL, TRAIN = make_table(1_500, seed=2), make_table(1_500, seed=1)


def shuffled_columns(table: Table) -> Table:
    rng = np.random.default_rng(0)
    return Table(features=np.column_stack([rng.permutation(c) for c in table.features.T]), labels=table.labels)


def measured(synthetic: Table, wanted: tuple[str, ...] = ("code:c0", "code:c5", "stage:late")):
    targets = choose_targets(SCHEMA, REAL, wanted)
    comparison = compare(REAL, synthetic, TRAIN, SCHEMA.groups, np.random.default_rng(0))
    return {m.key: m for m in target_measures(comparison, targets, 2, 0, lambda _: None)}


def test_the_classifier_sees_all_but_the_target_or_its_category_and_the_label():
    code, stage = choose_targets(SCHEMA, REAL, ("code:c3", "stage:late"))
    one = code.examples(REAL, 2)
    np.testing.assert_array_equal(one.positive, REAL.features[:, 3] == 1)
    np.testing.assert_array_equal(one.features[:, :-2], REAL.features[:, [k for k in range(CODES + 3) if k != 3]])
    np.testing.assert_array_equal(one.features[:, -2:].argmax(axis=1), REAL.labels)
    other = stage.examples(REAL, 2)
    np.testing.assert_array_equal(other.positive, REAL.features[:, CODES + STAGES.index("late")] == 1)
    np.testing.assert_array_equal(other.features[:, :-2], REAL.features[:, :CODES])


def test_the_rule_takes_the_most_common_column_of_at_most_a_half_and_codes_before_categories():
    features = np.zeros((100, CODES + 3), dtype=np.uint8)
    features[:60, 0] = 1  # too common
    features[:40, 1] = 1
    features[:30, 2] = 1
    features[:45, CODES] = 1
    features[45:, CODES + 1] = 1  # too common
    table = Table(features=features, labels=np.zeros(100, dtype=np.int64))
    assert [t.name for t in choose_targets(SCHEMA, table, ())] == ["code:c1", "stage:early"]
    rare = Table(features=features[35:55], labels=np.zeros(20, dtype=np.int64))
    assert choose_targets(SCHEMA, rare, ()) == []
    assert [t.name for t in choose_targets(SCHEMA, table, ("code:c7", "code:c7"))] == ["code:c7"]


def test_an_unknown_target_is_explained():
    with pytest.raises(ConfigurationError, match="field:value") as raised:
        choose_targets(SCHEMA, REAL, ("code:c0", "code:nothing"))
    assert "code:nothing" in str(raised.value)


def test_training_patients_in_the_place_of_synthetic_ones_score_the_ceiling_and_means_are_means():
    found = measured(TRAIN)
    for measure in found.values():
        assert measure.value.value == measure.ceiling.value
    single = [found[f"target_forest_auprc[{name}]"].value.value for name in ("code:c0", "code:c5", "stage:late")]
    assert found["target_forest_auprc"].value.value == pytest.approx(np.mean(single))


def test_relations_teach_a_code_and_independent_columns_do_not():
    law, shuffled = measured(make_table(1_500, seed=3)), measured(shuffled_columns(REAL))
    for key in ("target_logistic_auroc[code:c5]", "target_forest_auroc[code:c5]"):
        assert law[key].value.value > 0.7
        assert law[key].of_ceiling == pytest.approx(1, abs=0.08)
        assert abs(shuffled[key].value.value - 0.5) < 0.06
    # Nothing goes with the stage, so nobody can tell it.
    assert law["target_logistic_auroc[stage:late]"].ceiling.value == pytest.approx(0.5, abs=0.05)


def test_a_target_that_nobody_has_is_left_out_of_the_means():
    nobody = REAL.features.copy()
    nobody[:, 5] = 0
    found = measured(Table(features=nobody, labels=REAL.labels), ("code:c0", "code:c5"))
    assert "0 of 1500 patients" in found["target_logistic_auroc[code:c5]"].value.reason
    assert found["target_logistic_auroc"].value.value == found["target_logistic_auroc[code:c0]"].value.value
    assert (
        "no target"
        in measured(Table(features=nobody, labels=REAL.labels), ("code:c5",))["target_logistic_auroc"].value.reason
    )
