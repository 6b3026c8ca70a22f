"""The benchmark of time series on a small data set, with peers and our own arms that train for a few steps."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench.series import __main__ as bench
from bench.series import arms, ddpm, fits, report
from bench.series import data as tasks
from bench.series.folder import SeriesFolder, load_folder
from bench.series.measures import MEASURES
from bench.series.peers import PEERS
from bench.series.rows import from_rows, to_rows
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.errors import DataError
from tests.models.small_series import series_dataset, series_schema

EXAMPLE = Path(__file__).parents[2] / "examples" / "sepsis"


class Steps:
    """A clock that counts how often it is looked at."""

    def __init__(self, limit: int) -> None:
        self.limit, self.seen = limit, 0

    def over(self, share: float = 1.0) -> bool:
        self.seen += 1
        return self.seen > share * self.limit


def small_folder() -> SeriesFolder:
    everyone = series_dataset(420, 1)
    north, south, held_out = (everyone.select(rows) for rows in np.split(np.arange(420), [150, 300]))
    return SeriesFolder(
        name="small", schema=series_schema(), sites={"north": north, "south": south}, held_out_sites={"all": held_out}
    )


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(bench, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(bench, "PICTURE", tmp_path / "images" / "series.png")
    monkeypatch.setattr(bench, "load_folder", lambda folder: small_folder())
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["series", "--data", "small", "--seeds", "0", "--limit-s", "0.2", *arguments])
    bench.main()


def forbidden(*_: object, **__: object) -> Any:
    pytest.fail("fitted again")


def test_all_stand_in_one_table_and_nothing_is_fitted_twice(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "fit_generator", partial(fits.fit_generator, steps=2))
    monkeypatch.setattr(fits, "COMPLETIONS", 1)
    call(monkeypatch, "--arms", "timevae", "label")
    lines = (kept / "results" / "series.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    summary, table = rows[:6], rows[6:]
    titles = [
        "other real patients (ceiling)",
        "independent channels (floor)",
        "TimeVAE, re-implemented",
        "label only (ours)",
    ]
    assert [row[0].strip() for row in summary[2:]] == titles
    assert {len(row) for row in table} == {len(MEASURES) + 5}
    assert [row[1].strip().partition(" (")[0] for row in table[2:]] == [title.partition(" (")[0] for title in titles]
    assert (kept / "images" / "series.png").stat().st_size > 0

    document = json.loads((kept / "results" / "series.json").read_text(encoding="utf-8"))
    found = {line["arm"]: line["runs"][0] for line in document["tasks"]["small"]}
    ceiling, floor = found["ceiling"]["measures"], found["floor"]["measures"]
    assert ceiling["autocorrelation"] < 0.1 < 0.9 < floor["autocorrelation"]
    assert ceiling["discriminator"] < 0.65 < floor["discriminator"]
    assert found["timevae"]["fit_s"] >= 0.2
    assert found["label"]["patients_per_cpu_s"] > 0
    assert found["label"]["data"]["sites"] == {"north": 150, "south": 150}

    monkeypatch.setattr(bench, "peer_cohort", forbidden)
    monkeypatch.setattr(bench, "our_cohorts", forbidden)
    call(monkeypatch, "--arms", "timevae", "label")
    # What is kept is shown, whatever was asked for.
    call(monkeypatch, "--arms")
    assert lines == (kept / "results" / "series.md").read_text(encoding="utf-8").splitlines()

    monkeypatch.setattr(bench, "measured", lambda data, judge, arms, *_: iter([(arms[0], found["floor"])]))
    call(monkeypatch, "--arms", "timevae", "label", "--again", "timevae")
    again = json.loads((kept / "kept" / "small" / "timevae-infinity-0.json").read_text(encoding="utf-8"))
    assert again["measures"] == floor


def test_no_time_left_begins_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measured", lambda *_: pytest.fail("begun"))
    call(monkeypatch, "--budget-s", "-1")
    assert not (kept / "kept").exists()
    assert not (kept / "results").exists()


def test_peers_stand_without_noise_only() -> None:
    chosen = list(bench.batches(["timegan", "label", "influence"], [1.0, None]))
    assert chosen == [
        (["ceiling"], None),
        (["floor"], None),
        (["label", "influence"], 1.0),
        (["timegan"], None),
        (["label", "influence"], None),
    ]


def test_rows_of_peers_lead_back_to_the_same_patients() -> None:
    patients, schema = series_dataset(200, 1), series_schema()
    rows = to_rows(patients, 2)
    assert rows.values.shape == (200, 6, 3)
    assert rows.flags.shape == (200, 6, 3 + 1 + 2)
    back = from_rows(schema, rows, rows.values, rows.flags, patients.labels)
    assert np.array_equal(back.observed, patients.observed)
    assert np.array_equal(back.lengths, patients.lengths)
    assert np.array_equal(back.static, patients.static)
    assert np.abs(back.values - patients.values).max() < 0.01


def drawers(name: str, steps: int) -> Callable[[int], SeriesDataset]:
    """From a seed to half patients without and half with the label."""
    rows = to_rows(series_dataset(300, 1), 2)
    fitted = PEERS[name][1](rows, Steps(steps), 0)  # type: ignore[arg-type]
    assert 0 < fitted.steps <= steps
    labels = np.repeat([0, 1], 100)
    one_hot = torch.from_numpy(np.eye(2, dtype=np.float32)[labels])

    def draw(seed: int) -> SeriesDataset:
        values, flags = fitted.draw(one_hot, torch.Generator().manual_seed(seed))
        return from_rows(series_schema(), rows, values, flags, labels)

    return draw


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_repeats_itself_and_draws_anew(name: str) -> None:
    draw = drawers(name, 8)
    one, same, other = draw(0), draw(0), draw(1)
    assert np.array_equal(one.values, same.values)
    assert not np.array_equal(one.values, other.values)
    assert np.all(one.static.sum(axis=1) == 1)


@pytest.mark.parametrize(("name", "steps"), [("timevae", 150), ("ddpm", 100)])
def test_a_peer_learns_what_the_label_says(name: str, steps: int) -> None:
    drawn = drawers(name, steps)(0)
    seen = drawn.observed[:, :, 2].astype(bool)
    means = [drawn.values[:, :, 2][seen & (drawn.labels == label)[:, None]].mean() for label in (0, 1)]
    assert means[1] - means[0] > 0.05


def test_ddim_draws_the_gaussian_whose_noise_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of fewer steps the deviation comes out too small: that is what they cost.
    monkeypatch.setattr(ddpm, "DDIM_STEPS", ddpm.LEVELS)
    alpha_bar = torch.cumprod(1 - torch.linspace(5e-4**0.5, 0.1**0.5, ddpm.LEVELS) ** 2, dim=0)
    mean, deviation = 1.0, 0.5

    def noise(state: torch.Tensor, level: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        kept = alpha_bar[level][:, None, None]
        variance = kept * deviation**2 + 1 - kept
        return (1 - kept).sqrt() * (state - kept.sqrt() * mean) / variance

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4_000, 1, 4, generator=generator)
    drawn = ddpm.ddim(noise, torch.zeros(4_000, 2), start, alpha_bar, generator)  # type: ignore[arg-type]
    # Five standard errors of 16,000 numbers; the deviation lacks a hundredth at 200 steps.
    assert drawn.mean().item() == pytest.approx(mean, abs=0.02)
    assert drawn.std().item() == pytest.approx(deviation, rel=0.04)


def test_a_task_is_split_by_patient_and_has_its_own_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patients, hours = (
        pq.read_table(EXAMPLE / "sites" / "hospital-a" / f"{name}.parquet") for name in ("patients", "hours")
    )
    patients = patients.append_column("old", pa.array((patients["Age"].to_numpy() > 60).astype(np.int8)))

    def read(source: Path) -> Any:
        names = patients["patient_id"].to_pylist()
        site_of = {name: f"ward-{number % 2}" for number, name in enumerate(names)}
        return tasks.owned({"patients": patients, "hours": hours}, "patient_id"), site_of

    task = tasks.Task(schema="sepsis/schema.toml", label=("old", "Over 60", "patients"), read=read, held_out=0.2)
    monkeypatch.setattr(tasks, "TASKS", {"age": task})
    tasks.make_task("age", tmp_path, tmp_path)
    made = load_folder(tmp_path / "age")
    assert (made.name, made.schema.label.name) == ("age", "old")
    assert sorted(made.sites) == ["ward-0", "ward-1"]
    train, held_out = set(made.train.patient_ids), set(made.held_out.patient_ids)
    assert not train & held_out
    assert len(train | held_out) == len(patients)
    assert len(held_out) == pytest.approx(0.2 * len(patients), abs=1)
    old = dict(zip(map(str, patients["patient_id"].to_pylist()), patients["old"].to_pylist(), strict=True))
    assert [old[name] for name in made.held_out.patient_ids] == made.held_out.labels.tolist()


@pytest.mark.parametrize("name", tasks.TASKS)
def test_the_schemas_of_the_tasks_have_one_label_to_replace(name: str) -> None:
    text = (tasks.EXAMPLES / tasks.TASKS[name].schema).read_text(encoding="utf-8")
    assert len(tasks.LABEL.findall(text)) == 1


def test_a_schema_of_codes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_bytes((EXAMPLE.parent / "heart" / "schema.toml").read_bytes())
    with pytest.raises(DataError, match="a schema of time series"):
        load_folder(tmp_path)


def test_lines_without_figures_do_not_stop_the_report() -> None:
    facts = small_folder().facts
    cell = {"data": facts, "measures": dict.fromkeys(MEASURES), "fit_s": 1.0, "patients_per_cpu_s": math.pi}
    text = report.markdown({"small": {("timegan", "infinity"): [cell]}})
    assert next(line for line in text if "TimeGAN" in line) == "| TimeGAN, re-implemented | - |"
