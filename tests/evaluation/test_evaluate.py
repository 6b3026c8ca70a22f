import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from synclave_server.evaluation.comparison import Table
from synclave_server.evaluation.document import FORMAT
from synclave_server.evaluation.evaluate import evaluate
from synclave_server.evaluation.figure import canvas, drawing, plain_text, short_title
from synclave_shared.errors import DataError
from tests.evaluation.cohorts import CODES, HOSTILE, STAGES, dataset, make_schema, make_table
from tests.evaluation.runs import make_plan, write_run

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting, and collects what a test asks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A full report: training patients, a run of two sites, a hostile code name."""
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder / "run", [make_plan("toy", ("north", "south"), rounds=3)], {"north": 4, "south": 2})
    stages = []
    metrics = evaluate(
        make_schema(HOSTILE, ("no", HOSTILE[:60])),
        dataset(make_table(800, seed=1)),
        dataset(make_table(700, seed=2)),
        dataset(make_table(900, seed=3)),
        run,
        out=folder / "out",
        seed=4,
        progress=stages.append,
        sampling={"sampler": "heun", "steps": 20, "snapshot": {"digest": "ab" * 32}, "note": HOSTILE},
        targets=("code:c0", "code:c5"),
        sites={"north": dataset(make_table(300, seed=5), "n"), HOSTILE: dataset(make_table(60, seed=6), "h")},
    )
    return metrics, (folder / "out" / "report.html").read_text(encoding="utf-8"), folder / "out", stages


def test_metrics_file_is_what_is_returned_and_every_gap_has_its_reason(report):
    metrics, _, out, stages = report

    def refuse(constant):
        raise AssertionError(f"{constant} in metrics.json")

    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert written == metrics
    assert metrics["format"] == FORMAT
    at_sites = [m for site in metrics["sites"].values() for m in site["measures"].values()]
    for measure in [*metrics["measures"].values(), *at_sites]:
        for what in ("value", "ceiling", "floor"):
            reason = measure["reason" if what == "value" else f"{what}_reason"]
            assert (measure[what] is None) == (reason is not None)
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "report.html"]
    assert {"ledger", "prevalence", "figures and report"} <= set(stages)
    assert set(metrics["summary"]) <= set(metrics["measures"])


def test_the_page_needs_nothing_from_outside_and_runs_nothing(report):
    page = Page(report[1])
    assert not re.search(r"https?:|//[a-z]", report[1], flags=re.IGNORECASE)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#"), value
    assert "@import" not in report[1]
    for target in re.findall(r"url\(([^)]*)\)", report[1]):
        assert target.startswith("#"), target


def test_drawings_refer_to_parts_of_their_own_and_have_a_text(report):
    page = Page(report[1])
    assert len(page.ids) == len(set(page.ids))
    for name, value in page.attributes:
        if name == "href":
            assert value[1:] in page.ids
    pictures = ["prevalence", "real", "synthetic", "difference", "pairs", "labels", "auroc", "auprc", "epsilon"]
    pictures += ["targetslogistic", "targetsforest", "augmentedauroc", "augmentedauprc", "site0", "site1", "site2"]
    for key in pictures:
        assert f'aria-labelledby="{key}-alt"' in report[1]
        assert f'<title id="{key}-alt">' in report[1]


def test_colours_come_from_the_page_so_that_dark_and_print_work(report):
    figures = re.findall(r"<svg role=\"img\" aria-labelledby.*?</svg>", report[1], flags=re.DOTALL)
    assert figures
    for figure in figures:
        colours = set(re.findall(r"#[0-9a-f]{6}\b", figure)) - {"#000000"}
        assert not colours, colours
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", report[1]))
    light, dark = (report[1].split("@media screen and (prefers-color-scheme: dark)")[k] for k in (0, 1))
    for name in used:
        assert f"{name}:" in light
        assert f"{name}:" in dark


def test_hostile_names_are_text_in_the_page_and_plain_in_figures(report):
    _, html, _, _ = report
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "alert(" in " ".join(Page(html).text)
    assert plain_text(HOSTILE, 200).endswith('"&--> □')
    assert "\u202e" not in plain_text(HOSTILE, 200)


def test_the_report_says_what_was_spent_and_by_whom(report):
    metrics, html, _, _ = report
    sites = metrics["privacy"]["sites"]
    assert set(sites) == {"north", "south"}
    assert metrics["privacy"]["ledger_valid"] is True
    text = re.sub(r"\s+", " ", " ".join(Page(html).text))
    assert f"no site spent more than epsilon {sites['north']['epsilon'][-1]:.2f} at delta 10⁻⁵ (north" in text
    for digest in (metrics["privacy"]["plan_digest"], metrics["privacy"]["ledger_root"], metrics["schema"]["digest"]):
        assert digest in text
    assert "heun" in text
    assert "not itself differentially private" in text


def test_sites_stand_in_the_file_and_on_the_page_with_their_spread(report):
    metrics, html, _, _ = report
    assert list(metrics["sites"]) == ["north", HOSTILE]
    assert [site["patients"] for site in metrics["sites"].values()] == [300, 60]
    found = metrics["site_spread"]["prevalence_log_r2"]
    values = {name: site["measures"]["prevalence_log_r2"]["value"] for name, site in metrics["sites"].items()}
    assert found["lowest"]["value"] == min(values.values())
    assert f"Prevalence on a log scale, R²: from {found['lowest']['value']:.3f} (" in " ".join(Page(html).text)


def test_patients_of_a_site_who_are_trained_on_are_left_out(tmp_path):
    real, train = dataset(make_table(200, seed=1)), dataset(make_table(200, seed=3))
    synthetic = dataset(make_table(200, seed=2))
    metrics = evaluate(make_schema(), real, synthetic, train, out=tmp_path / "a", sites={"a": train, "b": real})
    assert metrics["sites"]["a"]["patients"] == 0
    assert metrics["sites"]["b"]["patients"] > 190
    halved = evaluate(make_schema(), real, synthetic, out=tmp_path / "b", sites={"b": real})
    assert halved["sites"]["b"]["patients"] == 100
    assert halved["sites"]["b"]["measures"]["prevalence_log_r2"]["ceiling"] < 1
    Page((tmp_path / "b" / "report.html").read_text(encoding="utf-8"))


def test_a_broken_ledger_is_the_first_thing_said_about_safety(tmp_path):
    run = write_run(tmp_path / "run", [make_plan("toy", ("north",), rounds=1)], {"north": 2}, budget="0.01")
    tables = [dataset(make_table(60, seed)) for seed in (1, 2)]
    metrics = evaluate(make_schema(), tables[0], tables[1], None, run, out=tmp_path / "out")
    assert metrics["privacy"]["ledger_valid"] is False
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "THE LEDGER DOES NOT VERIFY" in html
    assert "no site spent more than" not in html


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    cohorts = [dataset(make_table(200, seed)) for seed in (1, 2)]
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        evaluate(make_schema(), *cohorts, out=tmp_path / name, seed=seed)
    files = {name: [(tmp_path / name / f).read_bytes() for f in ("metrics.json", "report.html")] for name in "abc"}
    assert files["a"] == files["b"]
    assert files["a"][0] != files["c"][0]


def few(patients: int, labels: str) -> Table:
    table = make_table(patients, seed=patients)
    return table if labels == "both" else Table(features=table.features, labels=np.zeros(patients, np.int64))


@pytest.mark.parametrize(
    ("real", "synthetic", "train", "labels"),
    [
        (4, 2, None, "both"),
        (4, 2, 1, "one"),
        (4, 50, 30, "both"),
        (60, 3, None, "one"),
        (60, 3, 1, "both"),
        (60, 40, 30, "one"),
    ],
)
def test_few_patients_and_one_label_are_reported_and_do_not_crash(tmp_path, real, synthetic, train, labels):
    metrics = evaluate(
        make_schema(),
        dataset(few(real, labels)),
        dataset(few(synthetic, labels)),
        dataset(few(train, labels)) if train else None,
        out=tmp_path,
    )
    assert metrics["measures"]["correlation_pearson"]["value"] is None
    assert metrics["measures"]["tstr_logistic_auroc[yes]"]["reason"]
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("fill", [0, 1])
def test_cohorts_in_which_all_patients_are_alike_do_not_crash(tmp_path, fill):
    table = Table(features=np.full((80, CODES + len(STAGES)), fill, np.uint8), labels=np.arange(80, dtype=np.int64) % 2)
    table.features[:, CODES:] = np.eye(len(STAGES), dtype=np.uint8)[0]
    metrics = evaluate(make_schema(), dataset(table), dataset(table), dataset(table), out=tmp_path)
    assert metrics["measures"]["correlation_pearson"]["reason"]
    assert metrics["measures"]["copies_of_training"]["value"] == 1.0
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_three_label_values_have_a_task_each(tmp_path):
    schema = make_schema(labels=("home", "ward", "hospice", "dead"))
    cohorts = [dataset(make_table(500, seed, values=4)) for seed in (1, 2)]
    metrics = evaluate(schema, *cohorts, out=tmp_path)
    for value in ("home", "ward", "hospice", "dead"):
        assert f"tstr_boosting_auprc[{value}]" in metrics["measures"]
    assert sum(share["real"] for share in metrics["label_balance"]) == pytest.approx(1)


@pytest.mark.parametrize("fault", ["width", "label", "few"])
def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, fault):
    table = make_table(50, seed=1)
    features, labels = table.features.copy(), table.labels.copy()
    if fault == "width":
        features = features[:, :-1]
    elif fault == "label":
        labels[0] = 7
    else:
        features, labels = features[:1], labels[:1]
    wrong = dataset(Table(features=features, labels=labels))
    with pytest.raises(DataError):
        evaluate(make_schema(), dataset(table), wrong, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_titles_are_cut_where_they_say_least():
    assert short_title("Specialty of the physician: Cardiology", 24) == "Specialty o\u2026: Cardiology"
    assert short_title("A" * 40 + ": " + "b" * 60, 36) == "b" * 35 + "\u2026"
    assert short_title("Insulin: Steady", 36) == "Insulin: Steady"


def test_a_drawing_leaves_no_trace_in_matplotlib_and_no_address_in_the_svg():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with canvas(2, 2) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1])
        drawn = drawing(figure, "k", '<b>"alt"', "caption")
    assert dict(matplotlib.rcParams) == before
    assert "http" not in drawn.svg
    assert "&lt;b&gt;" in drawn.svg
    assert "xmlns" not in drawn.svg


def test_the_epsilon_of_a_run_is_not_stated_for_patients_of_another(tmp_path):
    run = write_run(tmp_path / "run", [make_plan("toy", ("north",), rounds=1)], {"north": 2})
    tables = [dataset(make_table(60, seed)) for seed in (1, 2)]
    foreign = {"plan_digest": "0" * 64}
    with pytest.raises(DataError, match="plan 0000"):
        evaluate(make_schema(), tables[0], tables[1], None, run, out=tmp_path / "out", sampling=foreign)
    assert not (tmp_path / "out").exists()
    evaluate(make_schema(), tables[0], tables[1], None, run, out=tmp_path / "out")
    assert "carry no provenance" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
