"""``synclave augment`` as a person calls it, on codes and on time series."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synclave_server import augment_view
from synclave_server.cli import app
from synclave_shared.audit.console import run
from synclave_shared.canonical import canonical_bytes
from synclave_shared.data.modality import AnySchema, check_folder
from synclave_shared.data.origin import ALPHA, ORIGIN
from synclave_shared.data.patient_table import write_patient_table
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import write_cohort
from synclave_shared.data.tables import load_patients
from synclave_shared.errors import DataError
from tests.evaluation.test_evaluate import Page
from tests.models.small import small_dataset, small_schema
from tests.models.small_series import series_dataset, series_schema
from tests.sampling.conftest import snapshot as codes  # noqa: F401 - a fixture
from tests.sampling.test_series import stored


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("run") / "snapshot")


def answer(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    with pytest.raises(SystemExit) as left:
        run(app, ["augment", *(str(argument) for argument in arguments), "--json"])
    assert left.value.code == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def codes_files(folder: Path, **sizes: int) -> None:
    for seed, (name, size) in enumerate(sizes.items()):
        rows = small_dataset(size, seed)
        ids = [f"{name}{i}" for i in range(size)]
        write_patient_table(folder / f"{name}.parquet", small_schema(), rows.features[:], rows.labels, ids)


def unmarked(file: Path) -> None:
    """Take the column away that tells real from synthetic patients."""
    pq.write_table(pq.read_table(file).drop_columns([ORIGIN]), file)


def both_refuse(
    schema: AnySchema, training: Path, capsys: pytest.CaptureFixture[str], *, real: int, synthetic: int
) -> None:
    """Neither a training without privacy nor a site takes a training set of so many patients."""
    place, file = training.parent / "schema.json", "patients.parquet" if training.is_dir() else training.name
    place.write_bytes(canonical_bytes(schema))
    out = training.parent / "model"
    with pytest.raises(SystemExit) as left:
        run(app, ["pretrain", "--schema", str(place), "--data", str(training), "--out", str(out), "--steps", "1"])
    assert left.value.code == 1
    assert "wrong-origin" in capsys.readouterr().err
    assert not out.exists()
    assert check_folder(schema, training).fault_counts == {(file, ORIGIN, "wrong-origin"): synthetic}
    load = load_series if isinstance(schema, SeriesSchema) else load_patients
    with pytest.raises(DataError, match=f"{real} faults"):
        load(schema, training, "synthetic")  # type: ignore[arg-type]


def test_a_training_set_is_neither_public_nor_a_sites_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes_files(tmp_path, train=40)
    file = tmp_path / "train.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column(ORIGIN, pa.array(["real"] * 30 + ["synthetic"] * 10)), file)
    both_refuse(small_schema(), file, capsys, real=30, synthetic=10)


def test_codes_are_written_real_first_then_synthetic_by_alpha_and_read_back_as_a_cohort(
    codes: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    codes_files(tmp_path, north=90, south=60, held=300)
    out = tmp_path / "out"
    document = answer(
        capsys, "--snapshot", codes, "--train", tmp_path / "north.parquet", "--train", tmp_path / "south.parquet",
        "--held-out", tmp_path / "held.parquet", "--label", "outcome=yes:0.5", "--label", "outcome=no",
        "--alpha", 1, "--alpha", 0.2, "--draws", 2, "--out", out,
    )  # fmt: skip
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "report.html", "training.parquet"]
    assert document["training_set"] == str(out / "training.parquet")
    assert document["patients"] == {"real": 150, "held_out": 300, "added": 150}

    table = pq.read_table(out / "training.parquet")
    origin, alpha = (np.array(table[name].to_pylist()) for name in (ORIGIN, ALPHA))
    label = np.array(table["outcome"].to_pylist())
    assert origin.tolist() == ["real"] * 150 + ["synthetic"] * 150
    assert alpha.tolist() == [0.0] * 150 + [0.2] * 30 + [1.0] * 120
    for up_to, each in ((0.2, 15), (1.0, 75)):
        added = label[(origin == "synthetic") & (alpha <= up_to)]
        assert (added == "yes").sum() == (added == "no").sum() == each

    unmarked(out / "training.parquet")
    back = load_patients(small_schema(), out / "training.parquet")
    real = load_patients(small_schema(), tmp_path / "north.parquet")
    assert len(back) == 300
    assert (back.features[:90] == real.features[:]).all()
    assert back.patient_ids[:90] == real.patient_ids


def test_series_get_the_rarest_label_by_default_and_a_page_that_stands_alone(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size, seed in (("train", 120, 1), ("held", 200, 2)):
        dataset = series_dataset(size, seed)
        renamed = [f"{name}{i}" for i in range(size)]
        write_cohort(
            tmp_path / name,
            series_schema(),
            type(dataset)(**{f: getattr(dataset, f) for f in dataset.__slots__} | {"patient_ids": renamed}),
        )
    out = tmp_path / "out"
    document = answer(
        capsys, "--snapshot", series, "--train", tmp_path / "train", "--held-out", tmp_path / "held",
        "--alpha", 0.5, "--draws", 1, "--out", out,
    )  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["curves"] == document["curves"]
    assert [(curve["value"], curve["model"]) for curve in metrics["curves"]] == [
        ("yes", "logistic"),
        ("yes", "boosting"),
    ]
    assert [row["added"] for row in metrics["labels"]] == [0, 60]
    assert metrics["sampling"]["request"]["label_counts"] == {"no": 0, "yes": 60}

    both_refuse(series_schema(), out / "training", capsys, real=120, synthetic=60)
    assert set(pq.read_schema(out / "training" / "patients.parquet").names) >= {ORIGIN, ALPHA}
    unmarked(out / "training" / "patients.parquet")
    back = load_series(series_schema(), out / "training")
    assert len(back) == 180
    assert (back.labels[120:] == 1).all()
    before = load_series(series_schema(), tmp_path / "train")
    np.testing.assert_allclose(back.values[:120], before.values, atol=1e-6)

    html = (out / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    for key in ("auprc", "auroc", "brier", "ece"):
        assert f'<title id="{key}-alt">' in html


def test_a_patient_in_two_places_is_refused_and_nothing_is_left(
    codes: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes_files(tmp_path, train=40, held=50)
    common = ["--snapshot", codes, "--alpha", 1, "--draws", 1, "--out", tmp_path / "out"]
    train, held = ["--train", tmp_path / "train.parquet"], ["--held-out", tmp_path / "held.parquet"]
    refused = answer(capsys, *common, *train, "--held-out", tmp_path / "train.parquet", code=1)["error"]
    assert refused["found"].startswith("40 identifiers")
    answer(capsys, *common, *train, *held, "--label", "outcome=perhaps", code=1)
    answer(capsys, *common, *train, *held, "--guidance-strength", 1, code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held.parquet", "train.parquet"]

    answer(capsys, *common, *train, *held)
    unmarked(tmp_path / "out" / "training.parquet")
    monkeypatch.setattr(augment_view, "sample", lambda *_, **__: pytest.fail("patients were drawn"))
    again = ["--snapshot", codes, "--train", tmp_path / "out" / "training.parquet", *held]
    refused = answer(capsys, *again, "--draws", 1, "--out", tmp_path / "second", code=1)["error"]
    assert "earlier training set" in refused["remedy"]
    assert not (tmp_path / "second").exists()
