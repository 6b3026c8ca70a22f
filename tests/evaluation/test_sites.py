import numpy as np
import pytest

from synclave_server.evaluation.comparison import Table, compare
from synclave_server.evaluation.sites import code_rows, site_results, spread, unseen, who
from tests.evaluation.cohorts import CODES, dataset, make_schema, make_table

GROUPS = make_schema().groups
VALUES = ("no", "yes")


def unusual(patients: int, seed: int) -> Table:
    """A hospital that codes in its own way: the common codes are rare there, and rare ones common."""
    table = make_table(patients, seed)
    order = np.r_[np.arange(CODES)[::-1], np.arange(CODES, table.features.shape[1])]
    return Table(features=table.features[:, order], labels=table.labels)


def measured(sites: dict[str, Table], synthetic: Table):
    real = make_table(1_500, seed=2)
    comparison = compare(real, synthetic, make_table(1_500, seed=1), GROUPS, np.random.default_rng(0))
    return site_results(comparison, sites, code_rows(GROUPS), "died", VALUES, 0, lambda _: None)


def test_a_site_with_shifted_prevalences_stands_out_in_value_and_ceiling():
    sites = {"north": make_table(800, seed=5), "south": make_table(800, seed=6), "harbour": unusual(800, seed=7)}
    results = measured(sites, make_table(1_500, seed=3))
    by_name = {r.name: {m.key: m for m in r.measures} for r in results}
    for key in ("prevalence_log_r2", "correlation_pearson"):
        for name in ("north", "south"):
            assert by_name[name][key].value.value > 0.8
            assert by_name[name][key].of_ceiling == pytest.approx(1, abs=0.05)
        assert by_name["harbour"][key].value.value < 0.6
        assert by_name["harbour"][key].ceiling.value < 0.6
        found = spread(results)[key]
        assert (found["sites"], found["lowest"]["site"]) == (3, "harbour")
        assert found["lowest"]["value"] == by_name["harbour"][key].value.value


def test_a_model_that_lost_a_site_falls_below_the_ceiling_there():
    sites = {"north": make_table(800, seed=5), "harbour": unusual(800, seed=7)}
    half = [make_table(700, seed=1), unusual(700, seed=8)]
    train = Table(features=np.concatenate([t.features for t in half]), labels=np.concatenate([t.labels for t in half]))
    comparison = compare(make_table(900, seed=2), make_table(1_400, seed=3), train, GROUPS, np.random.default_rng(0))
    results = site_results(comparison, sites, code_rows(GROUPS), "died", VALUES, 0, lambda _: None)
    by_name = {r.name: {m.key: m for m in r.measures} for r in results}
    for key in ("correlation_pearson", "tstr_logistic_auroc[yes]"):
        assert spread(results)[key]["lowest_of_ceiling"]["site"] == "harbour"
        assert by_name["harbour"][key].of_ceiling < 0.8
        assert by_name["north"][key].of_ceiling > 0.95


def test_the_reference_itself_is_a_site_without_difference_to_the_whole():
    real = make_table(1_500, seed=2)
    (whole,) = measured({"all": real}, real)
    assert whole.patients == 1_500
    values = {m.key: m.value.value for m in whole.measures}
    assert values["prevalence_log_r2"] == 1.0
    assert values["correlation_pearson"] == pytest.approx(1.0)


def test_a_handful_of_patients_is_reported_with_its_reason():
    results = measured({"tiny": make_table(3, seed=1), "north": make_table(400, seed=5)}, make_table(500, seed=3))
    tiny = {m.key: m for m in results[0].measures}
    assert "3 patients of this site" in tiny["prevalence_log_r2"].value.reason
    assert all(m.value.value is None for m in results[0].measures)
    assert spread(results) == {}
    assert measured({}, make_table(500, seed=3)) == []


def test_nobody_is_measured_against_himself_and_a_shared_number_alone_is_no_shared_patient():
    site, other = dataset(make_table(60, seed=1)), dataset(make_table(60, seed=2))
    assert len(unseen(who(site), who(site)[:20])) == 40
    same = (site.features[:] == other.features[:]).all(axis=1) & (site.labels == other.labels)
    assert len(unseen(who(site), who(other))) == 60 - same.sum()
