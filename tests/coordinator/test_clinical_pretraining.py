"""A clinical model of patients whom anybody may see: trained, stored, and the start of plans that need one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from synclave_server.clinical_pretraining import pretrain_classifier
from synclave_server.preparation import looked_up
from synclave_server.warm_start import read_start
from synclave_shared.canonical import canonical_bytes
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import write_cohort
from synclave_shared.errors import DataError, PlanError
from synclave_shared.model_spec import AnyModel
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.standard import StandardRows
from synclave_shared.models.stored.public_model import read_public_model
from synclave_shared.plan import ClassifierSpec, InfluenceSpec, ScoresSpec, SeriesSpec
from synclave_shared.protocol import decode_model
from tests.coordinator.test_commands import HEART, answer, call
from tests.models.installed import as_in_a_new_process, documented, lay_down
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_schema

SCHEMA = series_schema()


def area(dataset: SeriesDataset, spec: ClassifierSpec, vector: np.ndarray, anchor: SeriesAnchor) -> float:
    """AUROC on some patients."""
    network = build_series_classifier(SERIES_LAYOUT, spec)
    load_parameter_vector(network, vector)
    seen = StandardRows.of(dataset, np.arange(len(dataset)), anchor, SERIES_LAYOUT)
    parts = [torch.from_numpy(part) for part in (seen.values, seen.observed, seen.context, seen.inside)]
    with torch.no_grad():
        logits = network(*parts).numpy()
    return float(roc_auc_score(dataset.labels, logits[:, 1] - logits[:, 0]))


@pytest.mark.parametrize("architecture", ["logistic", "tcn"])
def test_what_is_learnt_of_some_patients_holds_for_others_and_again_the_same(architecture: str) -> None:
    spec = ClassifierSpec.model_validate({"architecture": architecture, "width": 32, "blocks": 1})
    train, others = series_dataset(600, seed=1), series_dataset(600, seed=2)
    told: list[float] = []
    model = pretrain_classifier(SCHEMA, train, spec, steps=120, progress=lambda _, loss: told.append(loss))
    anchor = SeriesAnchor.from_vector(model.anchor, SERIES_LAYOUT)
    assert area(others, spec, model.parameters, anchor) > 0.72
    assert told[-1] < told[0]
    assert model.label_shares == pytest.approx([1 - train.labels.mean(), train.labels.mean()], abs=1e-4)
    again = pretrain_classifier(SCHEMA, train, spec, steps=120)
    assert np.array_equal(model.parameters, again.parameters)
    other = pretrain_classifier(SCHEMA, train, spec, steps=120, seed=1)
    assert not np.array_equal(model.parameters, other.parameters)


def test_nobody_teaches_nothing() -> None:
    with pytest.raises(DataError, match="at least one patient"):
        pretrain_classifier(SCHEMA, series_dataset(10).select(np.arange(0)), ClassifierSpec(), steps=1)


def test_a_label_value_that_nobody_has_is_refused_and_one_that_few_have_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everybody = series_dataset(200)
    without, positive = (np.flatnonzero(everybody.labels == value) for value in (0, 1))
    with pytest.raises(DataError, match="none with yes"):
        pretrain_classifier(SCHEMA, everybody.select(without), ClassifierSpec(), steps=1)
    (tmp_path / "schema.json").write_bytes(canonical_bytes(SCHEMA))
    write_cohort(tmp_path / "few", SCHEMA, everybody.select(np.sort(np.append(without, positive[:3]))))
    arguments = ("--schema", tmp_path / "schema.json", "--data", tmp_path / "few", "--steps", 1)
    assert call("pretrain", *arguments, "--out", tmp_path / "model") == 0
    assert "Only 3 patients with died = yes" in "".join(capsys.readouterr())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The schema's file, and a synthetic cohort as the sampler writes it."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "schema.json").write_bytes(canonical_bytes(SCHEMA))
    write_cohort(folder / "cohort", SCHEMA, series_dataset(120))
    return folder / "schema.json", folder / "cohort"


def test_a_cohort_becomes_the_clinical_model_with_which_plans_begin(
    stored: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema, cohort = stored
    arguments = ("--schema", schema, "--data", cohort, "--steps", 5)
    document = answer(capsys, "pretrain", *arguments, "--out", tmp_path / "model")
    model = read_public_model(tmp_path / "model")
    assert model.record.model == ClassifierSpec()
    assert (document["training"]["patients"], document["training"]["steps"]) == (120, 5)
    for spec in (ScoresSpec(), InfluenceSpec(), ClassifierSpec()):
        start = read_start(tmp_path / "model", schema=SCHEMA, spec=spec, anchored=False)
        known = np.concatenate([model.model, model.anchor, model.label_shares])
        assert np.array_equal(decode_model(start, known.size), known)
    other = SeriesSchema.model_validate({**SCHEMA.model_dump(), "name": "another"})
    wrong: list[tuple[Any, AnyModel, str]] = [
        (other, ScoresSpec(), "schema another"),
        (SCHEMA, ScoresSpec(architecture="tcn"), "architecture = tcn"),
        (SCHEMA, SeriesSpec(), "kind = series"),
    ]
    for about, spec, complaint in wrong:
        with pytest.raises(PlanError, match=complaint):
            read_start(tmp_path / "model", schema=about, spec=spec, anchored=True)


def test_an_installed_model_is_looked_up_and_plans_begin_with_no_other_version_of_it(
    stored: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema, cohort = stored
    code, about = documented()
    lay_down(tmp_path / "packages", code, **about)
    arguments = ("--schema", schema, "--data", cohort, "--steps", 2, "--architecture", about["name"])
    with as_in_a_new_process(tmp_path / "packages", "worst_values"):
        answer(capsys, "pretrain", *arguments, "--out", tmp_path / "model")
        spec = looked_up(ScoresSpec(architecture=about["name"]), SCHEMA)
        assert isinstance(spec, ScoresSpec)
        assert spec.installed == read_public_model(tmp_path / "model").record.model.installed  # type: ignore[union-attr]
        assert spec.installed is not None
        read_start(tmp_path / "model", schema=SCHEMA, spec=spec, anchored=False)
        newer = spec.model_copy(update={"installed": spec.installed.model_copy(update={"version": "2.0"})})
        with pytest.raises(PlanError, match="installed"):
            read_start(tmp_path / "model", schema=SCHEMA, spec=newer, anchored=False)
    answer(capsys, "pretrain", *arguments, "--out", tmp_path / "other", code=1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(("--corruption", "masked"), "corruption"), (("--coupled-columns", 0), "coupled"), (("--width", 40), "width")],
)
def test_what_belongs_to_codes_or_to_no_model_is_refused(
    stored: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[Any, ...],
    complaint: str,
) -> None:
    schema, cohort = stored
    arguments = ("--schema", schema, "--data", cohort, "--architecture", "tcn", "--out", tmp_path / "model")
    refused = answer(capsys, "pretrain", *arguments, *options, code=1)
    assert complaint in refused["error"]["found"]
    codes = ("--schema", HEART / "schema.toml", "--data", HEART, "--architecture", "tcn", "--out", tmp_path / "codes")
    assert "architecture" in answer(capsys, "pretrain", *codes, code=1)["error"]["found"]
    assert not list(tmp_path.iterdir())
