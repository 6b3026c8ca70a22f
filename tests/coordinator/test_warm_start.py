"""From public patients to the start of a training: stored, named by the plan, refused where it does not belong."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synclave_server.aggregate import ServerState
from synclave_server.preparation import prepare_run, read_draft
from synclave_server.pretraining import PretrainedModel
from synclave_server.public_model import write_public_model
from synclave_server.snapshots import write_snapshot
from synclave_server.warm_start import read_start
from synclave_shared.data.schema import Schema
from synclave_shared.errors import PlanError, SnapshotError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.model_size import parameters_of
from synclave_shared.models.codes import parameter_count
from synclave_shared.models.series.anchor import usual_anchor
from synclave_shared.models.stored.public_model import PublicTraining, read_public_model
from synclave_shared.plan import ModelSpec, SeriesSpec
from tests.coordinator.test_commands import HEART, answer, call
from tests.federation.hospitals import make_plan
from tests.models.small_series import SERIES_LAYOUT, series_plan, series_schema

SITE = SigningKey.from_seed(b"s" * 32).public_text
SCHEMA = Schema.load(HEART / "schema.toml")
DATA = HEART / "sites" / "cleveland-clinic"
PLAN = """
name = "heart"
schema = "{schema}"
[model]
width = {width}
coupled_columns = {coupled}
[privacy]
noise_multiplier = 2
selection_rate = 0.2
{marginals}
[federation]
rounds = 1
steps_per_round = 2
[warm_start]
model = "{model}"
[site_defaults]
nominal_patients = 200
"""
MARGINALS = "[privacy.marginals]\nnoise_multiplier = 4"


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of width 8 with all couplings."""
    out = tmp_path_factory.mktemp("public") / "model"
    arguments = ("--schema", HEART / "schema.toml", "--data", DATA, "--out", out, "--width", 8, "--steps", 3)
    assert call("pretrain", *arguments) == 0
    return out


def plan_file(folder: Path, **changes: Any) -> Path:
    values = {"schema": HEART / "schema.toml", "width": 8, "coupled": 2048, "marginals": MARGINALS, "model": "model"}
    path = folder / "plan.toml"
    path.write_text(PLAN.format(**(values | changes)), encoding="utf-8")
    return path


def test_a_public_model_says_what_it_was_trained_on(public: Path) -> None:
    model = read_public_model(public)
    assert model.model.shape == (parameter_count(SCHEMA, model.record.model),)
    assert model.anchor.shape == (len(SCHEMA.label.values), SCHEMA.width)
    assert model.label_shares.sum() == pytest.approx(1)
    assert model.record.schema_digest == SCHEMA.digest
    assert model.record.model == ModelSpec(width=8)
    assert (model.record.training.patients, model.record.training.steps) == (227, 3)
    assert model.record.training.files == ("patients.csv",)
    assert {path.name for path in public.iterdir()} == {"model.safetensors", "public-model.json", "schema.json"}


def test_the_command_answers_in_one_document_and_the_same_again(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--schema", HEART / "schema.toml", "--data", DATA / "patients.csv", "--width", 8, "--steps", 3)
    document = answer(capsys, "pretrain", *arguments, "--out", tmp_path / "again")
    assert document["tensors_digest"] == read_public_model(public).record.tensors_digest
    assert document["parameters_digest"] == hashlib.sha256(read_public_model(public).model.tobytes()).hexdigest()
    assert document["loss"] > 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"--device": "cuda:99"}, "cuda:99"),
        ({"--data": HEART / "nowhere"}, "nowhere"),
        ({"--coupled-columns": 0}, "coupled_columns = 0"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], complaint: str
) -> None:
    options = {"--schema": HEART / "schema.toml", "--data": DATA, "--out": tmp_path / "model", "--steps": 1} | changes
    refused = answer(capsys, "pretrain", *[part for option in options.items() for part in option], code=1)
    assert complaint in refused["error"]["found"]
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_there_is_not_overwritten(public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in public.iterdir()}
    answer(capsys, "pretrain", "--schema", HEART / "schema.toml", "--data", DATA, "--out", public, code=1)
    assert {path: path.read_bytes() for path in public.iterdir()} == before


