import json
import re

import numpy as np
import pytest
from rich.console import Console

from synclave_server.evaluate_view import run_evaluation
from synclave_server.evaluation.document import FORMAT
from synclave_server.evaluation.series import recurrent
from synclave_server.evaluation.series.evaluate import evaluate_series
from synclave_shared.data.series.table import write_cohort
from synclave_shared.errors import ConfigurationError, DataError
from tests.evaluation.cohorts import HOSTILE
from tests.evaluation.runs import make_plan, write_run
from tests.evaluation.series_cohorts import changed, make_series, make_series_schema
from tests.evaluation.test_evaluate import Page

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    """Networks that learn little: what they score is tested elsewhere."""
    monkeypatch.setattr(recurrent, "STEPS", 5)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A full report: training patients, a run, two sites, a hostile name of a channel."""
    folder = tmp_path_factory.mktemp("series")
    run = write_run(folder / "run", [make_plan("toy", ("north", "south"), rounds=3)], {"north": 4, "south": 2})
    train = make_series(260, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrent, "STEPS", 5)
        metrics = evaluate_series(
            make_series_schema(HOSTILE),
            make_series(250, seed=1),
            make_series(240, seed=2),
            train,
            run,
            out=folder / "out",
            seed=4,
            sampling={"sampler": "heun", "note": HOSTILE},
            sites={"north": make_series(120, seed=5), HOSTILE: train.select(np.arange(40))},
        )
    return metrics, (folder / "out" / "report.html").read_text(encoding="utf-8"), folder / "out"


def test_metrics_file_is_what_is_returned_and_every_gap_has_its_reason(report):
    metrics, _, out = report

    def refuse(constant):
        raise AssertionError(f"{constant} in metrics.json")

    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse) == metrics
    assert (metrics["format"], metrics["schema"]["modality"]) == (FORMAT, "series")
    at_sites = [m for site in metrics["sites"].values() for m in site["measures"].values()]
    for measure in [*metrics["measures"].values(), *at_sites]:
        for what in ("value", "ceiling", "floor"):
            reason = measure["reason" if what == "value" else f"{what}_reason"]
            assert (measure[what] is None) == (reason is not None)
    assert [row["channel"] for row in metrics["channels"]] == [c.name for c in make_series_schema().channels]
    assert metrics["channels"][0]["real"]["mean"] == pytest.approx(100, abs=15)
    assert set(metrics["summary"]) > {"wasserstein", "next_step_mae", "tstr_boosting_auroc[yes]"}
    assert metrics["privacy"]["ledger_valid"] is True
    assert "augmented_boosting_auprc[yes, 0.2]" in metrics["measures"]


def test_patients_of_a_site_who_are_trained_on_are_left_out(report):
    assert [site["patients"] for site in report[0]["sites"].values()] == [120, 0]


def test_the_page_is_whole_needs_nothing_from_outside_and_shows_every_picture(report):
    html = report[1]
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"https?:|//[a-z]", html, flags=re.IGNORECASE)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert "<script" not in html
    pictures = ["coursesreal", "coursessynthetic", "distributions", "observed", "autocorrelation", "stays"]
    pictures += ["real", "synthetic", "difference", "pairs", "auroc", "auprc", "labels", "epsilon"]
    for key in [*pictures, "augmentedauroc", "augmentedauprc", "site0", "site1", "site2"]:
        assert f'<title id="{key}-alt">' in html
    for figure in re.findall(r"<svg role=\"img\" aria-labelledby.*?</svg>", html, flags=re.DOTALL):
        assert not set(re.findall(r"#[0-9a-f]{6}\b", figure)) - {"#000000"}
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert "courses of 4 single real patients" in text
    assert "4 channels at 12 steps" in text


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    cohorts = [make_series(80, seed) for seed in (1, 2)]
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        evaluate_series(make_series_schema(), *cohorts, out=tmp_path / name, seed=seed)
    files = {name: [(tmp_path / name / f).read_bytes() for f in ("metrics.json", "report.html")] for name in "abc"}
    assert files["a"] == files["b"]
    assert files["a"][0] != files["c"][0]


@pytest.mark.parametrize("case", ["few", "one-label", "nothing-observed", "one-step"])
def test_little_to_go_by_is_reported_and_does_not_crash(tmp_path, case):
    steps = 1 if case == "one-step" else 12
    sizes = (4, 2, 1) if case == "few" else (60, 40, 40)
    cohorts = [make_series(size, seed, steps=steps) for size, seed in zip(sizes, (1, 2, 3), strict=True)]
    if case == "one-label":
        cohorts = [changed(cohort, labels=np.zeros(len(cohort), np.int64)) for cohort in cohorts]
    if case == "nothing-observed":
        cohorts = [changed(cohort, observed=np.zeros_like(cohort.observed)) for cohort in cohorts]
    metrics = evaluate_series(make_series_schema(steps=steps), *cohorts, out=tmp_path)
    reasons = {key: measure["reason"] for key, measure in metrics["measures"].items()}
    expected = {
        "few": ("wasserstein", "correlation_pearson", "membership_auroc", "next_step_mae"),
        "one-label": ("tstr_recurrent_auroc[yes]", "tstr_logistic_brier[yes]"),
        "nothing-observed": ("wasserstein", "autocorrelation_mae", "next_step_mae", "observations_wasserstein"),
        "one-step": ("autocorrelation_mae", "next_step_mae"),
    }
    for key in expected[case]:
        assert reasons[key], key
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("fault", ["steps", "label", "few"])
def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, fault):
    wrong = make_series(50, seed=2, steps=11 if fault == "steps" else 12)
    if fault == "label":
        wrong = changed(wrong, labels=wrong.labels + 2)
    if fault == "few":
        wrong = wrong.select(np.arange(1))
    with pytest.raises(DataError):
        evaluate_series(make_series_schema(), make_series(50, seed=1), wrong, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folders(tmp_path):
    schema = make_series_schema()
    (tmp_path / "schema.json").write_bytes(schema.to_json_bytes())
    note = json.dumps({"sampler": "heun"})
    for name, seed in (("north", 1), ("south", 2), ("train", 3), ("synthetic", 4)):
        notes = {"synclave.provenance": note} if name == "synthetic" else {}
        write_cohort(tmp_path / name, schema, make_series(70, seed), notes)
    return tmp_path


def evaluated(folder, real=("north", "south"), targets=()):
    return run_evaluation(
        folder / "schema.json",
        [folder / name for name in real],
        folder / "synthetic",
        [folder / "train"],
        None,
        out=folder / "out",
        seed=0,
        targets=targets,
        sites={name: folder / name for name in ("north", "south")},
        console=QUIET,
    )


def test_the_command_sees_from_the_schema_that_these_are_series_and_takes_the_folders_of_two_hospitals(folders):
    document = evaluated(folders)
    metrics = json.loads((folders / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["cohorts"]["real"] == 140
    assert metrics["sampling"] == {"sampler": "heun"}
    assert {name: site["patients"] for name, site in metrics["sites"].items()} == {"north": 70, "south": 70}
    assert {"wasserstein", "next_step_mae", "tstr_recurrent_auroc[yes]"} <= set(document["measures"])
    assert "tstr_recurrent_brier[yes]" not in document["measures"]


def test_targets_and_a_folder_given_twice_are_refused(folders):
    with pytest.raises(ConfigurationError, match="--target"):
        evaluated(folders, targets=("ward:medical",))
    with pytest.raises(DataError, match="in two of them"):
        evaluated(folders, real=("north", "north"))
    assert not (folders / "out").exists()
