import numpy as np
import pytest

from synclave_server.evaluation.augmentation import ALPHAS, augmentation_key, augmentation_measures
from synclave_server.evaluation.classifiers import QUICK
from synclave_server.evaluation.comparison import Table, compare
from tests.evaluation.cohorts import make_schema, make_table

GROUPS = make_schema().groups
REAL = make_table(2_000, seed=2)


def measured(synthetic: Table, train: Table | None):
    comparison = compare(REAL, synthetic, train, GROUPS, np.random.default_rng(0))
    return {m.key: m for m in augmentation_measures(comparison, train, "died", ("no", "yes"), 0, lambda _: None)}


def test_there_is_a_reading_per_classifier_area_and_share_and_nothing_added_is_the_same_for_all_three():
    found = measured(make_table(500, seed=3), make_table(400, seed=1))
    assert set(found) == {
        augmentation_key(key, area, "yes", alpha) for key in QUICK for area in ("auroc", "auprc") for alpha in ALPHAS
    }
    for key in QUICK:
        alone = found[augmentation_key(key, "auprc", "yes", 0.0)]
        assert alone.value == alone.ceiling == alone.floor
        assert "200 real and 0 added" in alone.title


def test_more_patients_of_the_same_law_help_as_much_as_real_ones_and_wrong_labels_harm():
    train = make_table(240, seed=1)
    law = make_table(2_000, seed=3)
    wrong = Table(features=law.features, labels=1 - law.labels)
    helped, harmed = measured(law, train), measured(wrong, train)
    for key in QUICK:
        alone, full = (augmentation_key(key, "auroc", "yes", alpha) for alpha in (0.0, 1.0))
        assert helped[full].value.value == pytest.approx(helped[full].ceiling.value, abs=0.05)
        assert helped[full].value.value > helped[alone].value.value - 0.02
        assert harmed[full].value.value < harmed[alone].value.value - 0.05


def test_without_training_patients_there_is_nothing_to_augment():
    assert measured(make_table(500, seed=3), None) == {}


def test_too_few_of_a_class_is_not_defined_with_its_reason():
    train = make_table(40, seed=1)
    found = measured(make_table(500, seed=3), Table(features=train.features, labels=np.zeros(40, dtype=np.int64)))
    assert (
        "0 of 20 patients in the smaller class" in found[augmentation_key("forest", "auroc", "yes", 0.0)].value.reason
    )