def test_the_signed_plan_names_the_parameters_that_lie_in_the_run(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(public, tmp_path / "model")
    path = plan_file(tmp_path)
    home, out = tmp_path / "home", tmp_path / "run"
    assert call("init", "--home", home) == 0
    capsys.readouterr()
    answer(capsys, "plan", path, "--home", home, "--out", out, "--site-key", f"north={SITE}")
    start = (out / "start.f32").read_bytes()
    assert np.array_equal(np.frombuffer(start, "<f4"), read_public_model(public).model)
    assert json.loads((out / "plan.json").read_bytes())["warm_start"] == hashlib.sha256(start).hexdigest()


def test_a_plan_without_warm_start_says_so_and_lays_nothing_down(tmp_path: Path) -> None:
    path = plan_file(tmp_path)
    text = path.read_text(encoding="utf-8").replace('[warm_start]\nmodel = "model"\n', "")
    path.write_text(text, encoding="utf-8")
    key = tmp_path / "coordinator.key"
    SigningKey.generate(key)
    plan, run = prepare_run(read_draft(path), key_name=str(key), site_keys={"north": SITE}, out=tmp_path / "run")
    assert plan.warm_start is None
    assert not (run.path / "start.f32").exists()


def test_an_earlier_run_is_gone_on_from_with_the_model_that_is_sampled_from(tmp_path: Path) -> None:
    earlier = make_plan().model_copy(update={"model": ModelSpec(width=8, noise_levels=1)})
    parameters = np.arange(parameter_count(SCHEMA, earlier.model), dtype=np.float32)
    write_snapshot(
        tmp_path / "model",
        plan=earlier,
        schema=SCHEMA.to_json_bytes(),
        round_number=3,
        model=parameters,
        raw_model=-parameters,
        anchor=np.zeros((len(SCHEMA.label.values), SCHEMA.width), np.float32),
        label_shares=None,
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north",),
        aggregate_digest="a" * 64,
        ledger_index=3,
    )
    assert read_draft(plan_file(tmp_path)).start == parameters.astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"width": 16}, "width = 8"),
        ({"coupled": 0}, "coupled_columns = 2048"),
        ({"marginals": ""}, "with prevalences"),
        ({"schema": HEART.parent / "diabetes" / "schema.toml"}, "one of"),
    ],
    ids=["another width", "other couplings", "no anchor", "another schema"],
)
def test_a_model_that_does_not_belong_to_the_plan_is_refused(
    public: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    shutil.copytree(public, tmp_path / "model")
    with pytest.raises(PlanError) as refused:
        read_draft(plan_file(tmp_path, **changes))
    assert complaint in refused.value.found


def test_couplings_of_some_columns_are_refused_because_each_anchor_chooses_others(tmp_path: Path) -> None:
    out = tmp_path / "model"
    arguments = ("--schema", HEART / "schema.toml", "--data", DATA, "--out", out, "--steps", 1, "--coupled-columns", 3)
    assert call("pretrain", *arguments, "--width", 8) == 1
    assert not out.exists(), "it is said before the training, not after"
    spec = ModelSpec(width=8, coupled_columns=3)
    out.mkdir()
    model = PretrainedModel(
        parameters=np.zeros(parameter_count(SCHEMA, spec), np.float32),
        anchor=np.zeros((2, SCHEMA.width), np.float32),
        label_shares=np.full(2, 0.5, np.float32),
    )
    training = PublicTraining(
        patients=1, files=("x",), steps=1, batch_size=1, seed=0, precision="float32", device="cpu", versions={}
    )
    write_public_model(out, SCHEMA, spec, model, training)
    with pytest.raises(PlanError, match="or of none"):
        read_draft(plan_file(tmp_path, coupled=3))


def test_a_model_of_series_is_gone_on_from_with_its_own_backbone_only(tmp_path: Path) -> None:
    schema, spec = series_schema(), SeriesSpec(width=32, backbone="unet")
    parameters = np.arange(parameters_of(spec, schema), dtype=np.float32)
    write_snapshot(
        tmp_path / "model",
        plan=series_plan(model=spec.model_dump()),
        schema=schema.to_json_bytes(),
        round_number=2,
        model=parameters,
        anchor=usual_anchor(SERIES_LAYOUT).to_vector(),
        label_shares=np.full(2, 0.5, np.float32),
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north", "south"),
        aggregate_digest="a" * 64,
        ledger_index=3,
    )
    # How many noise levels a step has may differ, what the parameters mean may not.
    further = spec.model_copy(update={"noise_levels": 2})
    assert read_start(tmp_path / "model", schema=schema, spec=further, anchored=True) == parameters.tobytes()
    wanted = {
        "backbone = transformer": SeriesSpec(width=32),
        "blocks = 2": SeriesSpec(width=32, backbone="unet", blocks=2),
    }
    for expected, other in wanted.items():
        with pytest.raises(PlanError, match=f"{expected}, as under .model. in the plan"):
            read_start(tmp_path / "model", schema=schema, spec=other, anchored=True)


@pytest.mark.parametrize("name", ["model.safetensors", "public-model.json", "schema.json"])
def test_damage_is_refused_and_named(public: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(public, tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(SnapshotError) as refused:
        read_draft(plan_file(tmp_path))
    assert name in refused.value.found


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"snapshot\.json"):
        read_draft(plan_file(tmp_path))
