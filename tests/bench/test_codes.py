"""The benchmark of code tables on a small one, with our own contenders; no peer is installed for tests."""

import itertools
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from bench.codes import __main__ as bench
from bench.codes import edm, peers
from bench.codes.contenders import CONTENDERS, Sampler, noise_multipliers
from bench.codes.measures import MEASURES
from bench.codes.tables import CHAPTERS, BenchTable
from synclave_shared.privacy.accountant import epsilon as epsilon_of
from synclave_shared.privacy.mechanism import GaussianSum
from tests.models.small import small_dataset, small_schema


@pytest.fixture(scope="module")
def table() -> BenchTable:
    return BenchTable(
        name="small",
        schema=small_schema(),
        train=small_dataset(2_000, seed=1),
        site_of_patient=np.arange(2_000) % 8,
        test=small_dataset(1_000, seed=2),
    )


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: BenchTable) -> Path:
    monkeypatch.setattr(bench, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(bench, "TABLES", ("small",))
    monkeypatch.setattr(bench, "load_table", lambda name, folder: table)
    monkeypatch.setattr(peers, "python_of", lambda name: tmp_path / "none" / "python")
    return tmp_path


def forbidden(*_: object, **__: object) -> Sampler:
    pytest.fail("fitted again")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["codes", "--tables", "small", "--seeds", "0", *arguments])
    bench.main()


def test_all_stand_in_one_table_and_nothing_is_fitted_twice(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--contenders", "independent", "copula", "smartnoise-mst", "sdv-tvae", "--epsilon", "1", "inf")
    call(monkeypatch, *arguments)
    lines = (kept / "results" / "codes.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {len(MEASURES) + 4}
    shown = [(row[0].strip(), row[1].strip()) for row in rows[2:]]
    assert shown[:2] == [("", title) for title in bench.REAL.values()]
    assert [epsilon for epsilon, _ in shown[2:]] == ["1"] * 3 + ["infinity"] * 3
    failed = [row[2].strip() for row in rows if "MST" in row[1] or "TVAE" in row[1]]
    assert all(reason.startswith("not installed: python -m bench.codes.environments") for reason in failed)

    document = json.loads((kept / "results" / "codes.json").read_text(encoding="utf-8"))
    found = {(cell["contender"], cell["epsilon"]): cell["runs"][0] for cell in document["tables"]["small"]}
    floor, copula = found["floor", None]["measures"], found["copula", None]["measures"]
    assert copula["correlation"] > 0.8 > 0.3 > floor["correlation"]
    assert copula["discriminator"] < floor["discriminator"]
    assert found["copula", 1.0]["patients_per_s"] > 0

    capsys.readouterr()
    # What is not installed yet is tried again; everything else is kept.
    assert sorted(path.name for path in (kept / "kept" / "small").iterdir()) == [
        "ceiling-infinity-0.json",
        "copula-1-0.json",
        "copula-infinity-0.json",
        "floor-infinity-0.json",
        "independent-1-0.json",
        "independent-infinity-0.json",
    ]
    monkeypatch.setattr(bench, "CONTENDERS", {name: replace(CONTENDERS[name], fit=forbidden) for name in CONTENDERS})
    call(monkeypatch, *arguments)
    assert lines == (kept / "results" / "codes.md").read_text(encoding="utf-8").splitlines()


def test_no_time_left_begins_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measured", lambda *_: pytest.fail("begun"))
    call(monkeypatch, "--contenders", "independent", "--budget-s", "-1")
    assert not (kept / "kept").exists()


def test_the_noise_of_two_sums_together_costs_epsilon() -> None:
    multipliers = noise_multipliers(3.0, 1e-5, [0.4, 0.6])
    sums = [GaussianSum(noise_multiplier=Decimal(str(value)), clip_norm=Decimal(1)) for value in multipliers]
    assert 2.98 < epsilon_of(sums, 1e-5) <= 3.0
    assert multipliers[0] ** 2 / multipliers[1] ** 2 == pytest.approx(1.5, rel=1e-3)
    assert noise_multipliers(None, 1e-5, [0.4, 0.6]) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["independent", "copula", "copula-pooled"])
def test_a_sampler_repeats_itself_and_keeps_one_hot_groups(name: str, table: BenchTable) -> None:
    fit = CONTENDERS[name].fit
    sampler = fit(table.task(epsilon=3.0, delta=1e-5, seed=0))
    one, same, other = sampler(500, 0), sampler(500, 0), sampler(500, 1)
    assert np.array_equal(one.features[:], same.features[:])
    assert not np.array_equal(one.features[:], other.features[:])
    assert np.all(one.features[:][:, 9:12].sum(axis=1) == 1)


def test_the_published_reference_learns_that_codes_occur_together(
    table: BenchTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edm, "HIDDEN", (64, 64))
    monkeypatch.setattr(edm, "BATCH", 256)
    sampler = edm.fit_edm(table.task(epsilon=None, delta=1e-5, seed=0), steps=400)
    drawn = sampler(1_000, 0)
    assert np.corrcoef(drawn.features[:][:, :2].T)[0, 1] > 0.2


def test_a_plain_table_leads_back_to_the_same_patients(table: BenchTable) -> None:
    plain = peers.to_plain(table.test, table.schema)
    assert plain.column_names == [f"c{place}" for place in range(10)] + ["label"]
    back = peers.from_plain(plain, table.schema)
    assert np.array_equal(back.features[:], table.test.features[:])
    assert np.array_equal(back.labels, table.test.labels)


def test_chapters_do_not_overlap() -> None:
    ranges = sorted(pair for pairs in CHAPTERS.values() for pair in pairs)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
